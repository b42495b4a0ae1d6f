import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from is_db_bootstrap.events import Event, Phase
from is_db_bootstrap.render import report
from is_db_bootstrap.render.progress import Progress
from is_db_bootstrap.results import (
    BootstrapResult,
    ChangeResult,
    Drift,
    ErrorReport,
    LockHolder,
    Mode,
    Outcome,
    ServerInfo,
    Status,
    StoreResult,
)

CHANGED = StoreResult(
    "postgres",
    "postgresql://app:***@db/novel",
    Outcome.CHANGED,
    ServerInfo("18.4"),
    duration_s=1.234,
    changes=(
        ChangeResult("novel", "database", Outcome.CHANGED, 0.1),
        ChangeResult("ng_0001", "revision", Outcome.CHANGED, 0.2, "conversations"),
        ChangeResult("ng_0002", "revision", Outcome.CHANGED, 0.2),
    ),
)
FAILED = StoreResult(
    "neo4j",
    "bolt://graph",
    Outcome.FAILED,
    error=ErrorReport(
        "conflict",
        "V002",
        "V002__indexes.cypher was changed [bold]after[/bold] it was applied.",
        "Restore the file.",
    ),
)
DRIFTED = StoreResult(
    "redis",
    "redis://cache",
    Outcome.DRIFTED,
    ServerInfo("7.0.15", "cluster"),
    drifts=(
        Drift("idx", "index", "differs", "btree (a)", "btree (b)"),
        Drift("t", "table", "is missing"),
    ),
    notes=("allkeys-lru may evict locks.",),
    error=ErrorReport("verification", "idx", "index idx: differs and 1 more.", "Compare."),
)


def shown(capsys, *stores, mode=Mode.APPLY, exit_code=0, outcome=Outcome.CHANGED, verbose=False):
    started = datetime(2026, 11, 25, tzinfo=UTC)
    report(
        BootstrapResult("0" * 12, "story", mode, outcome, exit_code, started, 1.5, stores),
        verbose=verbose,
    )
    return capsys.readouterr().out


def test_a_store_is_a_row_of_the_table(capsys):
    row = shown(capsys, CHANGED).splitlines()[1].split()
    assert row == ["postgres", "18.4", "changed", "1", "database,", "2", "revisions", "1.23", "s"]


def test_the_last_line_has_outcome_time_and_exit_code(capsys):
    assert shown(capsys, CHANGED).splitlines()[-1] == "story: apply changed in 1.5 s (exit 0)"


def test_single_changes_are_listed_when_asked_for_or_planned(capsys):
    line = "postgres: changed: revision ng_0001 (conversations)"
    assert line not in shown(capsys, CHANGED)
    assert line in shown(capsys, CHANGED, verbose=True)
    assert line in shown(capsys, CHANGED, mode=Mode.PLAN)


def test_a_failure_has_object_cause_and_next_step_literally(capsys):
    text = shown(capsys, FAILED, exit_code=6, outcome=Outcome.FAILED)
    assert (
        "neo4j: conflict: V002__indexes.cypher was changed [bold]after[/bold] it was applied."
        in text
    )
    assert "neo4j: next: Restore the file." in text


def test_every_drift_is_listed_once_with_both_sides(capsys):
    text = shown(capsys, DRIFTED, exit_code=3, outcome=Outcome.DRIFTED)
    assert "redis: drift: index idx: differs (expected btree (a), found btree (b))" in text
    assert "redis: drift: table t: is missing\n" in text
    assert "and 1 more" not in text
    assert "redis: note: allkeys-lru may evict locks." in text
    assert "7.0.15 cluster" in text


@pytest.mark.parametrize(
    ("lock", "said"),
    [(None, "not locked"), (LockHolder("pid 7 on web-1"), "locked by pid 7 on web-1")],
)
def test_status_says_record_head_and_lock(capsys, lock, said):
    store = StoreResult("redis", "redis://cache", Outcome.UNCHANGED, status=Status("", "h", lock))
    assert f"redis: recorded nothing, head h, {said}" in shown(capsys, store, mode=Mode.STATUS)


def test_long_lines_are_not_broken(capsys):
    long = "x" * 300
    store = StoreResult("redis", "redis://cache", Outcome.UNCHANGED, notes=(long,))
    assert long in shown(capsys, store)


def progress(*events, **options):
    console = Console(file=io.StringIO(), width=80)
    observer = Progress(console, None, **{"verbose": False, "quiet": False} | options)
    for event in events:
        observer(event)
    return console.file.getvalue()


WAITING = Event("waiting", Phase.WAIT, "redis", "Nobody listens.")
CHANGE = Event(
    "change", Phase.APPLY, "redis", change=ChangeResult("k", "conventions", Outcome.CHANGED, 0.5)
)


def test_the_same_wait_is_said_once():
    assert progress(WAITING, WAITING) == "redis: Nobody listens. Trying again.\n"


def test_changes_are_said_when_verbose():
    assert progress(CHANGE) == ""
    assert progress(CHANGE, verbose=True) == "redis: conventions k: changed in 0.50 s\n"


def test_quiet_progress_is_silent():
    assert progress(WAITING, CHANGE, quiet=True) == ""
