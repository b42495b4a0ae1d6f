"""What the stores that a run leaves out remember of those that it makes anew.

`--only` and `--skip` leave stores out. Such a store may be the only one that remembers a store of
the run. So it is asked, and only asked, before anything is made anew. It fails no run: that it
could not be asked is a note, and is never taken for "it remembers nothing".

A run that is to record something asks briefly, too. So stores that are only ever run one by one
learn of each other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from is_db_bootstrap.engine.recollection import Known
from is_db_bootstrap.engine.store import CanRemember, DatabaseBootstrapper
from is_db_bootstrap.engine.threads import start_thread
from is_db_bootstrap.errors import BootstrapError, Interrupted, StoreConflict
from is_db_bootstrap.names import StoreName

_log = logging.getLogger(__name__)

#: Seconds that all bystanders together get for their answers.
ANSWER_S = 10.0
#: Seconds that they get where the run makes nothing anew, and only asks what it is to record.
BRIEF_ANSWER_S = 2.0
#: Seconds after which a person hears what the run waits for.
_QUIET_S = 2.0
#: Seconds between two looks at whether the run is to end.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Bystander:
    """A store of the blueprint that a run leaves out, and whose address is known.

    `make` makes its bootstrapper, and imports its client for that. A run that has no question to
    its bystanders does not call it.
    """

    name: StoreName
    make: Callable[[], DatabaseBootstrapper]


@dataclass(slots=True)
class Heard:
    """What the bystanders have said.

    `unheard` says of each store why its records are not known. A store that has answered and whose
    records could not be seen is also in `known`, because it tells which store it is.
    """

    known: dict[StoreName, Known] = field(default_factory=dict)
    unheard: dict[StoreName, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def notes(self) -> Iterable[str]:
        """Whom the run could not ask, and what a person should know of the others' records."""
        for name, why in self.unheard.items():
            yield (
                f"{name}, which this run leaves out, could not be asked whether it remembers this "
                f"store: {why} So nobody knows whether this store was lost."
            )
        yield from self.remarks


def ask_bystanders(
    bystanders: Sequence[Bystander],
    *,
    within_s: float = ANSWER_S,
    is_to_end: Callable[[], bool] = lambda: False,
    say_waiting: Callable[[str], None] = lambda _: None,
) -> Heard:
    """Ask all `bystanders` at once what they remember. Nothing is written.

    Returns within `within_s` seconds. The time begins once the clients are imported, one after the
    other. `say_waiting` is told once what takes long. Whatever keeps a store from answering is
    noted. Raises `Interrupted` when `is_to_end` says so before all have answered.
    """
    heard = Heard()
    calls: dict[StoreName, tuple[DatabaseBootstrapper, Future[Known]]] = {}
    for each in bystanders:
        try:
            store = each.make()
        except Exception as exc:  # noqa: BLE001 - a client may be broken, and none is needed here
            heard.unheard[each.name] = _why_unheard(each.name, exc)
            continue
        calls[each.name] = store, _start_call(store, within_s)
    _await([call for _, call in calls.values()], within_s, is_to_end, say_waiting)
    if is_to_end() and not all(call.done() for _, call in calls.values()):
        _end_calls([store for store, call in calls.values() if not call.done()])
        raise Interrupted("The run was interrupted while it asked the stores that it leaves out.")
    for name, (store, call) in calls.items():
        _take_answer(heard, name, store, call, within_s)
    return heard


def _start_call(store: DatabaseBootstrapper, within_s: float) -> Future[Known]:
    def call() -> Known:
        try:
            return _known(store, within_s)
        finally:
            store.close()

    return start_thread(call)


def _known(store: DatabaseBootstrapper, within_s: float) -> Known:
    """What a store is and remembers.

    A conflict keeps no store from telling what it remembers. Raises the conflict where the store
    tells of no record, be it of a newer version, because the look may have ended before it saw one.
    """
    if not isinstance(store, CanRemember):
        raise StoreConflict(store.name, "This store keeps no records.")
    store.ping(within_s)
    conflict: BootstrapError | None = None
    try:
        store.plan()
    except BootstrapError as exc:
        conflict = exc
    recall = store.recall()
    if conflict is not None and not (recall.memories or recall.newer_keys):
        raise conflict
    return Known(recall, store.target, is_cache=store.is_cache, is_bystander=True)


def _await(
    calls: Sequence[Future[Known]],
    within_s: float,
    is_to_end: Callable[[], bool],
    say_waiting: Callable[[str], None],
) -> None:
    """Wait until all `calls` have come back, or the time is over."""
    began, is_quiet = time.monotonic(), True
    left = set(calls)
    while left and time.monotonic() - began < within_s and not is_to_end():
        _, left = wait(left, timeout=_LOOK_S)
        if left and is_quiet and time.monotonic() - began > _QUIET_S:
            is_quiet = False
            say_waiting(
                "Stores that this run leaves out are asked what they remember. They get "
                f"{within_s:g} s."
            )


def _take_answer(
    heard: Heard, name: StoreName, store: DatabaseBootstrapper, call: Future[Known], within_s: float
) -> None:
    if not call.done():
        heard.unheard[name] = f"{store.target} gave no answer within {within_s:g} s."
        _end_calls([store])
        return
    error = call.exception()
    if error is not None:
        heard.unheard[name] = _why_unheard(name, error)
    else:
        known = call.result()
        if known.recall.is_unread:
            heard.unheard[name] = known.recall.unable
        heard.known[name] = known
        heard.remarks.extend(known.recall.remarks)


def _why_unheard(name: StoreName, error: BaseException) -> str:
    """Why a store told nothing. The text of a bug may hold row values, so only the log has it."""
    if isinstance(error, BootstrapError):
        return error.message
    _log.error("%s could not be asked what it remembers.", name, exc_info=error)
    return f"{type(error).__name__}, whose traceback is in the log."


def _end_calls(stores: Sequence[DatabaseBootstrapper]) -> None:
    for store in stores:
        start_thread(partial(_end_call, store))


def _end_call(store: DatabaseBootstrapper) -> None:
    with suppress(BootstrapError):
        store.cancel()
