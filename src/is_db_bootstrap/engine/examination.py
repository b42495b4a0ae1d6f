"""What `doctor` asks of a store that has let us in. Nothing is written, and no lock is taken."""

from __future__ import annotations

from dataclasses import replace

from is_db_bootstrap.engine.memory import Recall
from is_db_bootstrap.engine.store import CanDiagnose, CanRemember, CanReport
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import Diagnosis
from is_db_bootstrap.rungs import Rung


def is_let_in(track: Track) -> bool:
    """Whether a store has taken our login, so that it may be asked more."""
    seen = track.rungs.get(Rung.LOGIN)
    return track.error is None or (seen is not None and seen.ok is True)


def examine_store(track: Track) -> None:
    """Ask a store everything that `doctor` tells of it. What it refuses is told as not seen."""
    unseen: list[str] = []
    track.diagnosis = Diagnosis()
    try:
        if isinstance(track.store, CanDiagnose):
            track.diagnosis = track.store.diagnose()
    except BootstrapError as exc:
        unseen.append(f"The server could not be looked at: {exc.message}")
    try:
        if isinstance(track.store, CanReport):
            track.status = track.store.status()
    except BootstrapError as exc:
        unseen.append(f"Record and lock could not be read: {exc.message}")
    try:
        track.plan = track.store.plan()
        if isinstance(track.store, CanRemember):
            remembered = _told(track.store.recall())
            track.diagnosis = replace(track.diagnosis, remembered=remembered)
    except BootstrapError as exc:
        unseen.append(f"What is pending could not be seen: {exc.message}")
    found = (*track.diagnosis.unseen, *dict.fromkeys(unseen))
    track.diagnosis = replace(track.diagnosis, unseen=found)


def _told(recall: Recall) -> tuple[str, ...]:
    """What a store remembers, in sentences."""
    told = []
    for memory in recall.memories:
        stores = ", ".join(f"{name} at {each.address}" for name, each in memory.members.items())
        told.append(
            f"Blueprint {memory.blueprint}, converged {memory.recorded_at:%Y-%m-%d %H:%M:%S} UTC by"
            f" run {memory.run_id} of version {memory.version}, with {stores}."
        )
    unable = (recall.unable,) if recall.unable else ()
    return (*told, *recall.remarks, *unable)
