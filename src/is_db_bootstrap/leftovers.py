"""What a run leaves behind that its stores know nothing of.

A revision is Python, so it can start processes and open connections that no store has opened.
When a run has failed or was ended, such processes and connections must not go on after the report.
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
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS

#: The outcomes of a run after which what its revisions have begun must not go on.
_BAD = frozenset({Outcome.FAILED, Outcome.INTERRUPTED})
#: Seconds beyond two attempts to connect that ending sessions may take on all stores of a run.
_SESSIONS_S = 30.0
#: The note of a run when nobody knows what became of the sessions.
NOT_LOOKED_FOR = (
    "Sessions that a revision had opened by itself may go on, because they could not be looked for."
)


def session_name() -> str:
    """A name for the sessions that the revisions of one process open by themselves.

    No other session has this name.
    """
    return f"is-db-bootstrap revision {uuid.uuid4().hex[:12]}"


def name_sessions(name: str) -> None:
    """Let the sessions that this process and its children open from now on be called `name`.

    A client that does not read the variable of its store names its sessions otherwise.
    """
    for kind in KINDS.values():
        if kind.session_variable:
            set_process_variable(kind.session_variable, name)


def end_processes(spared: Iterable[int] = ()) -> tuple[Ended, list[str]]:
    """End every process below this one but `spared`.

    Returns what was found, and a sentence for each process that survived.
    """
    ended = end_descendants(os.getpid(), spared)
    sentences = [
        f"The {survivor}, which a revision had started, could not be ended and may go on."
        for survivor in ended.survivors
    ]
    return ended, sentences


def sessions_limit_s(settings: Settings) -> float:
    """Seconds that `end_sessions` may take. After that its caller says `NOT_LOOKED_FOR` instead."""
    return _SESSIONS_S + 2 * settings.timing.connect_timeout_s


def end_sessions(
    stores: Sequence[StoreName], settings: Settings, name: str, clients: Iterable[Client]
) -> list[str]:
    """End the sessions called `name`, and those of `clients`, on the stores that can do so.

    Returns what may go on all the same, as sentences.
    """
    clients = frozenset(clients)
    kinds = [KINDS[store] for store in stores if KINDS[store].session_variable]
    sentences = [_end_sessions_of(kind, settings, name, clients) for kind in kinds]
    return [sentence for sentence in sentences if sentence]


def _end_sessions_of(
    kind: StoreKind, settings: Settings, name: str, clients: frozenset[Client]
) -> str:
    """End the sessions on one store. Returns what may go on there, as a sentence, or nothing."""
    url = settings.need(kind.name)
    timeout_s = settings.timing.connect_timeout_s
    module = client_imports.import_module(kind.module_name("sessions"))
    try:
        left: str = module.end_sessions(url, timeout_s, name, clients)
    except BootstrapError as exc:
        return (
            f"Sessions that a revision had opened on {kind.label} may go on,"
            f" because the server could not be asked: {exc.message}"
        )
    return left


class Guests:
    """Sees to what the revisions of a run in this process start by themselves.

    An instance is an observer of the run. A process that was there before the first change began,
    such as a server of `local up`, is no guest and is left alone.
    """

    def __init__(self) -> None:
        self._name = session_name()
        self._spared: list[int] | None = None

    def __call__(self, event: Event) -> None:
        """Prepare for guests when the run begins to apply.

        A run with nothing to do never begins to apply, so such a run spends no time on this.
        """
        if event.kind == "phase" and event.phase is Phase.APPLY:
            self._spared = descendants(os.getpid())
            adopt_orphans()
            name_sessions(self._name)

    def end_after(
        self, result: BootstrapResult, stores: Sequence[StoreName], settings: Settings
    ) -> BootstrapResult:
        """Call `end` if the run failed or was ended, and note in the result what `end` returns.

        A run that succeeded, or that only found a drift, is left alone.
        """
        if result.outcome not in _BAD:
            return result
        return _with_notes(result, self.end(stores, settings))

    def end(self, stores: Sequence[StoreName], settings: Settings) -> list[str]:
        """End what guests have begun. Returns what may go on all the same, as sentences.

        A caller uses this after a run that failed or was ended, in a process that ends right after
        the run. For every session of this process is ended, and a thread that hangs may still begin
        something new.
        """
        if self._spared is None:
            return []
        own_connections = frozenset(connections(os.getpid()))
        ended, sentences = end_processes(self._spared)
        clients = own_connections | ended.clients
        return sentences + self._end_sessions(stores, settings, clients)

    def _end_sessions(
        self, stores: Sequence[StoreName], settings: Settings, clients: frozenset[Client]
    ) -> list[str]:
        """Call `end_sessions` in a thread, which may hang without holding up this one."""
        sentences = [NOT_LOOKED_FOR]

        def ask() -> None:
            sentences[:] = end_sessions(stores, settings, self._name, clients)

        thread = threading.Thread(target=ask, name="end-sessions", daemon=True)
        thread.start()
        thread.join(sessions_limit_s(settings))
        return list(sentences)


def _with_notes(result: BootstrapResult, notes: Sequence[str]) -> BootstrapResult:
    """The result with `notes` added to the first store that failed or was interrupted."""
    stores = list(result.stores)
    index = next((number for number, store in enumerate(stores) if store.outcome in _BAD), 0)
    chosen = stores[index]
    stores[index] = replace(chosen, notes=(*chosen.notes, *notes))
    return replace(result, stores=tuple(stores))
