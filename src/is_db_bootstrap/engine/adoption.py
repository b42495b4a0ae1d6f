"""Taking over stores that were built by hand, or by another tool.

A store says what differs from the blueprint, and which records are missing that this tool would
have written. Nothing is recorded while something differs, unless a person has named the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import (
    BootstrapError,
    ConfigurationError,
    StoreConflict,
    StoreReset,
    VerificationFailed,
)
from is_db_bootstrap.results import Drift, Plan
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.engine.store import Adoption
    from is_db_bootstrap.engine.track import Track


class Adopting:
    """What the caller of one run has accepted, and what the run has found so far.

    Each of `accepted` is the name of an object that differs, or that name behind its store and a
    colon, as in `STORE:V002__data.cypher`.
    """

    def __init__(self, accepted: Sequence[str] = ()) -> None:
        self.accepted = tuple(dict.fromkeys(accepted))
        self._found: dict[str, Adoption] = {}

    def plan(self, track: Track, adoption: Adoption) -> Plan:
        """The plan of one store: the records that are missing.

        Raises `VerificationFailed` for differences that nobody has accepted, and `StoreConflict`
        for accepted ones of a store that cannot record them.
        """
        name = track.store.name
        self._found[name] = adoption
        track.drifts = list(adoption.differences)
        if adoption.is_blank and not adoption.may_be_blank:
            return Plan()
        left = [each for each in adoption.differences if not self._is_accepted(name, each)]
        if left:
            raise _differs(name, left, adoption.refusal)
        if adoption.differences and adoption.refusal:
            first = adoption.differences[0]
            raise StoreConflict(
                name,
                f"{first.kind} {first.object} {first.message}, and cannot be accepted.",
                hint=adoption.refusal,
                subject=first.object,
            )
        track.drifts = []
        track.note(*(accepted_note(each) for each in adoption.differences))
        return Plan(adoption.changes, notes=adoption.notes)

    def refusals(self, tracks: Sequence[Track]) -> list[tuple[Track, BootstrapError]]:
        """What else keeps the stores of a run from being recorded, once all have been looked at.

        A blank store has a `StoreConflict`. A name that was accepted and does not differ is a
        `ConfigurationError` of the first store. There is nothing to add to a store that was lost.
        """
        if any(isinstance(track.error, StoreReset) for track in tracks):
            return []
        blank = [track for track in tracks if self._is_blank(track)]
        is_all_blank = len(blank) == len(tracks)
        refused: list[tuple[Track, BootstrapError]] = [
            (track, _nothing_there(track))
            for track in blank
            if is_all_blank or not self._found[track.store.name].may_be_blank
        ]
        if refused or any(_is_more_than_different(track.error) for track in tracks):
            return refused
        differing = {
            name
            for store, adoption in self._found.items()
            for each in adoption.differences
            for name in _names_of(store, each)
        }
        wrong = [name for name in self.accepted if name not in differing]
        if not wrong:
            return []
        error = ConfigurationError(
            f"{', '.join(wrong)} {'does' if len(wrong) == 1 else 'do'} not differ, so there is "
            "nothing to accept.",
            hint="Leave that --accept out. It names a difference as the report does.",
        )
        return [(tracks[0], error)]

    def without_accepted(self, track: Track, drifts: Iterable[Drift]) -> Iterator[Drift]:
        """The drifts of a verify that nobody has accepted. The others become notes."""
        for drift in drifts:
            if self._is_accepted(track.store.name, drift):
                track.note(accepted_note(drift))
            else:
                yield drift

    def _is_accepted(self, store: str, drift: Drift) -> bool:
        return not self.accepted_names.isdisjoint(_names_of(store, drift))

    @property
    def accepted_names(self) -> frozenset[str]:
        """What the caller has typed."""
        return frozenset(self.accepted)

    def finds_blank(self, store: str) -> bool:
        """Whether a store was looked at and holds nothing that could be adopted."""
        found = self._found.get(store)
        return found is not None and found.is_blank

    def _is_blank(self, track: Track) -> bool:
        return track.error is None and self.finds_blank(track.store.name)


def accepted_note(drift: Drift) -> str:
    """That a difference was accepted, with what it is."""
    facts = [f"expected {drift.expected}" if drift.expected else ""]
    facts.append(f"actual {drift.actual}" if drift.actual else "")
    told = ", ".join(filter(None, facts))
    return f"Accepted: {drift.kind} {drift.object} {drift.message}{f' ({told})' if told else ''}."


def _names_of(store: str, drift: Drift) -> tuple[str, str]:
    return drift.object, f"{store}:{drift.object}"


def _is_more_than_different(error: BootstrapError | None) -> bool:
    return error is not None and not isinstance(error, VerificationFailed)


def _differs(store: str, left: Sequence[Drift], refusal: str) -> VerificationFailed:
    """The refusal of a store that differs, with what a person can do."""
    failure = VerificationFailed(store, left)
    names = dict.fromkeys(drift.object for drift in left)
    # Typing a name into a shell needs quotes where it has spaces or other signs.
    options = " ".join(f"--accept {_quoted(name)}" for name in names)
    accept = f"Or accept exactly what remains: {options}."
    failure.hint = (
        f"Nothing was recorded, because {counted(len(left), 'difference')} "
        f"{'is' if len(left) == 1 else 'are'} left. Mend the store or the blueprint, and adopt "
        f"again. {refusal or accept}"
    )
    return failure


def _quoted(name: str) -> str:
    import shlex

    return shlex.quote(name)


def _nothing_there(track: Track) -> StoreConflict:
    name = track.store.name
    return StoreConflict(
        name,
        f"{track.store.target} holds nothing of the blueprint, so there is nothing to adopt.",
        hint=f"Let `apply` make it. Adopt the other stores with --skip {name}.",
    )
