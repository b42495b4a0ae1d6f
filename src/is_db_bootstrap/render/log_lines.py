"""Log records as JSON: one line for each event, and for each other line of the call."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.event_words import event_level, event_text
from is_db_bootstrap.events import Phase
from is_db_bootstrap.wording import visible_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from is_db_bootstrap.events import Event
    from is_db_bootstrap.results import BootstrapResult, ChangeResult

#: The fields of a change that a record has.
_OF_CHANGE = ("name", "kind", "outcome", "duration_s", "detail")

#: Phases whose end says how many changes are to come.
_PLANS = {Phase.PLAN, Phase.REPLAN}


def record(run_id: str, level: str, event: str, message: str, **more: object) -> str:
    """One record as a line with its end.

    `time` is that of the call of this function, in UTC. `more` are further fields. Those that are
    None or empty are left out.
    """
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    fields: dict[str, object] = {
        "time": now,
        "level": level,
        "run_id": run_id,
        "event": event,
        "message": message,
        **{name: value for name, value in more.items() if value not in (None, "")},
    }
    return f"{visible_json(json.dumps(fields, ensure_ascii=False))}\n"


def event_record(event: Event) -> str:
    """The record of an event, as a line with its end. Secrets are not in any event."""
    return record(
        event.run_id, event_level(event), event.kind, event_text(event), **_event_fields(event)
    )


def target_record(run_id: str, name: str, level: str, document: Mapping[str, Any]) -> str:
    """The record of a target of a fleet that has ended, whose part of the result is `document`.

    `run_id` is that of the call, which the run of the target has too.
    """
    run = document["run"] or {}
    stores = run.get("stores", ())
    errors = [store["error"]["message"] for store in stores if store["error"]]
    why = " ".join([*errors, document["message"]]).strip()
    outcome = str(document["outcome"])
    return record(
        run_id,
        level,
        "target",
        f"{name}: {outcome}{f': {why}' if why else ''}",
        target=name,
        outcome=outcome,
        exit_code=document["exit_code"],
    )


def _event_fields(event: Event) -> dict[str, object]:
    fields: dict[str, object] = {
        "store": event.store,
        "phase": event.phase.value if event.phase else None,
        "elapsed_s": round(event.elapsed_s, 3),
        "left_s": None if event.left_s is None else round(event.left_s, 3),
        "planned": event.planned if event.phase in _PLANS else None,
    }
    if event.change is not None:
        fields["change"] = _change_fields(event.change)
    if event.rung is not None:
        fields["rung"] = asdict(event.rung)
    if event.error is not None:
        fields["error"] = asdict(event.error)
    if event.result is not None:
        fields |= _result_fields(event.result)
    return fields


def _change_fields(change: ChangeResult) -> dict[str, object]:
    shown = {name: getattr(change, name) for name in _OF_CHANGE}
    return {name: value for name, value in shown.items() if value not in (None, "")}


def _result_fields(result: BootstrapResult) -> dict[str, object]:
    return {
        "blueprint": result.blueprint,
        "mode": result.mode,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "duration_s": round(result.duration_s, 3),
    }
