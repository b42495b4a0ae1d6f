"""What a run leaves behind that its stores know nothing of.

A revision is Python, so it can start processes and open connections that no store has opened.
When a run was ended before its end, these must not go on after the report.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace

from is_db_bootstrap import client_imports
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.events import Event, Phase
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.process_tree import (
    Client,
    Ended,
    adopt_orphans,
    connections,
    descendants,
    end_descendants,
)
from is_db_bootstrap.results import BootstrapResult, Outcome
from is_db_bootstrap.settings import Settings, set_process_variable
from is_db_bootstrap.stores.kinds import KINDS

#: Seconds beyond two attempts to connect that ending sessions may take on all stores of a run.
_SESSIONS_S = 30.0
#: Told when it is not known what became of the sessions.
NOT_LOOKED_FOR = (
    "Sessions that a revision had opened by itself may go on, because they could not be looked for."
)


def session_name() -> str:
    """A name for the sessions that the revisions of one process open by themselves.

    No other session has it.
    """
    return f"is-db-bootstrap revision {uuid.uuid4().hex[:12]}"


def name_sessions(name: str) -> None:
    """Let the sessions that this process and its children open from now on be called `name`.

    Clients that do not read the variable of their store call them otherwise.
    """
    for kind in KINDS.values():
        if kind.session_variable:
            set_process_variable(kind.session_variable, name)


def end_processes(spared: Iterable[int] = ()) -> tuple[Ended, list[str]]:
    """End every process below this one but `spared`.

    Returns what was found, and a sentence for each process that survived.
    """
    ended = end_descendants(os.getpid(), spared)
    told = [
        f"The {each}, which a revision had started, could not be ended and may go on."
        for each in ended.survivors
    ]
    return ended, told


def sessions_limit_s(settings: Settings) -> float:
    """Seconds that `end_sessions` may take before its caller tells `NOT_LOOKED_FOR` instead."""
    return _SESSIONS_S + 2 * settings.timing.connect_timeout_s


def end_sessions(
    stores: Sequence[StoreName], settings: Settings, name: str, clients: Iterable[Client]
) -> list[str]:
    """End the sessions called `name`, and those of `clients`, on the stores that can do so.

    Returns what may go on all the same, as sentences.
    """
    clients = frozenset(clients)
    told = []
    for store in stores:
        kind = KINDS[store]
        if not kind.session_variable:
            continue
        url = settings.need(store)
        module = client_imports.import_module(kind.module_name("sessions"))
        try:
            told.append(module.end_sessions(url, settings.timing.connect_timeout_s, name, clients))
        except BootstrapError as exc:
            told.append(
                f"Sessions that a revision had opened on {kind.label} may go on,"
                f" because the server could not be asked: {exc.message}"
            )
    return [sentence for sentence in told if sentence]


class Guests:
    """Sees to what the revisions of a run in this process start by themselves.

    An instance is an observer of the run. What was below the process before the first change began,
    such as servers of `local up`, is no guest and is left alone.
    """

    def __init__(self) -> None:
        self._name = session_name()
        self._spared: list[int] | None = None

    def __call__(self, event: Event) -> None:
        """Prepare for guests when the run begins to apply; one with nothing to do never does."""
        if event.kind == "phase" and event.phase is Phase.APPLY:
            self._spared = descendants(os.getpid())
            adopt_orphans()
            name_sessions(self._name)

    def end(
        self, result: BootstrapResult, stores: Sequence[StoreName], settings: Settings
    ) -> BootstrapResult:
        """End what guests have begun, and note in the result what may go on all the same.

        For a run that was ended early, and a process that ends right after it: every session of
        this process is ended, and a thread that hangs may still begin something new.
        """
        if self._spared is None:
            return result
        own = frozenset(connections(os.getpid()))
        ended, told = end_processes(self._spared)
        told += self._end_sessions(stores, settings, own | ended.clients)
        return _noted(result, told)

    def _end_sessions(
        self, stores: Sequence[StoreName], settings: Settings, clients: frozenset[Client]
    ) -> list[str]:
        told = [NOT_LOOKED_FOR]

        def ask() -> None:
            told[:] = end_sessions(stores, settings, self._name, clients)

        thread = threading.Thread(target=ask, name="end-sessions", daemon=True)
        thread.start()
        thread.join(sessions_limit_s(settings))
        return list(told)


def _noted(result: BootstrapResult, told: Sequence[str]) -> BootstrapResult:
    """The result with `told` among the notes of the first store that failed or was interrupted."""
    bad = {Outcome.FAILED, Outcome.INTERRUPTED}
    index = next((i for i, store in enumerate(result.stores) if store.outcome in bad), 0)
    store = result.stores[index]
    noted = replace(store, notes=(*store.notes, *told))
    return replace(result, stores=(*result.stores[:index], noted, *result.stores[index + 1 :]))
