import logging

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import ChangeFailed, StoreUnavailable
from is_db_bootstrap.observers import to_log
from is_db_bootstrap.results import Mode
from is_db_bootstrap.testing import InMemoryBootstrapper

QUICK = RetryPolicy(deadline_s=1, initial_s=0.01, maximum_s=0.02)


def records(caplog, store):
    with caplog.at_level(logging.DEBUG):
        BootstrapOrchestrator([store], blueprint="story", retry=QUICK, observers=[to_log()]).run()
    return [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "is_db_bootstrap"]


def test_each_event_is_one_record_of_the_library_s_logger(caplog):
    found = records(caplog, InMemoryBootstrapper("redis", ["a"], unavailable=1))
    assert ("WARNING", "redis: wait The store is not up yet.") in found
    assert any(
        level == "INFO" and text.startswith("redis: item a changed in") for level, text in found
    )
    assert found[-1][1].startswith("story apply: changed in")


def test_a_failure_is_an_error_record_that_carries_the_event(caplog):
    def refuse(change):
        raise ChangeFailed("redis", "No.", change=change)

    found = records(caplog, InMemoryBootstrapper("redis", ["a"], on_apply=refuse))
    assert ("ERROR", "redis: apply No.") in found
    assert next(r for r in caplog.records if r.levelname == "ERROR").event.kind == "failed"


def failures(events):
    return [event.message for event in events if event.kind == "failed"]


def test_what_the_engine_ends_or_a_repair_finds_is_told_once_in_the_words_of_the_result():
    def refuse(_):
        assert store.cancelled.wait(60)
        raise StoreUnavailable(store.name, "The statement was cancelled.")

    def interrupt(_):
        engine.interrupt(143)
        assert store.cancelled.wait(60)

    limits = {"apply_timeout_s": 0.2, "grace_s": 0.1}
    for on_apply, mode, limit in [
        (refuse, Mode.APPLY, limits),
        (interrupt, Mode.APPLY, {"grace_s": 0.1}),
        (refuse, Mode.REPAIR, {}),
    ]:
        events = []
        store = InMemoryBootstrapper(wanted=["a"], on_apply=on_apply)
        engine = BootstrapOrchestrator([store], lock=LockPolicy(**limit), observers=[events.append])
        [found] = engine.run(mode).stores
        assert failures(events) == [found.error.message], mode
