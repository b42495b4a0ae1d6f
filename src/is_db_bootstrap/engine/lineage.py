"""How what a store records stands to what a blueprint declares.

A lineage is the steps that led to a state: revisions of Alembic, Cypher files, versions of key
conventions, versions of a collection. Each store reads its own, and one rule compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Standing(Enum):
    """How a record stands to a declaration."""

    #: Everything that is declared is recorded, and nothing else.
    SAME = "same"
    #: What is recorded is declared, and more is declared behind it.
    PENDING = "pending"
    #: Everything that is declared is recorded, and the record goes on: newer code was here.
    AHEAD = "ahead"
    #: Each side has something that the other one lacks. Only a person can decide.
    DIVERGED = "diverged"
    #: The record has a step that is not declared, and does not say what led there.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lineage.

    - `after` names the steps that it goes on from.
    - `digests` are of its texts: one for a declared step, and for a recorded one all texts that it
      ever had. Without digests, the name alone identifies the step.
    - `may_repeat` is true of a declared step that is applied again when its text changes.
    - `may_come_late` is true of a step that an assumption about the server may have kept out until
      now, so that it may be applied after steps that follow it.
    """

    name: str
    after: tuple[str, ...] = ()
    digests: frozenset[str] = frozenset()
    may_repeat: bool = False
    may_come_late: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `Lineage.compare` found. The names of steps are in the order of their lineage.

    - `pending` are declared and not recorded, or may repeat and never had the declared text.
    - `beyond` are recorded and not declared.
    - `between` are those of `beyond` from which a declared step went on: they are no later state.
    - `skipped` are pending although a step that goes on from them is recorded.
    - `moved` were recorded before a step from which they go on as they are declared now.
    - `rewritten` are recorded under the declared name, but never with the declared text.
    """

    standing: Standing
    pending: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    rewritten: tuple[str, ...] = ()

    @property
    def is_diverged(self) -> bool:
        """Whether each side has something that the other one lacks, or has in another order."""
        crosses = bool(self.beyond and self.pending)
        return crosses or bool(self.between or self.skipped or self.moved or self.rewritten)


@dataclass(frozen=True, slots=True)
class Lineage:
    """Steps in the order in which they are, or were, applied.

    A record `is_complete` when it holds all steps that led to it. Alembic's version table alone
    holds the last ones only.
    """

    steps: tuple[Step, ...] = ()
    is_complete: bool = True

    @classmethod
    def in_order(cls, *names: str) -> Lineage:
        """Steps of which each goes on from the one before it."""
        befores: tuple[tuple[str, ...], ...] = ((), *((name,) for name in names))
        return cls(tuple(Step(name, after) for name, after in zip(names, befores, strict=False)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the steps."""
        return tuple(step.name for step in self.steps)

    def compare(self, declared: Lineage) -> Comparison:
        """How this record stands to what is declared, by containment and order."""
        recorded = {step.name: step for step in self.steps}
        known = set(declared.names)
        beyond = tuple(name for name in self.names if name not in known)
        led_to_known = self._before(known)
        done = set(recorded) | (set() if self.is_complete else declared._before(recorded))
        changed = [step for step in declared.steps if _has_other_text(step, recorded)]
        again = {step.name for step in changed if step.may_repeat}
        settled = done - again
        found = Comparison(
            Standing.SAME,
            pending=tuple(name for name in declared.names if name not in settled),
            beyond=beyond,
            between=tuple(name for name in beyond if name in led_to_known),
            skipped=declared._skipped(done),
            moved=self._moved(declared),
            rewritten=tuple(step.name for step in changed if not step.may_repeat),
        )
        return replace(found, standing=self._standing(found))

    def _standing(self, found: Comparison) -> Standing:
        if found.beyond and not self.is_complete:
            return Standing.UNKNOWN
        if found.is_diverged:
            return Standing.DIVERGED
        if found.beyond:
            return Standing.AHEAD
        return Standing.PENDING if found.pending else Standing.SAME

    def _moved(self, declared: Lineage) -> tuple[str, ...]:
        """Steps that are recorded before a step from which they go on as declared."""
        if not self.is_complete:
            return ()
        place = {name: index for index, name in enumerate(self.names)}
        late = {step.name for step in declared.steps if step.may_come_late}
        return tuple(
            step.name
            for step in declared.steps
            if step.name in place
            and any(place.get(name, -1) > place[step.name] for name in {*step.after} - late)
        )

    def _before(self, names: Mapping[str, object] | set[str]) -> set[str]:
        """All steps from which the named ones go on, directly or not."""
        after = {step.name: step.after for step in self.steps}
        found: set[str] = set()
        open_names = [before for name in names for before in after.get(name, ())]
        while open_names:
            name = open_names.pop()
            if name not in found:
                found.add(name)
                open_names += after.get(name, ())
        return found

    def _skipped(self, done: set[str]) -> tuple[str, ...]:
        """Steps that are not done although a step behind them is."""
        needed = self._before(done)
        return tuple(
            step.name
            for step in self.steps
            if step.name in needed and step.name not in done and not step.may_come_late
        )


def _has_other_text(declared: Step, recorded: Mapping[str, Step]) -> bool:
    """Whether a step of this name is recorded, but never had the declared text."""
    found = recorded.get(declared.name)
    if found is None or not found.digests or not declared.digests:
        return False
    return found.digests.isdisjoint(declared.digests)
