"""What the stores that a run leaves out remember of those that it makes anew.

`--only` and `--skip` leave stores out. Such a store may be the only one that remembers a store of
the run. So it is asked, and only asked, before anything is made anew. It fails no run: that it
could not be asked is a note, and is never taken for "it remembers nothing".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field

from is_db_bootstrap.engine.recollection import Known
from is_db_bootstrap.engine.store import CanRemember, DatabaseBootstrapper
from is_db_bootstrap.engine.threads import start_thread
from is_db_bootstrap.errors import BootstrapError, StoreConflict
from is_db_bootstrap.names import StoreName

#: Seconds that all bystanders together get for their answers.
ANSWER_S = 10.0
#: Seconds after which a person hears what the run waits for.
_QUIET_S = 2.0
#: Seconds between two looks at whether the run is to end.
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Bystander:
    """A store of the blueprint that a run leaves out, and whose address is known.

    `make` makes its bootstrapper, and imports its client for that. A run that makes nothing anew
    does not call it. `target` is the address without secrets.
    """

    name: StoreName
    target: str
    make: Callable[[], DatabaseBootstrapper]


@dataclass(frozen=True, slots=True)
class Heard:
    """What the bystanders have said. `unheard` says of each of the others why it said nothing."""

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

    Returns within `within_s` seconds, or when `is_to_end` says so. `say_waiting` is told once what
    takes long.
    """
    heard = Heard()
    calls: dict[StoreName, tuple[DatabaseBootstrapper, Future[Known]]] = {}
    for each in bystanders:
        try:
            store = each.make()
        except BootstrapError as exc:
            heard.unheard[each.name] = exc.message
            continue
        calls[each.name] = store, _start_call(store, within_s)
    _await([call for _, call in calls.values()], within_s, is_to_end, say_waiting)
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
    tells of no record, because the look may have ended before it saw one.
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
    if conflict is not None and not recall.memories:
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
        start_thread(lambda: _end_call(store))
        return
    error = call.exception()
    if isinstance(error, BootstrapError):
        heard.unheard[name] = error.message
    elif error is not None:
        raise error
    else:
        known = call.result()
        if known.recall.is_unread:
            heard.unheard[name] = known.recall.unable
        heard.known[name] = known
        heard.remarks.extend(known.recall.remarks)


def _end_call(store: DatabaseBootstrapper) -> None:
    with suppress(BootstrapError):
        store.cancel()
