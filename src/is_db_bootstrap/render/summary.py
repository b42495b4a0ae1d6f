"""The result in few bytes, for a container's termination log."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import BootstrapResult, Outcome, StoreResult

#: What Kubernetes keeps of a container's `/dev/termination-log`
#: (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
LIMIT = 4096
#: Characters that each text is cut to, in turn, until all fit.
_CUTS = (1000, 400, 200, 100, 40, 10)


def summary(result: BootstrapResult, limit: int = LIMIT) -> str:
    """A JSON document of at most `limit` bytes of UTF-8: outcome, exit code, and what each store failed with."""
    for cut in _CUTS:
        text = json.dumps(_run(result, cut), ensure_ascii=False)
        if len(text.encode()) <= limit:
            return text
    return json.dumps({"outcome": result.outcome, "exit_code": result.exit_code})


def fleet_summary(result: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The same of many targets, from their document: how many of each outcome, and the first that failed."""
    failed = [t for t in result["targets"] if t["exit_code"]]
    head = {k: result[k] for k in ("blueprint", "mode", "outcome", "exit_code", "duration_s")}
    head["targets"] = Counter(t["outcome"] for t in result["targets"])
    for cut in _CUTS:
        shown = [_failed_target(t, cut) for t in failed[:cut]]
        text = json.dumps(
            head | _told(message=result["message"][:cut], failed=shown), ensure_ascii=False
        )
        if len(text.encode()) <= limit:
            return text
    return json.dumps(head)


def _told(**texts: Any) -> dict[str, Any]:
    return {name: text for name, text in texts.items() if text}


def _failed_target(target: Mapping[str, Any], cut: int) -> dict[str, Any]:
    errors = (
        [s["error"]["message"] for s in target["run"]["stores"] if s["error"]]
        if target["run"]
        else [target["message"]]
    )
    return {
        "name": target["name"][:cut],
        "exit_code": target["exit_code"],
        "message": "; ".join(errors)[:cut],
    }


def refusal(error: BootstrapError, limit: int = LIMIT, *, exit_code: int | None = None) -> str:
    """The same for a run that did not begin; `exit_code` when it is not that of the error."""
    outcome = Outcome.INTERRUPTED if error.kind == "interrupted" else Outcome.FAILED
    code = error.exit_code if exit_code is None else exit_code
    for cut in (*_CUTS, 0):
        text = json.dumps(
            {"outcome": outcome, "exit_code": code, "error": _error(error.kind, error, cut)},
            ensure_ascii=False,
        )
        if len(text.encode()) <= limit:
            break
    return text


def _run(result: BootstrapResult, cut: int) -> dict[str, Any]:
    return {
        "blueprint": result.blueprint,
        "mode": result.mode,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "duration_s": round(result.duration_s, 3),
        "run_id": result.run_id,
        "stores": [_store(store, cut) for store in result.stores],
    }


def _store(store: StoreResult, cut: int) -> dict[str, Any]:
    changes = sum(change.outcome in {Outcome.CHANGED, Outcome.PLANNED} for change in store.changes)
    shown: dict[str, Any] = {"store": store.store, "outcome": store.outcome, "changes": changes}
    if store.error:
        shown["error"] = _error(store.error.kind, store.error, cut)
    if store.drifts:
        shown["drifts"] = len(store.drifts)
    return shown


def _error(kind: str, error: Any, cut: int) -> dict[str, str]:
    texts = {"message": error.message, "hint": error.hint}
    return {"kind": kind} | {
        name: text if len(text) <= cut else f"{text[:cut]}…"
        for name, text in texts.items()
        if text and cut
    }
