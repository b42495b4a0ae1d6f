"""The summary of a run for a termination log: whole JSON, never more than Kubernetes keeps."""

import json
from datetime import UTC, datetime

import pytest

from is_db_bootstrap.cli._fleet import _target_lines
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.fleet import TargetResult
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.render import fleet_summary, refusal, summary
from is_db_bootstrap.results import (
    BootstrapResult,
    ChangeResult,
    Drift,
    ErrorReport,
    Mode,
    Outcome,
    StoreResult,
)


def result(message):
    error = ErrorReport("conflict", "table", message, f"hint {message}")
    drifts = tuple(Drift(f"t{n}", "table", message) for n in range(500))
    made, found = (
        ChangeResult("a", "revision", Outcome.CHANGED),
        ChangeResult("b", "database", Outcome.UNCHANGED),
    )
    changes = (made,) * 200 + (found,) * 3  # by another run meanwhile
    stores = tuple(
        StoreResult(
            store, "postgresql://x", Outcome.FAILED, changes=changes, drifts=drifts, error=error
        )
        for store in STORE_ORDER
    )
    return BootstrapResult(
        "run", "mine", Mode.APPLY, Outcome.FAILED, 6, datetime.now(UTC), 1.23456, stores
    )


@pytest.mark.parametrize("text", ["", "short", "x" * 20_000, "ü€😀" * 5_000, '"\\\n' * 5_000])
def test_it_fits_and_says_every_store(text):
    document = summary(result(text))
    assert len(document.encode()) <= 4096
    read = json.loads(document)
    assert (read["exit_code"], read["outcome"], read["duration_s"]) == (6, "failed", 1.235)
    assert [s["store"] for s in read["stores"]] == list(STORE_ORDER)
    assert all(
        (s["error"]["kind"], s["drifts"], s["changes"]) == ("conflict", 500, 200)
        for s in read["stores"]
    )
    assert all(s["error"].get("message", "")[:20] == text[:20] for s in read["stores"])


@pytest.mark.parametrize("text", ["no address", "€" * 50_000, "\0" * 50_000])
def test_a_run_that_did_not_begin_says_why(text):
    document = refusal(ConfigurationError(text, hint=text))
    assert len(document.encode()) <= 4096
    read = json.loads(document)
    assert (read["exit_code"], read["error"]["kind"]) == (2, "configuration")
    assert read["error"].get("message", "")[:10] in {text[:10], ""}


@pytest.mark.parametrize("text", ["", "short", "😀" * 1_000, "\x01" * 1_000, "€" * 50_000])
def test_a_fleet_fits_and_says_how_many_failed(text):
    failed = {
        "name": text or "x",
        "outcome": "failed",
        "exit_code": 4,
        "message": text,
        "run": None,
    }
    head = {
        "blueprint": "mine",
        "mode": "apply",
        "outcome": "failed",
        "exit_code": 4,
        "duration_s": 1.0,
        "message": text,
    }
    document = fleet_summary(head | {"targets": [failed] * 300})
    assert len(document.encode()) <= 4096
    read = json.loads(document)
    assert (read["exit_code"], read["targets"]) == (4, {"failed": 300})
    assert read["failed"][0]["message"][:5] == text[:5]
    assert read.get("message", "")[:5] == text[:5]


def test_a_fleet_says_what_may_go_on_beside_the_failure_of_a_target():
    failure = {"store": "postgres", "error": {"message": "apply did not end within 4 s."}}
    fine = {"store": "redis", "error": None}
    target = {
        "name": "acme",
        "outcome": "failed",
        "exit_code": 4,
        "message": "Session 7 may go on.",
        "run": {"stores": [failure, fine]},
    }
    head = {
        "blueprint": "mine",
        "mode": "apply",
        "outcome": "failed",
        "exit_code": 4,
        "duration_s": 1.0,
        "message": "",
    }
    [told] = json.loads(fleet_summary(head | {"targets": [target]}))["failed"]
    assert told["message"] == "apply did not end within 4 s.; Session 7 may go on."


def test_a_line_of_a_target_counts_what_was_changed():
    """Not what was skipped or made by another run."""
    run = {
        "stores": [
            {
                "error": None,
                "changes": [{"outcome": o} for o in ("changed", "skipped", "unchanged")],
            }
        ]
    }
    acme = TargetResult("acme", Outcome.CHANGED, 0, run)
    assert _target_lines(acme, verbose=True) == ["acme: changed: 1 change"]
    assert _target_lines(acme, verbose=False) == []
