"""Servers that gave a target no answer, so that a thousand other targets do not wait for them too.

A target waits for its stores as long as one run does. Where a server then has not said anything at
all, its other targets need not wait as long, one after the other: for a while they fail unasked.
After that, one of them asks for a moment, and the server counts as alive as soon as it answers.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.fleet.results import TargetResult
from is_db_bootstrap.fleet.targets import Target, plain_host, servers
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import BootstrapResult, Outcome
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.kinds import KINDS

#: A try that went on for this part of its limit has brought no answer.
_NEARLY_ALL = 0.8
_HINT = "See whether the server runs, and run again."


@dataclass(frozen=True, slots=True)
class Silence:
    """A server that gave a target no answer.

    `place` is what tells the server from others. `asked_s` is for how many seconds it was asked.
    `message` is what the store's client said.
    """

    store: StoreName
    place: str
    asked_s: float
    message: str


def silences(
    result: BootstrapResult, target: Target, first_tries_s: Mapping[StoreName, float]
) -> list[Silence]:
    """The servers that gave this run no answer of any kind.

    `first_tries_s` says for how many seconds the first try at each store went on. A server that
    refused this target within that time is not silent, unless it takes no connection at all: what
    it refused may be this target only, such as a database that is offline.
    """
    found = []
    timing = target.settings.timing
    limit_s = min(timing.connect_timeout_s, timing.timeout_s)
    for store in result.stores:
        error = store.error
        has_answered = store.server is not None
        if error is None or has_answered or error.kind != StoreUnavailable.kind:
            continue
        url = target.settings.stores[store.store]
        hosts = _known_hosts(url)
        if not hosts:
            continue
        # A try that is not there has never come back.
        first_try_s = first_tries_s.get(store.store, math.inf)
        is_hanging = first_try_s > _NEARLY_ALL * limit_s
        if is_hanging or not any(_takes_connection(*host, limit_s) for host in hosts):
            found.append(Silence(store.store, _place(url), result.duration_s, error.message))
    return found


def asked_briefly(result: TargetResult) -> TargetResult:
    """The result of a target whose stores were only asked for a moment. It says so."""
    words = " ".join(message for message, _ in result.failures)
    hint = next((hint for _, hint in result.failures if hint), _HINT)
    reason = "It was asked for a moment only, because it had given another target no answer."
    return replace(result, run=None, message=f"{words} {reason}", hint=hint)


def _place(url: StoreUrl) -> str:
    """What tells the servers of an address from others, whichever way the address is written."""
    return f"{url.store} {sorted(_known_hosts(url))}"


def _known_hosts(url: StoreUrl) -> list[tuple[str, int]]:
    """Hosts and ports of an address that says them all. Empty for any other address.

    A service, a socket, or a host that the client takes from its environment is not looked up.
    """
    found = servers(url, KINDS[url.store])
    is_plain = all(host and "/" not in host and "%" not in host for host, _ in found)
    if url.service or not is_plain or not all(port.isdecimal() for _, port in found):
        return []
    return [(plain_host(host).strip("[]"), int(port)) for host, port in found]


def _takes_connection(host: str, port: int, limit_s: float) -> bool:
    try:
        with socket.create_connection((host, port), timeout=limit_s):
            return True
    except (OSError, ValueError):  # ValueError: a name that no resolver can be asked for
        return False


class Doubt(Enum):
    """What is to be done with a target, by what is known of its servers."""

    #: Nothing speaks against its servers.
    NONE = "none"
    #: One of its servers gave no answer a while ago. The target asks for a moment first.
    ASK = "ask"
    #: One of its servers has just given no answer. The target fails unasked.
    FAIL = "fail"


@dataclass(slots=True)
class _Noted:
    """A silence, the name of the target that met it, and when, by the clock of `Silences`."""

    silence: Silence
    target: str
    at: float


class Silences:
    """What a fleet knows of servers that gave no answer. `clock` counts seconds."""

    def __init__(
        self, stores: Sequence[StoreName], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stores = stores
        self._clock = clock
        self._noted: dict[str, _Noted] = {}

    def note(self, target: Target, result: TargetResult, found: Sequence[Silence]) -> None:
        """Take in how a target ended: which of its servers were silent, and which have spoken."""
        urls = target.settings.stores
        for store in result.run["stores"] if result.run and self._noted else ():
            if store["server"] is not None:
                self._noted.pop(_place(urls[store["store"]]), None)
        for silence in found:
            self._noted[silence.place] = _Noted(silence, target.name, self._clock())

    def doubt(self, target: Target) -> Doubt:
        """What is to be done with a target.

        A silence counts unasked for as long as its server was asked, and for the time of one
        connection at least.
        """
        noted = self._of(target)
        if noted is None:
            return Doubt.NONE
        least_s = target.settings.timing.connect_timeout_s
        age_s = self._clock() - noted.at
        return Doubt.FAIL if age_s < max(noted.silence.asked_s, least_s) else Doubt.ASK

    def result(self, target: Target) -> TargetResult:
        """The result of a target that fails unasked. It says so."""
        noted = self._of(target)
        if noted is None:
            raise ValueError(f"No server of {target.name} is known to be silent.")
        silence = noted.silence
        url = target.settings.stores[silence.store]
        ago_s = self._clock() - noted.at
        return TargetResult(
            target.name,
            Outcome.FAILED,
            StoreUnavailable.exit_code,
            message=f"{silence.store}: {url} was not asked for this target, because its server gave"
            f" target {noted.target} no answer for {silence.asked_s:.0f} s, until {ago_s:.0f} s"
            f" ago: {silence.message}",
            hint=_HINT,
        )

    def _of(self, target: Target) -> _Noted | None:
        """The silence of one of the target's servers, if one is known."""
        if not self._noted:
            return None
        urls = target.settings.stores
        places = [_place(urls[store]) for store in self._stores if store in urls]
        return next((self._noted[place] for place in places if place in self._noted), None)
