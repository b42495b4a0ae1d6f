"""What a run had told as done and a fail-over has taken back.

A change is read back from its store before it is told as done. A server that ends afterwards may be
replaced by a standby that never got that change. So a run that has lost a store asks once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.store import CanReadBack
from is_db_bootstrap.engine.threads import call_within
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import StoreConflict, StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import ChangeResult, Mode, Outcome

#: Seconds that a store gets to say what it has kept.
_ANSWER_S = 15.0
_UNKNOWN = (
    "Whether {names} of this run outlived the loss of the server is not known{why} Run again; what "
    "is recorded is read anew."
)


def tell_losses(run: RunContext) -> None:
    """Say of each change that this run has made and that is not recorded any more.

    Only a run that has lost a store asks. A change that is lost counts as failed.
    """
    if run.mode is not Mode.APPLY or not any(_has_lost_store(track) for track in run.tracks):
        return
    for track in run.tracks:
        if track.changed and isinstance(track.store, CanReadBack):
            _tell_losses_of(run, track, track.store)


def _has_lost_store(track: Track) -> bool:
    return isinstance(track.error, StoreUnavailable)


def _tell_losses_of(run: RunContext, track: Track, store: CanReadBack) -> None:
    made = [change for change in track.changes if change.outcome is Outcome.CHANGED]
    [answer] = call_within(_ANSWER_S, [partial(store.lost_changes, made)])
    if not answer.done() or answer.exception() is not None:
        names = ", ".join(change.name for change in made)
        track.note(_UNKNOWN.format(names=names, why=_why_unknown(answer)))
        return
    lost = answer.result()
    if not lost:
        return
    names = ", ".join(change.name for change in lost)
    track.note(
        f"The fail-over has taken back {names}: this run had read it back as recorded, and the "
        "present primary does not record it. The next apply makes it again."
    )
    for number, change in enumerate(track.changes):
        if change in lost:
            failed = replace(change, outcome=Outcome.FAILED, detail="taken back by the fail-over")
            track.changes[number] = failed
            run.emit("change", phase=Phase.APPLY, store=track.store.name, change=failed)


def _why_unknown(answer: Future[Sequence[ChangeResult]]) -> str:
    error = answer.exception() if answer.done() else None
    if isinstance(error, StoreConflict):
        return f": {error.message}"
    return ", because no primary answers."
