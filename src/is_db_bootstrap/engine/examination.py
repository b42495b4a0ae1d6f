"""What `doctor` asks of a store that has let us in. Nothing is written, and no lock is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from is_db_bootstrap.engine import memory_words
from is_db_bootstrap.engine.store import CanDiagnose, CanReport
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import Diagnosis
from is_db_bootstrap.rungs import Rung


def is_let_in(track: Track) -> bool:
    """Whether a store has taken our login, so that it may be asked more."""
    seen = track.rungs.get(Rung.LOGIN)
    return track.error is None or (seen is not None and seen.ok is True)


def examine_store(plan: Callable[[Track], None], track: Track) -> None:
    """Ask a store everything that `doctor` tells of it. What it refuses is told as not seen.

    `plan` looks at what is pending and at what the store remembers. Its error is the one in which
    an apply would end, so it is raised when all else was looked at. A store that has failed before
    keeps its first error.
    """
    unseen: list[str] = []
    track.diagnosis = Diagnosis()
    try:
        if isinstance(track.store, CanDiagnose):
            track.diagnosis = track.store.diagnose()
    except BootstrapError as exc:
        unseen.append(_unseen("The server could not be looked at", exc))
    try:
        if isinstance(track.store, CanReport):
            track.status = track.store.status()
    except BootstrapError as exc:
        unseen.append(_unseen("Record and lock could not be read", exc))
    failure: BootstrapError | None = None
    try:
        plan(track)
        _note_plan(track)
    except BootstrapError as exc:
        failure = exc
        unseen.append(_unseen("What is pending could not be seen", exc))
    found = (*track.diagnosis.unseen, *dict.fromkeys(unseen))
    track.diagnosis = replace(track.diagnosis, unseen=found)
    if failure is not None and track.error is None:
        raise failure


def _unseen(what: str, error: BootstrapError) -> str:
    """What could not be seen, why, and the next step."""
    return f"{what}: {error.message} {error.hint}".rstrip()


def _note_plan(track: Track) -> None:
    """Note what the plan has shown."""
    recall = track.recall
    remembered = None
    if recall is not None:
        told = [memory_words.recalled(memory) for memory in recall.memories]
        unable = (recall.unable,) if recall.unable else ()
        remembered = (*told, *recall.remarks, *unable)
    seen = track.diagnosis or Diagnosis()
    track.diagnosis = replace(seen, pending=len(track.pending), remembered=remembered)
