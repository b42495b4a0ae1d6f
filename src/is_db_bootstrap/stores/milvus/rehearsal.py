"""Whether a server takes a collection and its indexes, tried before the collection exists.

Milvus has no transaction. A collection whose index is refused would stay without it, so all is made
under another name first and dropped again. The name has the time of its making, so what a killed
run has left is known, and a later rehearsal drops it.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pymilvus.exceptions import MilvusException

from is_db_bootstrap.stores.milvus.errors import is_missing

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Index
    from is_db_bootstrap.stores.milvus.server import Server

_PREFIX = "is_db_bootstrap_rehearsal"
#: Seconds after which a rehearsal is one that a killed run has left.
_LEFT_AFTER_S = 3600


def rehearsed_collection(declared: Collection) -> Collection:
    """The same collection under a new name, which has the time in it, without an alias."""
    name = f"{_PREFIX}_{int(time.time())}_{uuid.uuid4().hex[:12]}"
    return replace(declared, name=name, alias="", load=False)


def is_rehearsal(name: str) -> bool:
    """Whether a collection of this name is one that was, or is, only tried."""
    return re.fullmatch(rf"{_PREFIX}_(\d+)_\w+", name) is not None


def _is_left(name: str) -> bool:
    """Whether it is the rehearsal of a run that was killed."""
    found = re.fullmatch(rf"{_PREFIX}_(\d+)_\w+", name)
    return found is not None and time.time() - int(found[1]) > _LEFT_AFTER_S


def rehearse(
    server: Server,
    trial: Collection,
    create_collection: Callable[[Collection], None],
    create_index: Callable[[Collection, Index], None],
) -> None:
    """Make `trial`, a `rehearsed_collection`, with its indexes, and drop it.

    Raises what the server raises for what it refuses; then nothing is left. A server that is busy
    leaves what is made, and the next call with the same trial goes on from there.
    """
    try:
        _make_trial(server, trial, create_collection, create_index)
    except MilvusException as exc:
        if not server.is_busy(exc):
            _drop(server, trial.name)
        raise
    _drop(server, trial.name)
    for name in server.client.list_collections(**server.look_options):
        if _is_left(name):
            _drop(server, name)


def _make_trial(
    server: Server,
    trial: Collection,
    create_collection: Callable[[Collection], None],
    create_index: Callable[[Collection, Index], None],
) -> None:
    if server.described(trial.name) is None:
        create_collection(trial)
    for index in trial.indexes:
        if server.index(trial.name, index) is None:
            create_index(trial, index)


def _drop(server: Server, name: str) -> None:
    """Drop a rehearsal. It is ours by its name, and it never has rows."""
    try:
        server.client.drop_collection(name, **server.change_options)
    except MilvusException as exc:
        if not is_missing(exc):
            raise
