"""The locks of a run: which ones the run needs, and how it takes, keeps and loses them."""

from __future__ import annotations

import getpass
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.deadlines import Deadline
from is_db_bootstrap.engine.retry import until
from is_db_bootstrap.engine.store import (
    Anchor,
    CanAnchor,
    CanLock,
    CanTakeOver,
    DatabaseBootstrapper,
    LeftLease,
    Lock,
)
from is_db_bootstrap.engine.threads import call_within, start_thread
from is_db_bootstrap.engine.track import Held, Track
from is_db_bootstrap.errors import (
    BootstrapError,
    Interrupted,
    LockTimeout,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.events import Phase
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.results import Change, LockHolder

#: Confirmations in a row to which a store gave no answer, after which its lock counts as lost.
_MISSED_BEATS = 2
#: Seconds that a follower waits at least before it begins its time again.
_FOLLOWER_PAUSE_S = 0.05
#: Seconds that a server gets to take a lock back.
_RELEASE_S = 10.0
#: The same, after a store has shown that it does not answer.
_HURRIED_S = 0.3
#: What a person can do about a lock that was lost.
RUN_AGAIN = "Run again; what has been applied is recognised."


class NothingLeft(Exception):
    """Another run has done what this one wanted the lock for."""


class LockLost(StoreUnavailable):
    """A lock that this run has taken does not belong to this run any more."""


class Locks:
    """The locks that one run holds.

    `deadline` is shared with the wait for stores. A follower begins it again while another run
    holds the lock.
    """

    def __init__(self, run: RunContext, deadline: Deadline) -> None:
        self._run = run
        self._policy = run.rules.lock
        self._retry = run.rules.retry
        self._deadline = deadline
        self._held: list[Held] = []
        self._released = threading.Event()
        #: The store that is being asked for its lock at this moment.
        self.acquiring: DatabaseBootstrapper | None = None

    # --- taking

    def take_all(self, nothing_left: Callable[[], bool]) -> None:
        """Take every lock that the pending changes, and what is to be remembered, need.

        The locks are taken in store order, so that two runs cannot deadlock.
        Raises `LockTimeout` when one is not free in time, and `NothingLeft` for a follower as soon
        as `nothing_left` says that the run that holds the lock has done all that is pending.
        """
        needed, borrowed = self._needed_locks(nothing_left)
        for store in sorted(needed, key=lambda s: STORE_ORDER.index(s.name)):
            self._hold_lock(store, nothing_left)
        self._assign_guards(borrowed)

    def _needed_locks(
        self, nothing_left: Callable[[], bool]
    ) -> tuple[list[DatabaseBootstrapper], Held | None]:
        """The stores of this run whose locks are needed, and the lock that was borrowed, if any.

        The lock of an anchor is needed also when nothing is pending there.
        A borrowed lock guards a store that cannot lock. Without a borrowed lock, the first store
        that can lock does so.
        """
        pending = [track.store for track in self._run.tracks if track.needs_lock]
        can_all_lock = all(isinstance(store, CanLock) for store in pending)
        needed: list[DatabaseBootstrapper] = []
        for track in self._run.tracks:
            is_wanted = track.needs_lock or isinstance(track.store, CanAnchor)
            if is_wanted and isinstance(track.store, CanLock):
                needed.append(track.store)
        if can_all_lock:
            return needed, None
        borrowed = self._borrow_lock(nothing_left)
        if borrowed is None:
            able = [track.store for track in self._run.tracks if isinstance(track.store, CanLock)]
            needed += [store for store in able[:1] if store not in needed]
        return needed, borrowed

    def _borrow_lock(self, nothing_left: Callable[[], bool]) -> Held | None:
        """The lock of the first store outside of this run whose database exists."""
        for store in self._policy.borrow:
            with suppress(StoreConflict):
                return self._hold_lock(store, nothing_left)
        return None

    def _assign_guards(self, borrowed: Held | None) -> None:
        """Say for each store which lock guards its changes."""
        own = {held.store.name: held for held in self._held}
        fallback = borrowed or next(iter(self._held), None)
        for track in self._run.tracks:
            track.guard = own.get(track.store.name) or fallback
            if track.needs_lock and track.guard is None:
                track.note(
                    "No store of this run can lock: a second run at the same time is not excluded."
                )

    def _hold_lock(self, store: DatabaseBootstrapper, nothing_left: Callable[[], bool]) -> Held:
        """Take a lock and keep it from now on, also while this run waits for its other locks."""
        return self._keep(store, self._acquire_lock(store, nothing_left))

    def _keep(self, store: DatabaseBootstrapper, lock: Lock) -> Held:
        """Keep a lock that was just taken, until `release_all`."""
        held = Held(store, lock)
        self._held.append(held)
        keep = partial(self._keep_lock, held, held.heartbeat(self._policy))
        threading.Thread(target=keep, name=f"lock-heartbeat-{store.name}", daemon=True).start()
        return held

    def _acquire_lock(self, store: DatabaseBootstrapper, nothing_left: Callable[[], bool]) -> Lock:
        """Wait for a lock. A follower waits as long as another run holds the lock."""
        owner = _describe_owner(self._run.run_id)
        holders: list[LockHolder] = []

        def try_once(_: float) -> Lock:
            if not isinstance(store, CanLock):
                raise TypeError(store)
            if isinstance(store, CanTakeOver):
                store.know_anchor(self._present_anchor())
            taken = store.try_lock(owner)
            if not isinstance(taken, LockHolder):
                return taken
            holders[:] = [taken]
            self._follow(nothing_left)
            # The message has no age, so that an observer hears of a holder once, and not each try.
            raise StoreBusy(store.name, f"The lock is held by {taken.who}.")

        self.acquiring = store
        try:
            return self._try_while_held(store, try_once, holders)
        except StoreBusy as exc:
            if not holders:
                raise
            raise LockTimeout(
                store.name,
                f"The lock was not free within {self._retry.deadline_s:g} s:"
                f" {_describe_holder(holders[0])} holds it.",
                hint="Wait for that run to end, or give a longer --timeout.",
            ) from exc
        finally:
            self.acquiring = None

    def _present_anchor(self) -> Anchor | None:
        """The anchor that this run holds, as its server confirms at this moment."""
        for held in self._held:
            if isinstance(held.store, CanAnchor) and held.confirmed():
                with suppress(BootstrapError):
                    return held.store.anchor()
        return None

    def _follow(self, nothing_left: Callable[[], bool]) -> None:
        """Begin a follower's time again, because another run holds the lock.

        Raises `NothingLeft` when that run has left nothing to do.
        """
        if not self._policy.follow:
            return
        self._deadline.begin_again()
        if nothing_left():
            raise NothingLeft
        self._deadline.begin_again()

    def _try_while_held(
        self,
        store: DatabaseBootstrapper,
        try_once: Callable[[float], Lock],
        holders: Sequence[LockHolder],
    ) -> Lock:
        """Try until the deadline. A follower that has seen a holder goes on after it."""
        while True:
            try:
                return self._try_until_deadline(store, try_once)
            except StoreBusy:
                if not (self._policy.follow and holders):
                    raise
                self._run.sleep(max(self._retry.initial_s, _FOLLOWER_PAUSE_S))

    def _try_until_deadline(
        self, store: DatabaseBootstrapper, try_once: Callable[[float], Lock]
    ) -> Lock:
        def say(error: StoreUnavailable) -> None:
            self._run.say_waiting(Phase.LOCK, store.name, error.message)

        return until(self._retry, self._deadline, try_once, sleep=self._run.sleep, on_retry=say)

    # --- keeping

    def _keep_lock(self, held: Held, every_s: float) -> None:
        """Renew one lock until the run ends or the lock is lost.

        Each lock has a thread of its own for this.
        """
        missed = 0
        while not self._released.wait(every_s):
            ours = held.ask()
            missed = missed + 1 if ours is None else 0
            if ours is False or missed >= _MISSED_BEATS:
                self._lose_lock(held)
                return

    def _lose_lock(self, held: Held) -> None:
        """Begin no further change, and end the running changes that only this lock guarded.

        A running change is ended on its server.
        """
        if self._released.is_set():
            return
        held.lost_at = time.monotonic()
        for track in self._run.tracks:
            if track.guard is held and track.changing:
                self._run.emit("cancelling", store=track.store.name)
                # Nobody waits for a server that does not take the cancel.
                start_thread(track.store.cancel)

    # --- asking

    def refuse_change(self, track: Track) -> None:
        """Raise `LockLost` when any lock of this run is lost, or when the guard of `track` is.

        The anchor is asked for too: who holds it next may take the leases of this run over.
        """
        guards = [held for held in self._held if held.lost or isinstance(held.store, CanAnchor)]
        if track.guard is not None:
            guards.append(track.guard)
        self._refuse_lost(guards, "before its next change")

    def refuse_end(self) -> None:
        """Raise `LockLost` when this run did not keep all its locks to the end of its changes."""
        self._refuse_lost(self._held, "before its changes were done")

    def _refuse_lost(self, guards: Sequence[Held], when: str) -> None:
        """Raise for the first of `guards` that does not belong to this run any more.

        A lock that was confirmed within the last `fresh_s` seconds counts as ours.
        """
        for held in guards:
            if not held.confirmed(self._policy.fresh_s):
                raise LockLost(
                    held.store.name,
                    f"The lock of this run was lost {when}, so another run may have begun;"
                    " no further change is made.",
                    hint=RUN_AGAIN,
                )

    def refuse_ended(self, track: Track, change: Change, error: BootstrapError) -> None:
        """Raise `LockLost` for a change that was ended because its lock was lost.

        What the store said of the change is only the consequence.
        """
        is_consequence = isinstance(error, StoreUnavailable) and not isinstance(error, LockLost)
        if is_consequence and track.guard is not None and track.guard.lost:
            raise LockLost(
                track.store.name,
                f"The lock of this run on {track.guard.store.name} was lost while {change.name} was"
                f" running, so the change was ended: {error.message}",
                hint=RUN_AGAIN,
                subject=change.name,
            ) from error

    # --- what others have left

    def release_left(self, tracks: Sequence[Track]) -> None:
        """Remove the `left_lease` of each track whose run has lost the anchor that is ours now.

        The anchor is tried for once, if this run does not hold it. A run that holds it is at work,
        and keeps its leases. A refusal is a note, because this run has nothing to do there.
        """
        anchored = [t for t in tracks if t.left_lease is not None and t.left_lease.anchor]
        if not anchored:
            return
        try:
            anchor = self._present_anchor() or self._try_anchor()
        except BootstrapError:
            return
        for track in anchored:
            lease = track.left_lease
            if anchor is not None and lease is not None and lease.has_lost(anchor):
                self._release_lost(track, lease, anchor)

    def _try_anchor(self) -> Anchor | None:
        """Try once for the lock of each anchor of this run. Returns the first anchor then held."""
        for track in self._run.tracks:
            store = track.store
            if isinstance(store, CanAnchor) and isinstance(store, CanLock):
                taken = store.try_lock(_describe_owner(self._run.run_id))
                if not isinstance(taken, LockHolder):
                    self._keep(store, taken)
        return self._present_anchor()

    def _release_lost(self, track: Track, lease: LeftLease, anchor: Anchor) -> None:
        """Take over the lease of a run that has lost `anchor`, and give it back."""
        store = track.store

        def try_once(_: float) -> Lock:
            if not isinstance(store, CanLock) or not isinstance(store, CanTakeOver):
                raise TypeError(store)
            store.know_anchor(anchor)
            taken = store.try_lock(_describe_owner(self._run.run_id))
            if isinstance(taken, LockHolder):
                raise StoreBusy(store.name, f"{taken.who} holds it.")
            return taken

        who = f"a run that has lost its other lock: {lease.holder.who}"
        try:
            until(self._retry, Deadline(_RELEASE_S), try_once, sleep=self._run.sleep).release()
        except Interrupted:
            raise
        except BootstrapError as exc:
            track.note(f"The lock of {who} could not be removed: {exc.message}")
        else:
            track.note(f"This run has removed the lock of {who}.")

    # --- releasing

    def release_all(self, *, left_to_expire: bool, hurried: bool) -> None:
        """Give the locks up, the last one first.

        With `left_to_expire`, the locks are kept for what still runs on a server, and expire later.
        `hurried` says that a store has just shown that it does not answer.
        """
        self._released.set()
        for held in reversed(self._held):
            track = self._track_of(held.store)
            if left_to_expire:
                track.note("A statement did not end in time: the lock is left to expire.")
                continue
            within_s = _HURRIED_S if hurried or held.lost else _RELEASE_S
            [released] = call_within(within_s, [held.lock.release])
            if not released.done():
                track.note("The lock could not be given up, because its server does not answer.")
                continue
            with suppress(BootstrapError):
                if not released.result():
                    track.note("The lock was not held any more at the end of the run.")

    def _track_of(self, store: DatabaseBootstrapper) -> Track:
        """The track of a store. For a store outside of the run, the first track."""
        tracks = self._run.tracks
        return next((track for track in tracks if track.store is store), tracks[0])


def _describe_owner(run_id: str) -> str:
    """Who holds a lock, for another run and for the person at its terminal."""
    place = f"on {socket.gethostname()}, {_describe_user()}, process {os.getpid()}"
    return f"is-db-bootstrap {run_id} {place}"


def _describe_holder(holder: LockHolder) -> str:
    """Who holds a lock, since when, and how long ago that was."""
    if holder.since is None:
        return holder.who
    age_s = (datetime.now(UTC) - holder.since).total_seconds()
    return f"{holder.who} since {holder.since:%Y-%m-%d %H:%M:%S} UTC ({age_s:.0f} s)"


def _describe_user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's uid without an entry in passwd
        return f"uid {os.getuid()}"
