"""One store on its way up the ladder: which rung it stands on, and why not on the next one.

A run asks a store once whether it is usable, which takes all rungs at a time. The lower rungs are
looked at one by one only where that is asked for (`wait`, `doctor`), and after a try that nobody
answered, to name the cause. Looking at them sends nothing to the store, so no login is counted.

All times are seconds.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.store import CanClimb, DatabaseBootstrapper, Place
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from is_db_bootstrap.events import Phase
from is_db_bootstrap.rungs import Rung, RungResult

#: Seconds between the two successes that are asked of a server that has just come up. The first
#: start of an official image runs a server that goes away again (nexus-rag#897: after 1.25 s).
SETTLE_S = 1.0
#: A server that started less than so many seconds ago has just come up.
YOUNG_S = 10.0
#: The least seconds that an attempt to connect gets.
_LEAST_CONNECT_S = 0.1
_UNKNOWN_PLACE = "only the client knows where it connects to"
_NOT_LOOKED_AT = "not looked at, because this store tells nothing of single rungs"
_NO_NAME = (
    "Correct the host in the address. If the name belongs to a service that comes up later, see "
    "that it is in the same network."
)
_NOT_THERE = "Is the server running, and is the address right?"
_NO_ANSWER = (
    "A firewall, a security group or a wrong address drops what is sent there. Is the server "
    "running, and is the address right?"
)


class Climb:
    """The way of one store up the ladder, in one try or in several."""

    def __init__(self, run: RunContext, track: Track) -> None:
        self._run = run
        self._track = track
        #: Whether a try of this wait has failed, so that the server has just come up.
        self._was_away = False
        #: The place that has taken a connection. Empty before, and where only the client knows it.
        self._reached = ""

    def try_once(self, left_s: float) -> None:
        """Try once whether the store is usable. Raises the error of the rung that failed."""
        try:
            if self._run.rules.climbs:
                self._climb(left_s)
            else:
                self._track.server = self._track.store.ping(left_s)
        except (StoreError, ConfigurationError) as exc:
            if self._run.halted.is_set():
                raise  # the call was ended from outside, which says nothing of the store
            self._was_away = True
            cause = self._cause_of(exc)
            self._note_failure(cause)
            if cause is exc:
                raise
            raise cause from exc

    # --- climbing

    def _climb(self, left_s: float) -> None:
        end = time.monotonic() + left_s
        store = self._track.store
        if not isinstance(store, CanClimb):
            self._ping(end)
            self._note_reached(tuple(Rung))
            return
        places = store.places()
        self._note(RungResult(Rung.NAME, *_told_names(store.name, places)))
        self._reached = _refuse_closed(store, places, end)
        self._ping(end)
        if self._has_just_come_up(store):
            self._ask_again(end)
        self._note(self._port())
        found = {each.rung: each for each in store.rungs()}
        for rung in tuple(Rung)[2:]:
            self._note(found.get(rung, RungResult(rung, ok=True)))

    def _port(self) -> RungResult:
        """The rung of a port that has answered."""
        return RungResult(Rung.PORT, ok=True, text=self._reached)

    def _ping(self, end: float) -> None:
        left_s = max(end - time.monotonic(), _LEAST_CONNECT_S)
        self._track.server = self._track.store.ping(left_s)

    def _has_just_come_up(self, store: CanClimb) -> bool:
        age_s = store.server_age_s()
        return self._was_away or (age_s is not None and age_s < YOUNG_S)

    def _ask_again(self, end: float) -> None:
        """Ask once more a moment later, on new connections."""
        pause_s = min(SETTLE_S, max(end - time.monotonic(), 0.0))
        self._run.sleep(pause_s)
        self._ping(end)
        self._was_away = False

    # --- what has failed

    def _cause_of(self, error: BootstrapError) -> BootstrapError:
        """The error with its rung, or the one of a name that does not resolve behind it."""
        rung = error.rung or _usual_rung(error)
        store = self._track.store
        is_unanswered = rung is Rung.PORT and isinstance(error, StoreUnavailable)
        if is_unanswered and isinstance(store, CanClimb) and not self._run.rules.climbs:
            try:
                _told_names(store.name, store.places())
            except StoreError as exc:
                return exc
        return error.at(rung)

    def _note_failure(self, error: BootstrapError) -> None:
        rung = error.rung or _usual_rung(error)
        self._note_reached(rung.below)
        for higher in tuple(Rung)[tuple(Rung).index(rung) :]:
            self._track.rungs.pop(higher, None)
        is_permanent = not isinstance(error, StoreUnavailable)
        self._note(
            RungResult(
                rung, ok=False, text=error.message, hint=error.hint, is_permanent=is_permanent
            )
        )

    # --- telling

    def _note_reached(self, rungs: Sequence[Rung]) -> None:
        """Note rungs of which nothing is known but that the store stands above them."""
        for rung in rungs:
            known = self._track.rungs.get(rung)
            if known is None or known.ok is False:
                self._note(self._reached_rung(rung))

    def _reached_rung(self, rung: Rung) -> RungResult:
        """A rung below the one that was looked at. Without a ladder nobody knows the single one."""
        if not isinstance(self._track.store, CanClimb):
            return RungResult(rung, ok=None, text=_NOT_LOOKED_AT)
        return self._port() if rung is Rung.PORT else RungResult(rung, ok=True)

    def _note(self, seen: RungResult) -> None:
        _note_rung(self._run, self._track, seen)


def note_timeout(run: RunContext, track: Track, error: BootstrapError) -> None:
    """Say which rung of a store was being looked at when the time for it was over.

    That is the lowest one of which nothing good is known. A run that looks at no single rungs does
    not know.
    """
    if not run.rules.climbs or not isinstance(track.store, CanClimb):
        return
    open_rungs = (rung for rung in Rung if rung not in track.rungs or track.rungs[rung].ok is False)
    rung = next(open_rungs, None)
    if rung is not None:
        _note_rung(run, track, RungResult(rung, ok=False, text=error.message, hint=error.hint))


def _note_rung(run: RunContext, track: Track, seen: RungResult) -> None:
    """Keep what was seen of a rung, and tell the observers when that is new."""
    if track.told_rungs.get(seen.rung) != seen:
        track.told_rungs[seen.rung] = seen
        run.emit("rung", phase=Phase.WAIT, store=track.store.name, message=seen.text, rung=seen)
    track.rungs[seen.rung] = seen


def _usual_rung(error: BootstrapError) -> Rung:
    """The rung of an error that does not name one."""
    if isinstance(error, AccessDenied):
        return Rung.LOGIN
    is_unanswered = isinstance(error, StoreUnavailable) and not isinstance(error, StoreBusy)
    if is_unanswered or isinstance(error, ConfigurationError):
        return Rung.PORT
    return Rung.TARGET


def _told_names(store: str, places: Sequence[Place]) -> tuple[bool | None, str]:
    """Whether the names of these places resolve, and to what.

    Raises `StoreUnavailable` when none does.
    """
    named = [place for place in places if not place.socket]
    if not places:
        return None, _UNKNOWN_PLACE
    if not named:
        return True, "a socket has no name"
    failures: list[str] = []
    told: list[str] = []
    for place in named:
        try:
            found = sorted(_addresses(place))
        except (OSError, UnicodeError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
            failures.append(f"{place.host}{place.remark} ({reason})")
        else:
            is_number = found == [place.host]
            told.append(place.host if is_number else f"{place.host} is {', '.join(found)}")
    if not told:
        hosts = " and ".join(dict.fromkeys(failures))
        raise StoreUnavailable(
            store, f"The host name does not resolve: {hosts}.", hint=_NO_NAME
        ).at(Rung.NAME)
    return True, "; ".join(dict.fromkeys(told))


def _addresses(place: Place) -> set[str]:
    """The addresses of a host."""
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    return {str(each[4][0]) for each in found}


def _refuse_closed(store: DatabaseBootstrapper, places: Sequence[Place], end: float) -> str:
    """The first place that takes a connection. Empty when there is no place to try.

    Raises `StoreUnavailable` when no place does.
    """
    failures = []
    for place in places:
        shown = f"{place}{place.remark}"
        failure = _connection_failure(place, end)
        if not failure:
            return shown
        is_store_itself = len(places) == 1 and not place.remark
        failures.append(f"{store.target if is_store_itself else shown} {failure}")
    if not failures:
        return ""
    hint = (
        _NO_ANSWER
        if all("does not answer within" in failure for failure in failures)
        else _NOT_THERE
    )
    message = "; ".join(failures)
    raise StoreUnavailable(store.name, f"{message}.", hint=hint).at(Rung.PORT)


def _connection_failure(place: Place, end: float) -> str:
    """Why no connection to a place can be opened. Empty when one was opened."""
    limit_s = max(min(place.limit_s, end - time.monotonic()), _LEAST_CONNECT_S)
    try:
        _opened(place, limit_s).close()
    except ConnectionRefusedError:
        refused = "it refuses connections, so nothing listens there"
        return f"does not answer: {refused}"
    except TimeoutError:
        return f"does not answer within {limit_s:.3g} s"
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        return f"does not answer: {reason}"
    return ""


def _opened(place: Place, limit_s: float) -> socket.socket:
    """A connection to a place. Nothing is sent."""
    if not place.socket:
        return socket.create_connection((place.host, place.port), limit_s)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(limit_s)
    try:
        connection.connect(place.socket)
    except BaseException:
        connection.close()
        raise
    return connection
