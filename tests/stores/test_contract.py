"""What every store keeps to, on every version of its server. See `adapters/__init__.py` for what a store brings along."""

from __future__ import annotations

import http.server
import importlib
import importlib.util
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy, track
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import CanLock, CanProve, CanReport
from is_db_bootstrap.errors import AccessDenied, BootstrapError, StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import DifferenceKind, LockHolder, Mode, Outcome
from is_db_bootstrap.settings import StoreUrl
from mute import MuteProxy, always, never

ADAPTERS = "adapters"  # this folder is on the path, as pytest does
VERSIONS = {
    "postgres": ["14", "15", "18"],
    "neo4j": ["5.26", "2026.08"],
    "milvus": ["lite", "2.3"],
    "redis": ["6", "7"],
}
#: A look needs about so many answers, or fewer.
MOST_ANSWERS = 15
#: The answers that get lost while a lock is taken, one after the other. Redis sends few.
LOST_ANSWERS = (0, 1, 2, 3, 6)
#: What a cancelled call may take to come back, seconds.
SOON_S = 10
#: The limit of a phase that meets a mute server, and what a slow machine may take besides, seconds.
LIMIT_S, SLOW_S = 2, 5


def _over(store):
    """Run a suite on every version of `store`."""

    def mark(suite):
        suite = pytest.mark.parametrize(f"{store}_url", VERSIONS[store], indirect=True)(suite)
        return getattr(pytest.mark, store)(suite)

    return mark


def _adapter(store, url):
    made = importlib.import_module(f"{ADAPTERS}.{store}").Adapter(url)
    made.name = store
    return made


def _elsewhere(url, port):
    return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", url)


@pytest.fixture
def http_port():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _is_number(number, answers, _):
    return next(answers) == number


def _lock_soon(store):
    """The lock, tried for as the engine does."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        with suppress(StoreUnavailable):
            taken = store.try_lock("me")
            if not isinstance(taken, LockHolder):
                return taken
    raise AssertionError(taken)


def _run_until_mute(adapter, new, phase, mode):
    """A run whose server goes mute when `phase` begins: result, events, seconds of that phase."""
    port = StoreUrl.parse(adapter.name, adapter.url).port(0)
    proxy = MuteProxy(port, until=always if phase is Phase.WAIT else never)
    events = []

    def observe(event):
        events.append(event)
        if event.kind == "phase" and event.phase is phase:
            proxy.silence()

    # The client's own time-out is too long to end anything here.
    store = new(_elsewhere(adapter.url, proxy.port), connect_timeout_s=60)
    engine = BootstrapOrchestrator(
        [store],
        retry=RetryPolicy(deadline_s=LIMIT_S if phase is Phase.WAIT else 60),
        lock=LockPolicy(phase_timeout_s=LIMIT_S),
        observers=[observe],
    )
    try:
        result = engine.run(mode)
    finally:
        proxy.close()
    began_s = next(e.elapsed_s for e in events if e.kind == "phase" and e.phase is phase)
    return result, events, result.duration_s - began_s


def _apply_until_mute(adapter, connect_timeout_s):
    """A run whose server goes mute when its first change begins: result, seconds of the change."""
    proxy = MuteProxy(StoreUrl.parse(adapter.name, adapter.url).port(0))
    began = []

    def observe(event):
        if event.kind == "change-started" and not began:
            began.append(event.elapsed_s)
            proxy.silence()

    store = adapter.open(
        _elsewhere(adapter.url, proxy.port),
        connect_timeout_s=connect_timeout_s,
        lease_s=LIMIT_S,
        index_timeout_s=LIMIT_S,
    )
    engine = BootstrapOrchestrator(
        [store],
        lock=LockPolicy(heartbeat_s=LIMIT_S / 4, grace_s=0),
        observers=[observe],
    )
    try:
        result = engine.run()
    finally:
        proxy.close()
    return result, result.duration_s - began[0]


def _selftest_until_mute(adapter, new):
    """A self-test whose server goes mute before its first check: what it raised, and its events."""
    proxy = MuteProxy(StoreUrl.parse(adapter.name, adapter.url).port(0))
    events = []

    def observe(event):
        events.append(event)
        if event.kind == "phase" and event.phase is Phase.SELFTEST:
            proxy.silence()

    store = new(_elsewhere(adapter.url, proxy.port), connect_timeout_s=60)
    engine = BootstrapOrchestrator(
        [store], lock=LockPolicy(phase_timeout_s=LIMIT_S), observers=[observe]
    )
    try:
        with pytest.raises(StoreUnavailable) as caught:
            list(engine.selftest())
    finally:
        proxy.close()
    return caught.value, events


def _apply_planned(new):
    """Apply what a plan lists by now, so that the next tampering finds its object."""
    for change in new().plan().changes:
        new().apply(change)


class Contract:
    """The suite; a subclass names the store by its `adapter` fixture."""

    @pytest.fixture
    def new(self, adapter):
        """Opens bootstrappers and closes them afterwards."""
        opened = []

        def open_one(url=None, **timing):
            opened.append(adapter.open(url, **timing))
            return opened[-1]

        yield open_one
        for store in opened:
            store.close()

    @staticmethod
    def run(store, mode=Mode.APPLY):
        return BootstrapOrchestrator([store]).run(mode)

    def test_a_second_run_plans_nothing_and_changes_nothing(self, adapter, new):
        first = self.run(new())
        assert first.outcome is Outcome.CHANGED, first
        before = adapter.snapshot()
        second = self.run(new())
        assert second.outcome is Outcome.UNCHANGED, second
        assert adapter.snapshot() == before
        assert new().plan().changes == ()

    def test_looking_changes_nothing(self, adapter, new):
        before = adapter.snapshot()
        store = new()
        store.ping(30)
        assert store.plan().changes
        assert self.run(new(), Mode.PLAN).outcome is Outcome.PLANNED
        assert self.run(new(), Mode.WAIT).ok
        assert adapter.snapshot() == before

    def test_an_unapplied_blueprint_verifies_as_drift(self, new):
        assert new().verify()

    def test_applying_a_change_twice_is_harmless(self, new):
        store = new()
        for change in store.plan().changes:
            store.apply(change)
            store.apply(change)
        assert not new().plan().changes
        assert not new().verify()

    def test_an_interrupted_run_is_completed_by_the_next(self, new):
        """Each run takes one step more before it is given up; so every prefix of the plan is met."""
        for _ in range(100):
            store = new()
            changes = store.plan().changes
            if not changes:
                break
            store.apply(changes[0])
            store.close()
        assert not new().verify()
        assert self.run(new()).outcome is Outcome.UNCHANGED

    def test_what_newer_code_has_migrated_is_left_alone_or_refused(self, adapter, new, tmp_path):
        adapter.migrate_further(tmp_path)
        before = adapter.snapshot()
        for mode in (Mode.APPLY, Mode.VERIFY):
            result = self.run(new(), mode)
            assert (result.exit_code, result.outcome) == (0, Outcome.UNCHANGED), result
            assert result.stores[0].notes
            refused = BootstrapOrchestrator([new()], allow_ahead=False).run(mode)
            assert refused.exit_code == 6, refused
            assert "goes on beyond this version" in refused.stores[0].error.message
        assert adapter.snapshot() == before

    def test_each_change_says_what_it_is_and_the_result_tells_it(self, adapter, new):
        planned = self.run(new(), Mode.PLAN).to_dict()["stores"][0]["changes"]
        assert planned
        for change in planned:
            expected = adapter.NATURES.get(change["name"]) or adapter.NATURES[change["kind"]]
            assert change["nature"] == expected, change
        applied = self.run(new()).to_dict()["stores"][0]["changes"]
        told = [(change["name"], change["nature"]) for change in applied]
        assert told == [(change["name"], change["nature"]) for change in planned]

    def test_a_retry_of_a_change_that_has_not_begun_is_refused_and_changes_nothing(
        self, adapter, new
    ):
        name = new().plan().changes[0].name
        before = adapter.snapshot()
        result = BootstrapOrchestrator([new()], retry_changes=[name]).run()
        assert (result.exit_code, result.outcome) == (2, Outcome.FAILED), result
        assert f"{name} is not marked as begun" in result.stores[0].error.message
        assert adapter.snapshot() == before

    def test_a_wrong_password_is_denied_and_tried_once(self, adapter, new):
        url = adapter.wrong_password()
        if url is None:
            pytest.skip("this server asks for no password")
        before = adapter.refused_logins()
        result = self.run(new(url))
        assert isinstance(result.stores[0].exception, AccessDenied), result
        assert result.exit_code == 5
        if before is not None:
            assert adapter.refused_logins() == before + 1

    def test_nobody_listening_is_unavailable(self, adapter, new, closed_port):
        with pytest.raises(StoreUnavailable):
            new(_elsewhere(adapter.url, closed_port), connect_timeout_s=2).ping(2)

    def test_another_kind_of_server_is_told(self, adapter, new, http_port):
        with pytest.raises(adapter.OTHER_SERVER):
            new(_elsewhere(adapter.url, http_port), connect_timeout_s=2).ping(2)

    def test_the_lock_excludes_a_second_run(self, new):
        first, second = new(), new()
        if not isinstance(first, CanLock):
            pytest.skip("this store cannot lock")
        lock = first.try_lock("the first run")
        assert not isinstance(lock, LockHolder)
        holder = second.try_lock("the second run")
        assert isinstance(holder, LockHolder)
        assert "the first run" in holder.who
        assert holder.since is not None
        assert lock.confirm()
        assert lock.release()
        lock = second.try_lock("the second run")
        assert not isinstance(lock, LockHolder)
        assert lock.release()

    def test_a_lost_lock_is_noticed(self, adapter, new):
        store = new()
        if not isinstance(store, CanLock):
            pytest.skip("this store cannot lock")
        lock = store.try_lock("a run")
        adapter.lose_lock()
        assert not lock.confirm()
        assert not lock.release()

    def test_verify_sees_each_kind_of_drift(self, adapter, new):
        """One after the other on one converged server, and what `apply` can repair, it repairs."""
        self.run(new())
        assert not new().verify()
        for kind in adapter.TAMPERINGS:
            adapter.tamper(kind)
            assert new().verify(), f"{kind} was not seen"
            _apply_planned(new)

    def test_each_drift_says_how_it_differs_with_both_sides(self, adapter, new):
        """Before the first run, and of each thing that somebody has done by hand."""
        told = list(self.run(new(), Mode.VERIFY).stores[0].drifts)
        assert told
        self.run(new())
        for kind in adapter.TAMPERINGS:
            adapter.tamper(kind)
            [store] = self.run(new(), Mode.VERIFY).stores
            told += store.drifts
            _apply_planned(new)
        for drift in told:
            assert drift.difference is DifferenceKind.of(drift.expected, drift.actual), drift
            assert drift.difference is not DifferenceKind.UNSEEN, drift
            assert drift.fix or drift.reason, drift

    def test_a_repair_makes_what_is_missing_and_leaves_the_rest_as_it_is(self, adapter, new):
        """A look changes nothing, and what is left is told with the reason."""
        self.run(new())
        for kind in adapter.MENDABLE:
            adapter.tamper(kind)
            before = adapter.snapshot()
            look = self.run(new(), Mode.REPAIR)
            assert (look.exit_code, look.outcome) == (0, Outcome.PLANNED), (kind, look)
            assert adapter.snapshot() == before
            for change in look.stores[0].changes:
                assert change.statements, change
                assert not any("DROP" in text for text in change.statements), change
            mended = BootstrapOrchestrator([new()]).run(Mode.REPAIR, approved=look)
            assert (mended.exit_code, mended.outcome) == (0, Outcome.CHANGED), (kind, mended)
            assert not new().verify()
            again = self.run(new(), Mode.REPAIR)
            assert (again.exit_code, again.outcome) == (0, Outcome.UNCHANGED), again
        for kind in adapter.TAMPERINGS:
            if kind not in adapter.MENDABLE:
                adapter.tamper(kind)
                before = adapter.snapshot()
                look = self.run(new(), Mode.REPAIR)
                left = BootstrapOrchestrator([new()]).run(Mode.REPAIR, approved=look)
                assert left.exit_code == 3, (kind, left)
                assert all(drift.not_repaired for drift in left.stores[0].drifts), left
                assert adapter.snapshot() == before, kind
                _apply_planned(new)

    def test_closing_twice_is_harmless(self, new):
        store = new()
        store.close()
        store.ping(30)
        store.close()
        store.close()

    def test_what_is_proved_is_gone_afterwards(self, adapter, new):
        store = new()
        if not isinstance(store, CanProve):
            pytest.skip("this store has no probe")
        before = adapter.snapshot()
        store.prove()
        assert adapter.snapshot() == before

    def test_status_tells_record_head_and_lock(self, new):
        store = new()
        if not isinstance(store, CanReport):
            pytest.skip("this store does not report")
        self.run(new())
        status = store.status()
        assert status.recorded == status.head
        assert status.lock is None

    def test_cancel_ends_a_running_call(self, adapter, new):
        store = new(connect_timeout_s=60)
        with adapter.held_call(store) as call, ThreadPoolExecutor(1) as pool:
            running = pool.submit(call)
            time.sleep(1)
            assert not running.done()
            store.cancel()
            with pytest.raises(BootstrapError):
                running.result(SOON_S)

    def test_a_connection_that_is_lost_in_any_answer_to_a_look_is_waited_for(self, adapter, new):
        """It is no refused login, no conflict, and nothing that nobody has translated."""
        port = StoreUrl.parse(adapter.name, adapter.url).port(0)
        for number in range(MOST_ANSWERS):
            answers = count()
            is_lost = partial(_is_number, number, answers)
            proxy = MuteProxy(port, until=is_lost, hangs_up=True)
            store = new(_elsewhere(adapter.url, proxy.port), connect_timeout_s=1)
            with suppress(StoreUnavailable):
                store.ping(1)
                store.plan()
            store.close()
            proxy.close()
            if next(answers) <= number:
                return  # it needs no more answers than these

    def test_a_lock_whose_answer_was_lost_is_taken_by_the_next_try(self, adapter, new):
        """Nobody waits for a lease that is one's own."""
        port = StoreUrl.parse(adapter.name, adapter.url).port(0)
        self.run(new())
        for number in LOST_ANSWERS:
            answers, is_armed = count(), threading.Event()
            is_lost = partial(_is_number, number, answers)
            proxy = MuteProxy(
                port,
                until=lambda so_far, a=is_armed, i=is_lost: a.is_set() and i(so_far),
                hangs_up=True,
            )
            store = new(_elsewhere(adapter.url, proxy.port), connect_timeout_s=SOON_S)
            if not isinstance(store, CanLock):
                pytest.skip("it has no lock")
            store.ping(SOON_S)
            is_armed.set()
            lock = _lock_soon(store)
            is_armed.clear()
            assert lock.release()
            store.close()
            proxy.close()
            if next(answers) <= number:
                return  # it needs no more answers than these

    def test_a_server_that_goes_mute_ends_each_phase_within_its_time(self, adapter, new):
        """The phases are tried at once, because each of them lasts until its limit."""
        self.run(new())  # so that a verify asks the store
        cases = [
            (Phase.WAIT, Mode.WAIT),
            (Phase.PLAN, Mode.APPLY),  # with nothing to do
            (Phase.VERIFY, Mode.VERIFY),
            (Phase.STATUS, Mode.STATUS),
        ]
        with ThreadPoolExecutor(len(cases) + 1) as pool:
            ended = [pool.submit(_run_until_mute, adapter, new, *case) for case in cases]
            selftest = pool.submit(_selftest_until_mute, adapter, new)
        for (phase, _), future in zip(cases, ended, strict=True):
            result, events, took_s = future.result()
            assert (result.exit_code, result.outcome) == (4, Outcome.FAILED), (phase, result)
            assert took_s < LIMIT_S + 2 + SLOW_S, (phase, took_s)
            # A client may have a limit of its own for the first answer, which is the same then.
            error = result.stores[0].error
            if phase is not Phase.WAIT or "did not end" in error.message:
                assert f"{phase.value} did not end within {LIMIT_S:g} s. " in error.message
                option = "--timeout" if phase is Phase.WAIT else "--phase-timeout"
                assert option in error.hint
            told = [event.phase for event in events if event.kind == "still-waiting"]
            assert phase in told, events
        error, events = selftest.result()
        assert f"selftest did not end within {LIMIT_S:g} s. " in error.message
        assert "--phase-timeout" in error.hint
        assert [e for e in events if e.kind == "still-waiting" and e.phase is Phase.SELFTEST]

    def test_cancel_is_harmless_when_nothing_runs(self, new):
        store = new()
        store.cancel()
        store.ping(30)
        store.cancel()


@_over("postgres")
class TestPostgres(Contract):
    @pytest.fixture
    def adapter(self, postgres_url):
        made = _adapter("postgres", postgres_url)
        yield made
        made.close()


@_over("neo4j")
class TestNeo4j(Contract):
    @pytest.fixture
    def adapter(self, neo4j_url):
        made = _adapter("neo4j", neo4j_url)
        yield made
        made.close()


@_over("milvus")
class TestMilvus(Contract):
    @pytest.fixture
    def adapter(self, milvus_url):
        made = _adapter("milvus", milvus_url)
        yield made
        made.close()


@_over("redis")
class TestRedis(Contract):
    @pytest.fixture
    def adapter(self, redis_url):
        made = _adapter("redis", redis_url)
        yield made
        made.close()


@pytest.mark.parametrize(
    "store", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in VERSIONS]
)
def test_a_server_that_goes_mute_during_a_change_ends_the_run(store, request, monkeypatch):
    """Its lock is not confirmed any more. Milvus has no lock, but a limit for each of its calls."""
    monkeypatch.setattr(track, "_ANSWER_WITHOUT_LEASE_S", 1.0)
    adapter = _adapter(store, request.getfixturevalue(f"{store}_url"))
    try:
        result, took_s = _apply_until_mute(adapter, LIMIT_S if store == "milvus" else 60)
    finally:
        adapter.close()
    assert (result.exit_code, result.outcome) == (4, Outcome.FAILED), result
    lost_s = 2 * (LIMIT_S / 4 + 1)  # two confirmations without an answer
    ending_s = 1 + 0.4 + 3 * 0.3  # cancelled, given up, disconnected, released, closed
    assert took_s < lost_s + ending_s + SLOW_S
