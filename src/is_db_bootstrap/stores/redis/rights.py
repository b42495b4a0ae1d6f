"""What this connection's user may do, found out before anything is written.

`ACL DRYRUN` (Redis 7) would answer this, but only to users who may use `ACL`. So each command is
sent in a form that changes nothing. The server compares a command with the user's rights before it
looks at the command's options (`processCommand` in server.c), so that `SET key "" NX XX` is either
forbidden or a syntax error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import redis

from is_db_bootstrap.stores.redis.errors import as_text, is_forbidden, is_forbidden_key

#: Options of a command with which the server does nothing. Without an entry: none are needed.
_OPTIONS: Mapping[str, tuple[str, ...]] = {"SET": ("", "NX", "XX"), "PEXPIRE": ("no number",)}
#: What the server answers to these options when it would have run the command: "ERR syntax error",
#: "ERR value is not an integer or out of range".
_ALLOWED = ("syntax error", "not an integer")

#: Tries commands within a script, where an error of one does not end it. A key that exists is not
#: deleted. A server does not name the command that a script may not run, so the script does.
_SCRIPT = """
local errors = {}
for number = 1, #ARGV do
    local command = cjson.decode(ARGV[number])
    if command[1] ~= 'DEL' or redis.call('exists', KEYS[1]) == 0 then
        local answer = redis.pcall(unpack(command))
        if type(answer) == 'table' and answer['err'] then
            local told = answer['err']
            if string.find(told, "can't run this command", 1, true) then
                told = told .. ": to run the '" .. string.lower(command[1]) .. "' command"
            end
            errors[#errors + 1] = told
        end
    end
end
return errors
"""


def harmless(name: str, key: str) -> tuple[str, ...]:
    """The command `name` of `key` in a form that changes nothing.

    `DEL` is harmless only where the key is missing.
    """
    return (name, key, *_OPTIONS.get(name, ()))


def check_missing_key(client: Any, key: str, names: Iterable[str]) -> None:
    """See that the commands `names` are allowed for `key`.

    The key does not exist, and no other program uses it. Raises redis-py's `NoPermissionError`, or
    what else the server refused a command with.
    """
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.execute_command(*harmless(name, key))
    _raise_refusal(pipeline.execute(raise_on_error=False))


def check_transactions(node: Any, key: str) -> bool:
    """Whether `WATCH`, `UNWATCH`, `MULTI` and `EXEC` are allowed, and the server has them.

    Raises what the server refused the key itself with, which no other way may touch either.
    """
    with node.pipeline() as pipeline:
        try:
            pipeline.watch(key)
            pipeline.unwatch()
            pipeline.watch(key)
            pipeline.immediate_execute_command("MULTI")
            pipeline.immediate_execute_command("EXEC")
        except redis.ResponseError as exc:
            _forget(pipeline)
            if is_forbidden_key(exc):
                raise
            return False
    return True


def check_in_a_transaction(node: Any, key: str, names: Iterable[str]) -> None:
    """See that the commands `names` are allowed for `key`, which may exist.

    They are queued and never run. The server compares rights when it queues a command. A command
    with too few arguments at the end makes it refuse the whole transaction (`EXECABORT`). Raises
    what the server refused a command with.
    """
    with node.pipeline() as pipeline:
        pipeline.watch(key)
        pipeline.immediate_execute_command("MULTI")
        answers = [_answer(pipeline, harmless(name, key)) for name in names]
        _answer(pipeline, ("GET",))
        ended = _answer(pipeline, ("EXEC",))
        _forget(pipeline)
    _raise_refusal(answers)
    if not isinstance(ended, redis.exceptions.ExecAbortError):
        raise redis.ResponseError("a transaction with a wrong command was not refused")


def check_in_a_script(node: Any, key: str, names: Iterable[str]) -> None:
    """See in a script that `EVAL` and the commands `names` are allowed for `key`, which may exist.

    Nothing is changed.

    Raises what the server refused a command with.
    """
    commands = [json.dumps(harmless(name, key)) for name in names]
    errors = node.eval(_SCRIPT, 1, key, *commands)
    _raise_refusal([redis.ResponseError(as_text(error)) for error in errors])


def _answer(pipeline: Any, command: Sequence[str]) -> Any:
    """What the server answers, an error included."""
    try:
        return pipeline.immediate_execute_command(*command)
    except redis.ResponseError as exc:
        return exc


def _forget(pipeline: Any) -> None:
    """Close the connection, which ends what it has begun.

    A command that ends it may be forbidden too.
    """
    if pipeline.connection is not None:
        pipeline.connection.disconnect()
    pipeline.watching = False


def _raise_refusal(answers: Iterable[Any]) -> None:
    """Raise the first refusal, one for lack of a right before any other."""
    errors = [answer for answer in answers if isinstance(answer, Exception)]
    refusals = [error for error in errors if not _is_allowed(error)]
    for refusal in sorted(refusals, key=lambda exc: not is_forbidden(exc)):
        raise refusal


def _is_allowed(error: Exception) -> bool:
    """Whether the server refused only the options, so that the command itself is allowed."""
    return any(words in str(error) for words in _ALLOWED)
