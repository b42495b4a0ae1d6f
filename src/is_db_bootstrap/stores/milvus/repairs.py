"""Which steps of a plan a repair takes, and what it leaves.

A plan also lists what is missing of a collection, since a Milvus has no history. So a repair takes
those steps of it that a drift asks for, and makes no collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from is_db_bootstrap.results import Change, Drift

#: Why what could be mended by itself is left.
_CONTRADICTED = "Something else of its collection contradicts the blueprint. Mend that first."


def steps_of(drifts: Sequence[Drift], missing: Iterable[Change]) -> list[Change]:
    """Those steps that mend one of `drifts`, with what each drift says of both sides."""
    mendable = {(each.kind, each.object): each for each in drifts if each.can_repair}
    return [
        replace(step, expected=drift.expected, actual=drift.actual)
        for step in missing
        if (drift := mendable.get((step.kind, step.name)))
    ]


def left_of(drifts: Sequence[Drift], steps: Sequence[Change]) -> list[Drift]:
    """The drifts that none of `steps` mends."""
    mended = {(each.kind, each.name) for each in steps}
    left = [each for each in drifts if (each.kind, each.object) not in mended]
    return [replace(each, not_repaired=_CONTRADICTED) if each.can_repair else each for each in left]
