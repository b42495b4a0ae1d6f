"""What a run does with the records that its stores keep of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.engine import memory_words, recollection
from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.recollection import Known, Recollection
from is_db_bootstrap.engine.store import CanRemember
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode

if TYPE_CHECKING:
    from is_db_bootstrap.engine.memory import Recall
    from is_db_bootstrap.engine.track import Track


class Remembering:
    """Judges the records of the stores of one run, and says which records are to be written.

    Without a fingerprint in the rules of the run, nothing is remembered and nothing is asked.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._rules = run.rules

    def look(self, track: Track) -> Recall | None:
        """What a store remembers, right after its plan. None for one that does not remember."""
        if not self._rules.fingerprint or not isinstance(track.store, CanRemember):
            return None
        return track.store.recall()

    # --- after the first plan

    def refuse_losses(self) -> bool:
        """Fail each store that was converged and has lost what it held. Whether there is none.

        A loss that the caller accepts is a note. The caller may accept no other one.
        """
        found = self._recollection()
        losses = found.losses()
        accepted = self._rules.accept_reset
        if not_lost := [store for store in accepted if store not in losses]:
            self._refuse_acceptance(not_lost)
            return False
        for track in self._run.tracks:
            name = track.store.name
            if name in losses and name in accepted:
                track.note(memory_words.accepted(losses[name]))
            elif name in losses and track.error is None:
                error = memory_words.store_reset(name, track.store.target, losses[name])
                self._fail(track, error)
        self._note_others(found)
        return self._run.all_succeeded

    def _refuse_acceptance(self, stores: Sequence[str]) -> None:
        """Fail the run, because stores whose reset is accepted were not reset."""
        error = ConfigurationError(
            f"{', '.join(stores)}: there is no reset to accept, because no record tells that "
            "something was there which is missing.",
            hint="Leave that --accept-reset out.",
        )
        named = [track for track in self._run.tracks if track.store.name == stores[0]]
        self._fail(named[0] if named else self._run.tracks[0], error)

    def _fail(self, track: Track, error: BootstrapError) -> None:
        track.error = error
        phase = Phase.DOCTOR if self._run.mode is Mode.DOCTOR else Phase.PLAN
        self._run.say_failed(phase, track.store.name, error)

    def _note_others(self, found: Recollection) -> None:
        """Say which stores are not the ones that were recorded, and which caches are blank."""
        caches, others = found.blank_caches(), found.others()
        for track in self._run.tracks:
            name = track.store.name
            if name in caches:
                track.note(memory_words.blank_cache(caches[name]))
            if name in others:
                track.note(memory_words.other_store(others[name]))

    # --- what is to be written

    def mark_due(self) -> None:
        """Note in each track the record that its store lacks, which is None where it lacks none."""
        found = self._recollection()
        template = recollection.template(
            self._rules.blueprint, self._rules.fingerprint, self._run.run_id
        )
        due = found.to_record(template)
        if self._run.mode is Mode.APPLY and not self._rules.verify:
            # Nobody knows whether the stores are converged, so nothing is to be written.
            for track in self._run.tracks:
                track.note(memory_words.UNRECORDED if track.store.name in due else "")
            return
        for track in self._run.tracks:
            track.memory = due.get(track.store.name)
            if self._run.mode is Mode.APPLY and track.recall is not None:
                track.note(track.recall.unable)
                if found.is_ambiguous:
                    track.note(memory_words.ambiguous(self._rules.blueprint))

    def write(self, track: Track) -> str | None:
        """Write the record of one store. Returns a remark of the store, or None."""
        if track.memory is None or not isinstance(track.store, CanRemember):
            return None
        return track.store.remember(track.memory)

    # --- a status

    def tell(self) -> None:
        """Note what each store remembers, and what was lost. This fails no store."""
        found = self._recollection()
        losses, witness = found.losses(), found.witness()
        for track in self._run.tracks:
            name = track.store.name
            if name in losses:
                track.note(memory_words.store_reset(name, track.store.target, losses[name]).message)
            elif witness is not None and name in witness.members:
                track.note(memory_words.remembered(witness))
        self._note_others(found)

    def _recollection(self) -> Recollection:
        known = {
            track.store.name: Known(
                recall=track.recall,
                address=track.store.target,
                is_cache=isinstance(track.store, CanRemember) and track.store.is_cache,
                is_pending=bool(track.pending),
                is_ahead=track.plan is not None and _is_ahead(track),
            )
            for track in self._run.tracks
            if track.recall is not None
        }
        return Recollection(known, self._rules.declared_stores, self._rules.is_one_of_many)


def _is_ahead(track: Track) -> bool:
    return track.plan is not None and bool(track.plan.ahead or track.plan.parts_ahead)
