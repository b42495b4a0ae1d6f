"""Setting lifetimes that are missing. None is made shorter or longer.

A key may be given another type between a look and the change. `PEXPIRE key ms NX` (Redis 7) would
not see that. So type and lifetime are compared in the step that sets the lifetime: in a script, or
under `WATCH` for a user who may not use scripts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis

from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.redis.errors import Translation, as_text, is_forbidden
from is_db_bootstrap.stores.redis.key_patterns import PatternTable, name_text
from is_db_bootstrap.stores.redis.key_reader import (
    BATCH,
    GONE_MS,
    NO_LIFETIME_MS,
    Chosen,
    KeyReader,
    Look,
    look_again,
)
from is_db_bootstrap.stores.redis.server import refuse_other_master
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.redis.server import Server

#: What becomes of one key: it is set, or left alone for one of these reasons.
SET = "set"
GONE = "gone"
OTHER_TYPE = "of another type"
HAS_LIFETIME = "given a lifetime"
WRITTEN = "written all the time"

#: Compares type and lifetime of each key and sets it, as one step. ARGV has two values for each
#: key: its declared type, and the lifetime in milliseconds. The answer has a word for each key.
_SCRIPT = f"""
local ends = {{}}
for number, key in ipairs(KEYS) do
    local kind, left = redis.call('type', key)['ok'], redis.call('pttl', key)
    if left == {GONE_MS} then
        ends[number] = '{GONE}'
    elseif kind ~= ARGV[2 * number - 1] then
        ends[number] = '{OTHER_TYPE}'
    elseif left ~= {NO_LIFETIME_MS} then
        ends[number] = '{HAS_LIFETIME}'
    else
        redis.call('pexpire', key, ARGV[2 * number])
        ends[number] = '{SET}'
    end
end
return ends
"""

#: Sets the lifetimes of a batch on one master. Returns what became of each key, in their order.
_SetBatch = Callable[[Any, Sequence[Look]], list[str]]


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of keys without a lifetime, in numbers of keys by the name of their pattern.

    `done` got a lifetime. `passed` did not, by the reason why. `left` lack one afterwards, which a
    look at all keys has shown.
    """

    done: Counter[str] = field(default_factory=Counter)
    passed: Mapping[str, Counter[str]] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)


class MissingLifetimes:
    """The keys whose pattern has a lifetime, and which have none.

    `names` chooses patterns; without any, all are looked at.
    """

    def __init__(self, keys: Sequence[KeyPattern], names: Sequence[str]) -> None:
        self._table = PatternTable(keys)
        self._names = frozenset(names)
        #: The keys that got a lifetime so far, by the name of their pattern.
        self.done: Counter[str] = Counter()

    def count(self, masters: Sequence[Any]) -> Counter[str]:
        """How many keys of each pattern have no lifetime. Changes nothing."""
        found: Counter[str] = Counter()
        for master in masters:
            self._walk(master, lambda looks: found.update(_pattern_of(look).name for look in looks))
        return found

    def mend(self, masters: Sequence[Any], *, is_cluster: bool) -> Mended:
        """Give each such key the longest lifetime that its pattern declares, and count again.

        A key that got a lifetime or another type meanwhile keeps that. One that is written all the
        time may be left for the next call. Raises what redis-py raises; what was set until then
        stays set.
        """
        done = self.done
        passed: dict[str, Counter[str]] = {}
        for master in masters:
            set_batch = _way_of(master, is_cluster=is_cluster)

            def mend_batch(
                looks: Sequence[Look], master: Any = master, set_batch: _SetBatch = set_batch
            ) -> None:
                for look, end in zip(looks, set_batch(master, looks), strict=True):
                    name = _pattern_of(look).name
                    if end == SET:
                        done[name] += 1
                    else:
                        passed.setdefault(name, Counter())[end] += 1

            self._walk(master, mend_batch)
        return Mended(done, passed, self.count(masters))

    def _walk(self, master: Any, take: Callable[[Sequence[Look]], None]) -> None:
        reader = KeyReader(master)
        for batch in reader.batches(2 * reader.count_keys() + BATCH, self._chosen):
            looks = [look for look in batch.looks if is_missing(look)]
            if looks:
                take(looks)

    def _chosen(self, names: Sequence[bytes]) -> list[Chosen]:
        chosen = []
        for name in names:
            text = name_text(name)
            key = self._table.find(text)
            if key is None or key.longest_ttl is None:
                continue
            if not self._names or key.name in self._names:
                chosen.append(Chosen(name, text, key))
        return chosen


def mend_and_confirm(
    missing: MissingLifetimes,
    url: StoreUrl,
    server: Server,
    limit_s: float,
    errors: Translation,
    *,
    command: str,
) -> Mended:
    """Set these lifetimes, and see that the server was the master to the end.

    Raises `StoreUnavailable`, which says how many keys were set, when the server is lost or the
    Sentinels have chosen another master meanwhile. Its next step is `command`.
    """
    try:
        with errors("the keys"):
            mended = missing.mend(list(server.masters()), is_cluster=server.is_cluster)
            refuse_other_master(url, server, limit_s, errors)
            return mended
    except StoreUnavailable as exc:
        set_before = counted(missing.done.total(), "key")
        exc.message += f" {set_before} had got a lifetime on that server before."
        exc.hint = f"Run {command} again when the store answers; it goes on with what is missing."
        raise


def is_missing(look: Look) -> bool:
    """Whether a key has no lifetime although its pattern has one, and is of the pattern's type."""
    key = look.pattern
    if key is None or key.longest_ttl is None:
        return False
    return look.kind == key.type and look.ttl_ms == NO_LIFETIME_MS


def _pattern_of(look: Look) -> KeyPattern:
    if look.pattern is None:
        message = f"{look.text} fits no pattern"
        raise ValueError(message)
    return look.pattern


def _lifetime_ms(look: Look) -> int:
    return (_pattern_of(look).longest_ttl or 0) * 1000


def _way_of(master: Any, *, is_cluster: bool) -> _SetBatch:
    """How this user may compare and set in one step.

    In a cluster, the keys of one step have to belong to one slot.
    """
    if _may_run_scripts(master):
        return _set_by_scripts if is_cluster else _set_by_script
    return _set_one_by_one if is_cluster else _set_watched


def _may_run_scripts(master: Any) -> bool:
    try:
        master.eval("return 1", 0)
    except redis.ResponseError as exc:
        if is_forbidden(exc):
            return False
        raise
    return True


def _script_call(looks: Sequence[Look]) -> list[Any]:
    """The command that runs the script on these keys."""
    arguments: list[Any] = []
    for look in looks:
        arguments += [_pattern_of(look).type, _lifetime_ms(look)]
    return ["EVAL", _SCRIPT, len(looks), *(look.name for look in looks), *arguments]


def _set_by_script(master: Any, looks: Sequence[Look]) -> list[str]:
    return _words(master.execute_command(*_script_call(looks)))


def _set_by_scripts(master: Any, looks: Sequence[Look]) -> list[str]:
    """One script for each key, all sent together. A key that moves elsewhere is gone from here."""
    pipeline = master.pipeline(transaction=False)
    for look in looks:
        pipeline.execute_command(*_script_call([look]))
    ends: list[str] = []
    for answer in pipeline.execute(raise_on_error=False):
        if isinstance(answer, redis.exceptions.AskError):
            ends.append(GONE)
        elif isinstance(answer, Exception):
            raise answer
        else:
            ends += _words(answer)
    return ends


def _words(answer: Sequence[Any]) -> list[str]:
    return [as_text(word) for word in answer]


def _set_watched(master: Any, looks: Sequence[Look]) -> list[str]:
    """Look again at all keys while they are watched, and set those that still have none.

    A key that is written meanwhile undoes the whole step. So the halves are tried then.
    """
    with master.pipeline(transaction=True) as pipeline:
        pipeline.watch(*(look.name for look in looks))
        now = look_again(pipeline.connection, looks)
        ends = [_end(look, now.get(look.name)) for look in looks]
        pipeline.multi()
        for look, end in zip(looks, ends, strict=True):
            if end == SET:
                pipeline.pexpire(look.name, _lifetime_ms(look))
        try:
            pipeline.execute()
        except redis.WatchError:
            pass
        else:
            return ends
    if len(looks) == 1:
        return [WRITTEN]
    middle = len(looks) // 2
    return [*_set_watched(master, looks[:middle]), *_set_watched(master, looks[middle:])]


def _end(look: Look, now: Look | None) -> str:
    """What becomes of a key that looks like `now` while it is watched."""
    if now is None:
        return GONE
    if now.kind != _pattern_of(look).type:
        return OTHER_TYPE
    return SET if now.ttl_ms == NO_LIFETIME_MS else HAS_LIFETIME


def _set_one_by_one(master: Any, looks: Sequence[Look]) -> list[str]:
    ends = []
    for look in looks:
        try:
            ends += _set_watched(master, [look])
        except redis.exceptions.AskError:
            ends.append(GONE)  # It moves to another server of the cluster.
    return ends
