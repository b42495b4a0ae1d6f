"""Whether a server takes a collection and its indexes, tried before the collection exists.

Milvus has no transaction. A collection whose index is refused would stay without it, so all is made
under another name first and dropped again. The name follows from the collection's, so what a killed
run has left is found and dropped by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pymilvus.exceptions import MilvusException

from is_db_bootstrap.stores.milvus.errors import exists_already, is_missing

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection, Index
    from is_db_bootstrap.stores.milvus.server import Server

_PREFIX = "is_db_bootstrap_rehearsal"


def rehearsed_collection(declared: Collection) -> Collection:
    """The same collection under the name of its rehearsal, without an alias."""
    digest = hashlib.sha256(declared.name.encode()).hexdigest()[:16]
    return replace(declared, name=f"{_PREFIX}_{digest}", alias="", load=False)


def rehearse(
    server: Server,
    declared: Collection,
    create_collection: Callable[[Collection], None],
    create_index: Callable[[Collection, Index], None],
) -> None:
    """Make the collection with its indexes under another name, and drop it.

    Raises what the server raises for what it refuses; then nothing is left. A server that is busy
    leaves what is made, and the next call goes on from there.
    """
    trial = rehearsed_collection(declared)
    try:
        _make_trial(server, trial, create_collection, create_index)
    except MilvusException as exc:
        if is_missing(exc):
            return  # Another run rehearses the same collection and has dropped it.
        if not server.is_busy(exc):
            _drop_trial(server, trial)
        raise
    _drop_trial(server, trial)


def _make_trial(
    server: Server,
    trial: Collection,
    create_collection: Callable[[Collection], None],
    create_index: Callable[[Collection, Index], None],
) -> None:
    if server.described(trial.name) is None:
        try:
            create_collection(trial)
        except MilvusException as exc:
            if not exists_already(exc):
                raise
    for index in trial.indexes:
        if server.index(trial.name, index) is None:
            try:
                create_index(trial, index)
            except MilvusException as exc:
                if not exists_already(exc):
                    raise


def _drop_trial(server: Server, trial: Collection) -> None:
    """Drop the rehearsal. It is ours by its name, and it never has rows."""
    try:
        server.client.drop_collection(trial.name, **server.change_options)
    except MilvusException as exc:
        if not is_missing(exc):
            raise
