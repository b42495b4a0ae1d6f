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
from is_db_bootstrap.sentences import encodable

#: What Kubernetes keeps of a container's `/dev/termination-log`: bytes
#: (https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/).
LIMIT = 4096
#: Characters that each text is cut to, in turn, until the document fits.
_CUTS = (1000, 400, 200, 100, 40, 10)
#: What a summary of many targets takes from their document as it is.
_FLEET_HEAD = ("blueprint", "mode", "outcome", "exit_code", "duration_s")


def summary(result: BootstrapResult, limit: int = LIMIT) -> str:
    """A JSON document of at most `limit` bytes of UTF-8.

    The document has outcome and exit code, and the error of each store that failed.
    """
    text = _first_that_fits(lambda cut: _run_document(result, cut), limit)
    return text or json.dumps({"outcome": result.outcome, "exit_code": result.exit_code})


def fleet_summary(result: Mapping[str, Any], limit: int = LIMIT) -> str:
    """A JSON document like that of `summary`, for many targets, whose document is `result`.

    The summary has the number of targets of each outcome, and the first targets that failed.
    """
    head = {name: result[name] for name in _FLEET_HEAD}
    head["targets"] = Counter(target["outcome"] for target in result["targets"])
    failed = [target for target in result["targets"] if target["exit_code"]]

    def cut_to(cut: int) -> dict[str, Any]:
        first_failed = [_target_document(target, cut) for target in failed[:cut]]
        rest = {"message": result["message"][:cut], "failed": first_failed}
        return head | _without_empty(rest)

    return _first_that_fits(cut_to, limit) or json.dumps(head)


def refusal(error: BootstrapError, limit: int = LIMIT, *, exit_code: int | None = None) -> str:
    """A JSON document like that of `summary`, for a run that did not begin.

    `exit_code` is given when the exit code is not that of the error.
    """
    head = {
        "outcome": Outcome.INTERRUPTED if error.kind == "interrupted" else Outcome.FAILED,
        "exit_code": error.exit_code if exit_code is None else exit_code,
    }

    def cut_to(cut: int) -> dict[str, Any]:
        return head | {"error": _error_document(error.kind, error, cut)}

    return _first_that_fits(cut_to, limit) or json.dumps(cut_to(0), ensure_ascii=False)


def _first_that_fits(cut_to: Callable[[int], Mapping[str, Any]], limit: int) -> str:
    """The first document that fits, as text. Its texts are cut ever shorter.

    Empty when no document fits.
    """
    for cut in _CUTS:
        text = encodable(json.dumps(cut_to(cut), ensure_ascii=False))
        if len(text.encode()) <= limit:
            return text
    return ""


def _run_document(result: BootstrapResult, cut: int) -> dict[str, Any]:
    return {
        "blueprint": result.blueprint,
        "mode": result.mode,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "duration_s": round(result.duration_s, 3),
        "run_id": result.run_id,
        "stores": [_store_document(store, cut) for store in result.stores],
    }


def _store_document(store: StoreResult, cut: int) -> dict[str, Any]:
    counted = {Outcome.CHANGED, Outcome.PLANNED}
    changes = [change for change in store.changes if change.outcome in counted]
    shown: dict[str, Any] = {
        "store": store.store,
        "outcome": store.outcome,
        "changes": len(changes),
    }
    if store.error:
        shown["error"] = _error_document(store.error.kind, store.error, cut)
    if store.drifts:
        shown["drifts"] = len(store.drifts)
    return shown


def _target_document(target: Mapping[str, Any], cut: int) -> dict[str, Any]:
    """A target that failed. Its text has the errors of its stores, and what went wrong beside."""
    stores = target["run"]["stores"] if target["run"] else []
    messages = [store["error"]["message"] for store in stores if store["error"]]
    if target["message"]:
        messages.append(target["message"])
    return {
        "name": target["name"][:cut],
        "exit_code": target["exit_code"],
        "message": "; ".join(messages)[:cut],
    }


def _error_document(kind: str, error: BootstrapError | ErrorReport, cut: int) -> dict[str, str]:
    """An error with its texts cut to `cut` characters each. 0 leaves the texts out."""
    shown = {"kind": kind}
    for name, text in (("message", error.message), ("hint", error.hint)):
        if text and cut:
            shown[name] = _cut_text(text, cut)
    return shown


def _cut_text(text: str, cut: int) -> str:
    return text if len(text) <= cut else f"{text[:cut]}…"


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
