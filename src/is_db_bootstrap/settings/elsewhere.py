"""What the environment says of a store while code of the user is run somewhere else than there.

A revision may open a connection of its own, to the address that it finds in the environment. While
it is tried in a scratch database, or written as SQL without a server, that address must not be the
target's.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.address import StoreUrl
from is_db_bootstrap.stores.kind import StoreKind

_SCHEME = re.compile(r"(?P<scheme>(?P<name>\w+)[\w+.-]*):")
#: What stands in for the environment now, the last one in front, and what it has said before.
_LAYERS: list[Mapping[str, str | None]] = []
_BEFORE: dict[str, str | None] = {}
_CHANGING = threading.Lock()


@contextmanager
def address_elsewhere(
    kind: StoreKind,
    url: StoreUrl,
    parts: Mapping[str, str],
    *,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[None]:
    """Let the variables that hold an address of this kind of store name `url` meanwhile.

    `parts` has the fields of `url` as its client has read them. Variables that are not set stay so,
    but those of the client are all set, because it has a default for each. Other threads of this
    process see the same environment.

    `others` has, for each scheme of another engine, what stands behind the colon of an address. A
    variable with an address of an engine that is not there keeps its value.
    """
    values: dict[str, str | None] = {}
    for name in kind.url_variables:
        text = os.environ.get(name)
        found = _SCHEME.match(text.strip()) if text else None
        if text is None or found is None:
            continue
        engine = found["name"].lower()
        if engine in kind.schemes:
            values[name] = _like(kind, text, url)
        elif engine in others:
            values[name] = f"{found['scheme']}:{others[engine]}"
    if any(os.environ.get(name) for name in kind.part_variables.values()):
        values |= {
            name: parts.get(part)
            for part, name in kind.part_variables.items()
            if not os.environ.get(f"{name}_FILE")  # the same password
        }
    for part, name in kind.client_variables.items():
        if parts.get(part):
            values[name] = parts[part]
    if kind.client_entry_variable:
        values[kind.client_entry_variable] = None
    with _shown(values):
        yield


def _like(kind: StoreKind, text: str, url: StoreUrl) -> str:
    """`url` in the form of `text`: with its driver, and its options if the server is the same."""
    found = _SCHEME.match(text.strip())
    scheme = found["scheme"] if found else url.scheme
    try:
        own = StoreUrl.parse(kind.name, text, "")
    except ConfigurationError:
        return url.reveal(scheme=scheme)
    if own.hosts == url.hosts and own.username == url.username:
        return replace(own, database=url.database).reveal()
    return url.reveal(scheme=scheme)


@contextmanager
def _shown(values: Mapping[str, str | None]) -> Iterator[None]:
    """Give variables other values, or none. Two at once, in two threads, end in any order."""
    layer = dict(values)
    with _CHANGING:
        _LAYERS.append(layer)
        _show(layer)
    try:
        yield
    finally:
        with _CHANGING:
            _LAYERS[:] = [each for each in _LAYERS if each is not layer]
            _show(layer)


def _show(names: Mapping[str, str | None]) -> None:
    for name in names:
        before = _BEFORE.setdefault(name, os.environ.get(name))
        above = [layer for layer in _LAYERS if name in layer]
        value = above[-1][name] if above else _BEFORE.pop(name, before)
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
