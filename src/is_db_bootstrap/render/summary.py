"""The result in few bytes, for a container's termination log.

What does not fit is cut: texts first, and then whole parts. What is left is always one JSON
document.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import BootstrapResult, ErrorReport, Outcome, StoreResult

#: What Kubernetes keeps of a container's `/dev/termination-log`: bytes
#: (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
LIMIT = 4096
#: Characters that each text is cut to, in turn, until all fit.
_CUTS = (1000, 400, 200, 100, 40, 10)


def summary(result: BootstrapResult, limit: int = LIMIT) -> str:
    """A JSON document of at most `limit` bytes of UTF-8: outcome, exit code, and what each store failed with."""
    text = _first_that_fits(lambda cut: _run(result, cut), limit)
    return text or json.dumps({"outcome": result.outcome, "exit_code": result.exit_code})


def fleet_summary(result: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The same of many targets, from their document: how many of each outcome, and the first that failed."""
    head = {
        name: result[name] for name in ("blueprint", "mode", "outcome", "exit_code", "duration_s")
    }
    head["targets"] = Counter(target["outcome"] for target in result["targets"])
    failed = [target for target in result["targets"] if target["exit_code"]]

    def cut_to(cut: int) -> dict[str, Any]:
        shown = [_failed_target(target, cut) for target in failed[:cut]]
        return head | _without_empty({"message": result["message"][:cut], "failed": shown})

    return _first_that_fits(cut_to, limit) or json.dumps(head)


def refusal(error: BootstrapError, limit: int = LIMIT, *, exit_code: int | None = None) -> str:
    """The same for a run that did not begin; `exit_code` when it is not that of the error."""
    head = {
        "outcome": Outcome.INTERRUPTED if error.kind == "interrupted" else Outcome.FAILED,
        "exit_code": error.exit_code if exit_code is None else exit_code,
    }

    def cut_to(cut: int) -> dict[str, Any]:
        return head | {"error": _error(error.kind, error, cut)}

    return _first_that_fits(cut_to, limit) or json.dumps(cut_to(0), ensure_ascii=False)


def _first_that_fits(cut_to: Callable[[int], Mapping[str, Any]], limit: int) -> str:
    """The first document that fits, as text, with texts cut ever shorter; empty when none does."""
    for cut in _CUTS:
        text = json.dumps(cut_to(cut), ensure_ascii=False)
        if len(text.encode()) <= limit:
            return text
    return ""


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
    counted = {Outcome.CHANGED, Outcome.PLANNED}
    changes = [change for change in store.changes if change.outcome in counted]
    shown: dict[str, Any] = {
        "store": store.store,
        "outcome": store.outcome,
        "changes": len(changes),
    }
    if store.error:
        shown["error"] = _error(store.error.kind, store.error, cut)
    if store.drifts:
        shown["drifts"] = len(store.drifts)
    return shown


def _failed_target(target: Mapping[str, Any], cut: int) -> dict[str, Any]:
    if target["run"]:
        errors = [store["error"] for store in target["run"]["stores"] if store["error"]]
        message = "; ".join(error["message"] for error in errors)
    else:
        message = target["message"]
    return {
        "name": target["name"][:cut],
        "exit_code": target["exit_code"],
        "message": message[:cut],
    }


def _error(kind: str, error: BootstrapError | ErrorReport, cut: int) -> dict[str, str]:
    """An error with its texts cut to `cut` characters each; 0 leaves the texts out."""
    shown = {"kind": kind}
    for name, text in (("message", error.message), ("hint", error.hint)):
        if text and cut:
            shown[name] = text if len(text) <= cut else f"{text[:cut]}…"
    return shown


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
