"""Keys that programs have written, as an adoption finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from is_db_bootstrap.engine.store import RECORD, Adoption
from is_db_bootstrap.results import Drift, Plan


def adoption(plan: Plan, findings: Sequence[Drift], *, is_blank: bool) -> Adoption:
    """The conventions that `plan` would record, and what an audit of keys has found.

    Findings do not keep anybody from recording: the conventions say how keys are to be, and
    `redis audit` tells which are not. An empty store may be a cache that has just started.
    """
    changes = tuple(replace(change, kind=RECORD) for change in plan.changes)
    told = tuple(f"{found.kind} {found.object}: {found.message}" for found in findings)
    notes = (*plan.notes, *told)
    return Adoption(changes, is_blank=is_blank, may_be_blank=True, notes=notes)
