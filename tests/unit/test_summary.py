"""The summary of a run for a termination log: whole JSON, never more than Kubernetes keeps."""

import json
from datetime import UTC, datetime

import pytest

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.render import refusal, summary
from is_db_bootstrap.results import STORE_ORDER, BootstrapResult, ChangeResult, Drift, ErrorReport, Mode, Outcome, StoreResult


def result(message):
    error = ErrorReport("conflict", "table", message, f"hint {message}")
    drifts = tuple(Drift(f"t{n}", "table", message) for n in range(500))
    made, found = ChangeResult("a", "revision", Outcome.CHANGED), ChangeResult("b", "database", Outcome.UNCHANGED)
    changes = (made,) * 200 + (found,) * 3  # by another run meanwhile
    stores = tuple(
        StoreResult(store, "postgresql://x", Outcome.FAILED, changes=changes, drifts=drifts, error=error)
        for store in STORE_ORDER
    )
    return BootstrapResult("run", "mine", Mode.APPLY, Outcome.FAILED, 6, datetime.now(UTC), 1.23456, stores)


@pytest.mark.parametrize("text", ["", "short", "x" * 20_000, "ü€😀" * 5_000, '"\\\n' * 5_000])
def test_it_fits_and_says_every_store(text):
    document = summary(result(text))
    assert len(document.encode()) <= 4096
    read = json.loads(document)
    assert (read["exit_code"], read["outcome"], read["duration_s"]) == (6, "failed", 1.235)
    assert [s["store"] for s in read["stores"]] == list(STORE_ORDER)
    assert all((s["error"]["kind"], s["drifts"], s["changes"]) == ("conflict", 500, 200) for s in read["stores"])
    assert all(s["error"].get("message", "")[:20] == text[:20] for s in read["stores"])


@pytest.mark.parametrize("text", ["no address", "€" * 50_000, "\0" * 50_000])
def test_a_run_that_did_not_begin_says_why(text):
    document = refusal(ConfigurationError(text, hint=text))
    assert len(document.encode()) <= 4096
    read = json.loads(document)
    assert (read["exit_code"], read["error"]["kind"]) == (2, "configuration")
    assert read["error"].get("message", "")[:10] in {text[:10], ""}
