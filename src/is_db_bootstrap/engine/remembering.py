"""What a run does with the records that its stores keep of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from is_db_bootstrap.engine import memory_words, recollection
from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.recollection import Doubt, Known, Loss, Recollection
from is_db_bootstrap.engine.retry import LEAST_CALL_S
from is_db_bootstrap.engine.store import CanForeseeRefusal, CanRemember
from is_db_bootstrap.errors import (
    BootstrapError,
    ConfigurationError,
    StoreBusy,
    StoreReset,
    StoreUnavailable,
    VerificationFailed,
)
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode

if TYPE_CHECKING:
    from is_db_bootstrap.engine.bystanders import Heard
    from is_db_bootstrap.engine.memory import Memory, Recall
    from is_db_bootstrap.engine.track import Track
    from is_db_bootstrap.names import StoreName


class Remembering:
    """Judges the records of the stores of one run, and says which records are to be written.

    Without a fingerprint in the rules of the run, the records are read and none is written. A run
    that judges no losses reads none either.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._rules = run.rules
        #: What the stores that the run leaves out have said. None before they were asked.
        self._heard: Heard | None = None
        #: Whether they had little time for it, because nothing was made anew.
        self._was_brief = False
        #: The losses that the first plan has shown. None before it was judged.
        self._first_losses: Mapping[StoreName, Loss] | None = None
        #: What the run knew of its stores then.
        self._first_known: Mapping[StoreName, Known] = {}
        #: Why stores cannot keep the record that is due there, as these have foreseen.
        self._refusals: dict[StoreName, str] = {}

    def look(self, track: Track) -> Recall | None:
        """What a store remembers, right after its plan. None for one that does not remember.

        A run that judges no losses asks none.
        """
        if not self._rules.judges_losses or not isinstance(track.store, CanRemember):
            return None
        return track.store.recall()

    # --- after the first plan

    def refuse_losses(self) -> bool:
        """Fail each store that was converged and has lost what it held. Whether there is none.

        A loss that the caller accepts is a note. The caller may accept no other one.
        """
        found = self._recollection()
        losses = self._first_losses = found.losses()
        self._first_known = found.known
        doubtful = found.doubtful()
        accepted = self._rules.accept_reset
        if not_lost := [store for store in accepted if store not in {*losses, *doubtful}]:
            self._refuse_acceptance(not_lost)
            return False
        for track in self._run.tracks:
            name = track.store.name
            if name in losses and name in accepted:
                is_remade = self._run.adopting is None
                track.note(memory_words.accepted(losses[name], is_remade=is_remade))
            elif name in losses and _may_be_lost(track.error):
                self._fail(track, self._reset(track, losses[name]))
            elif name in doubtful and name in accepted:
                track.note(memory_words.accepted_doubt())
            elif name in doubtful and _may_be_lost(track.error):
                self._fail(track, self._doubt(track, doubtful[name]))
        self._note_unread(found)
        self._note_others(found)
        return self._run.all_succeeded

    def _reset(self, track: Track, loss: Loss) -> StoreReset:
        ways_out = self._ways_out(track)
        return memory_words.store_reset(track.store.name, track.store.target, loss, ways_out)

    def _ways_out(self, track: Track) -> memory_words.WaysOut:
        chosen = tuple(each.store.name for each in self._run.tracks)
        adopting = self._run.adopting
        return memory_words.WaysOut(
            only=chosen if set(self._rules.declared_stores) - set(chosen) else (),
            is_one_of_many=self._rules.is_one_of_many,
            may_adopt=adopting is not None and not adopting.finds_blank(track.store.name),
        )

    def _doubt(self, track: Track, doubt: Doubt) -> StoreReset:
        ways_out = self._ways_out(track)
        return memory_words.doubtful(track.store.name, track.store.target, doubt, ways_out)

    def fail_new_losses(self) -> list[tuple[Track, BootstrapError]]:
        """Fail each store that was lost, or may have been, since the first plan was judged.

        Returns these. The caller has accepted what that plan could show, and no more.
        """
        if self._first_losses is None:
            return []
        failed: list[tuple[Track, BootstrapError]] = []
        found = self._recollection()
        losses, doubtful = found.losses(), found.doubtful()
        self._note_unread(found)
        for track in self._run.tracks:
            name = track.store.name
            if name in losses and not losses[name].is_part_of(self._first_losses.get(name)):
                track.error = self._reset(track, losses[name])
                failed.append((track, track.error))
            elif name in doubtful and found.known[name].is_lacking_since(
                self._first_known.get(name)
            ):
                track.error = self._doubt(track, doubtful[name])
                failed.append((track, track.error))
        return failed

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
        track.drifts = []
        phase = Phase.DOCTOR if self._run.mode is Mode.DOCTOR else Phase.PLAN
        self._run.say_failed(phase, track.store.name, error)

    def _note_unread(self, found: Recollection) -> None:
        """Say whose records could not be read, and of which stores these may have told."""
        unread, unsure = found.unread(), found.unsure_parts()
        for track in self._run.tracks:
            if track.recall is not None and track.recall.is_unread:
                track.note(track.recall.unable)
            for keeper, why in unread.get(track.store.name, {}).items():
                track.note(memory_words.unread(keeper, why))
            if track.store.name in unsure:
                track.note(memory_words.unsure_parts(unsure[track.store.name]))

    def _note_others(self, found: Recollection) -> None:
        """Say which stores are not the ones that were recorded, and which caches are blank.

        A run without a fingerprint does not say it: nothing is ever recorded by such runs, so each
        of them would say it.
        """
        if not self._rules.fingerprint:
            return
        caches, others, foretold = found.blank_caches(), found.others(), found.foretold()
        if not (caches or others or foretold):
            return
        due = found.to_record(self._template()) if self._is_to_record else {}
        for track in self._run.tracks:
            name = track.store.name
            if name in caches:
                track.note(memory_words.blank_cache(caches[name], is_recorded=name in due))
            if name in others:
                track.note(memory_words.other_store(others[name], is_recorded=name in due))
            if name in foretold:
                track.note(memory_words.foretold(foretold[name]))

    # --- what is to be written

    def mark_due(self) -> None:
        """Note in each track the record that its store lacks, which is None where it lacks none.

        Without a fingerprint, nobody could tell later what the record is of, so none is due.
        """
        if not self._rules.fingerprint:
            return
        found = self._recollection()
        template = self._template()
        due = found.to_record(template)
        if due and self._is_to_ask_for_record and self._heard is None:
            self._hear(next(iter(due)), is_brief=True)
            found = self._recollection()
            due = found.to_record(template)
        for refused in self._refusals:
            due.pop(refused, None)
        if self._run.mode is Mode.APPLY and not self._rules.verify:
            # Nobody knows whether the stores are converged, so nothing is to be written.
            for track in self._run.tracks:
                track.note(memory_words.UNRECORDED if track.store.name in due else "")
            return
        without_room = found.without_room()
        for track in self._run.tracks:
            track.memory = due.get(track.store.name)
            track.note(self._refusals.get(track.store.name, ""))
            if self._run.mode is Mode.APPLY and track.recall is not None:
                track.note(track.recall.unable)
                track.note(without_room.get(track.store.name, ""))
                if found.is_ambiguous:
                    track.note(memory_words.ambiguous(self._rules.blueprint))

    @property
    def _is_to_record(self) -> bool:
        """Whether the run writes what is due, if all goes well, or plans such a run."""
        mode, rules = self._run.mode, self._rules
        is_verified = mode is Mode.PLAN or (mode is Mode.APPLY and rules.verify)
        return is_verified and bool(rules.fingerprint)

    @property
    def _is_to_ask_for_record(self) -> bool:
        """Whether stores that are left out are asked before something is recorded.

        In a fleet, each target would wait anew for one that is down.
        """
        rules = self._rules
        is_to_write = self._is_to_record and self._run.mode is Mode.APPLY
        return is_to_write and bool(rules.bystanders) and not rules.is_one_of_many

    def _template(self) -> Memory:
        rules = self._rules
        return recollection.template(rules.blueprint, rules.fingerprint, self._run.run_id)

    def foresee_refusal(self, track: Track) -> None:
        """Note why a store cannot keep the record that is due there, if it can foresee that.

        A store that has gone is waited for by the lock. Raises `StoreBusy` for one that is to be
        asked again.
        """
        if not isinstance(track.store, CanForeseeRefusal):
            return
        try:
            refusal = track.store.memory_refusal()
        except StoreBusy:
            raise
        except StoreUnavailable:
            return
        if refusal:
            self._refusals[track.store.name] = refusal

    def write(self, track: Track) -> str | None:
        """Write the record of one store. Returns why that was not done, or None."""
        if track.memory is None or not isinstance(track.store, CanRemember):
            return None
        return track.store.remember(track.memory)

    # --- a status

    def tell(self) -> None:
        """Note what each store remembers, and what was lost. This fails no store."""
        found = self._recollection()
        losses, witness, doubtful = found.losses(), found.witness(), found.doubtful()
        for track in self._run.tracks:
            name = track.store.name
            if name in losses:
                track.note(self._reset(track, losses[name]).message)
            elif name in doubtful:
                track.note(self._doubt(track, doubtful[name]).message)
            elif witness is not None and name in witness.members:
                track.note(memory_words.remembered(witness))
        self._note_unread(found)
        self._note_others(found)

    def _recollection(self) -> Recollection:
        """What all stores say. Where the run makes a store anew, it asks those that it leaves out.

        They are asked once in a run. A cache is made anew whoever remembers it.
        """
        known: dict[StoreName, Known] = {
            track.store.name: Known(
                recall=track.recall,
                address=track.store.target,
                is_cache=isinstance(track.store, CanRemember) and track.store.is_cache,
                is_pending=track.lacks,
                is_ahead=track.plan is not None and _is_ahead(track),
            )
            for track in self._run.tracks
            if track.recall is not None
        }
        lacking = [s for s, each in known.items() if each.is_lacking and not each.is_cache]
        if lacking and self._rules.bystanders:
            heard = self._hear(lacking[0])
            for track in self._run.tracks:
                if track.store.name in lacking:
                    track.note(*heard.notes())
        if self._heard is not None:
            known |= self._heard.known
        return Recollection(known, self._rules.declared_stores, self._rules.is_one_of_many)

    def _hear(self, store: StoreName, *, is_brief: bool = False) -> Heard:
        """What the stores that the run leaves out remember, for a store of the run.

        Those that had little time for an answer, and gave none, may be asked again.
        """
        if self._heard is None or (self._was_brief and self._heard.unheard and not is_brief):
            from is_db_bootstrap.engine.bystanders import ANSWER_S, BRIEF_ANSWER_S, ask_bystanders

            self._was_brief = is_brief
            most_s = BRIEF_ANSWER_S if is_brief else ANSWER_S
            self._heard = ask_bystanders(
                self._rules.bystanders,
                within_s=min(most_s, max(self._rules.retry.deadline_s, LEAST_CALL_S)),
                is_to_end=self._run.stop.is_set,
                say_waiting=partial(self._say_still_waiting, store),
            )
        return self._heard

    def _say_still_waiting(self, store: StoreName, message: str) -> None:
        """Tell the observers what the run waits for. Nothing is tried again."""
        phases = {Mode.STATUS: Phase.STATUS, Mode.DOCTOR: Phase.DOCTOR}
        phase = phases.get(self._run.mode, Phase.PLAN)
        self._run.emit("still-waiting", phase=phase, store=store, message=message)


def _may_be_lost(error: BootstrapError | None) -> bool:
    """Whether a loss says more than what a store has failed for: an adoption finds it different."""
    return error is None or isinstance(error, VerificationFailed)


def _is_ahead(track: Track) -> bool:
    return track.plan is not None and bool(track.plan.ahead or track.plan.parts_ahead)
