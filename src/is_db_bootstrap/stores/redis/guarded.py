"""Writes that happen only while keys hold what they are expected to hold.

Each is one step on the server. `WATCH`, `MULTI` and `EXEC` are used, or `EVAL` for a user who may
not use those: access lists differ in which of the two they leave out. All keys of one write belong
to one slot of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import redis

from is_db_bootstrap.stores.redis.rights import (
    check_in_a_script,
    check_in_a_transaction,
    check_transactions,
)

#: Tries of one write while somebody renews a watched key without changing it, as our own heartbeat
#: does.
TRIES = 20

_SCRIPT = """
for number, key in ipairs(KEYS) do
    if (redis.call('get', key) or '') ~= ARGV[number] then return 0 end
end
local command = {}
for number = #KEYS + 1, #ARGV do command[#command + 1] = ARGV[number] end
redis.call(unpack(command))
return 1
"""

#: A command and its arguments.
Command = Sequence[str | bytes | int]
#: The value that each key is to hold; None when it is to be missing.
Expected = Mapping[str, bytes | None]


def _as_raised(_: str) -> AbstractContextManager[None]:
    """Nothing is translated."""
    return nullcontext()


class GuardedWrites:
    """The way of one connection's user to write under a condition.

    `node_of` gives the client of the server that holds a key.
    """

    def __init__(self, node_of: Callable[[str], Any]) -> None:
        self._node_of = node_of
        self._write: Callable[[Expected, Command], bool] = self._in_a_transaction

    def check(
        self,
        needed: Mapping[str, Sequence[str]],
        about: Callable[[str], AbstractContextManager[None]] = _as_raised,
    ) -> None:
        """Find the way that is allowed, and see that it may send the commands of each key.

        Changes nothing. `needed` has the names of the commands of each key. `about` translates
        what is raised about a key. Raises redis-py's `NoPermissionError`, or what the server
        answers, when neither way is allowed, or a command is not.
        """
        first_key = next(iter(needed))
        with about(first_key):
            has_transactions = check_transactions(self._node_of(first_key), first_key)
        trial = check_in_a_transaction if has_transactions else check_in_a_script
        for key, names in needed.items():
            with about(key):
                trial(self._node_of(key), key, names)
        self._write = self._in_a_transaction if has_transactions else self._in_a_script

    def write(self, expected: Expected, command: Command) -> bool:
        """Run `command` if every key of `expected` holds its value.

        False, and nothing done, if one does not. Raises `redis.WatchError`, and nothing is done,
        when the keys were touched during each of `TRIES` tries.
        """
        return self._write(expected, command)

    def _in_a_transaction(self, expected: Expected, command: Command) -> bool:
        node = self._node_of(next(iter(expected)))
        for tried in range(1, TRIES + 1):
            with node.pipeline(transaction=True) as pipeline:
                pipeline.watch(*expected)
                if any(pipeline.get(key) != value for key, value in expected.items()):
                    return False
                pipeline.multi()
                pipeline.execute_command(*command)
                try:
                    pipeline.execute()
                except redis.WatchError:
                    if tried == TRIES:
                        raise
                    continue  # perhaps only renewed: its value is compared again
                return True
        raise AssertionError("the last try has returned or raised")

    def _in_a_script(self, expected: Expected, command: Command) -> bool:
        node = self._node_of(next(iter(expected)))
        values = [b"" if value is None else value for value in expected.values()]
        return bool(node.eval(_SCRIPT, len(expected), *expected, *values, *command))
