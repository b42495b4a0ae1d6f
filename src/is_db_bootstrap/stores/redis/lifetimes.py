"""Setting lifetimes that are missing. None is made shorter or longer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import redis

from is_db_bootstrap.blueprint import KeyPattern
from is_db_bootstrap.stores.redis.key_patterns import PatternTable, name_text
from is_db_bootstrap.stores.redis.key_reader import (
    BATCH,
    NO_LIFETIME_MS,
    Chosen,
    KeyReader,
    Look,
)

#: Since this version, PEXPIRE takes NX: "set expiry only when the key has no expiry".
_NX_MAJOR = 7


class MissingLifetimes:
    """The keys whose pattern has a lifetime, and which have none.

    `names` chooses patterns; without any, all are looked at. `major` is the server's version.
    """

    def __init__(self, keys: Sequence[KeyPattern], names: Sequence[str], major: int) -> None:
        self._table = PatternTable(keys)
        self._names = frozenset(names)
        self._has_nx = major >= _NX_MAJOR

    def count(self, masters: Sequence[Any]) -> Counter[str]:
        """How many keys of each pattern have no lifetime. Changes nothing."""
        found: Counter[str] = Counter()
        for master in masters:
            self._walk(master, lambda looks: found.update(_pattern_of(look).name for look in looks))
        return found

    def mend(self, masters: Sequence[Any], *, is_cluster: bool) -> Counter[str]:
        """Give each such key the longest lifetime that its pattern declares.

        Returns how many keys of each pattern got one. A key that got a lifetime meanwhile keeps
        that, and one that is written all the time may be left for the next call. Raises what
        redis-py raises; what was set until then stays set.
        """
        mended: Counter[str] = Counter()
        set_batch: Callable[[Any, Sequence[Look]], list[Look]] = _set_where_none
        if not self._has_nx:
            set_batch = _set_one_by_one if is_cluster else _set_watched
        for master in masters:

            def mend_batch(looks: Sequence[Look], master: Any = master) -> None:
                done = set_batch(master, looks)
                mended.update(_pattern_of(look).name for look in done)

            self._walk(master, mend_batch)
        return mended

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


def _set_where_none(master: Any, looks: Sequence[Look]) -> list[Look]:
    """In one step on the server, which compares and sets. Returns the keys that were set."""
    pipeline = master.pipeline(transaction=False)
    for look in looks:
        pipeline.execute_command("PEXPIRE", look.name, _lifetime_ms(look), "NX")
    answers = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, redis.exceptions.AskError):
            raise answer
    return [look for look, answer in zip(looks, answers, strict=True) if answer == 1]


def _set_watched(master: Any, looks: Sequence[Look]) -> list[Look]:
    """Look again at all keys while they are watched, and set those that still have none.

    A key that is written meanwhile undoes the whole step. So the halves are tried then.
    """
    with master.pipeline(transaction=True) as pipeline:
        pipeline.watch(*(look.name for look in looks))
        left = [look for look in looks if pipeline.pttl(look.name) == NO_LIFETIME_MS]
        pipeline.multi()
        for look in left:
            pipeline.pexpire(look.name, _lifetime_ms(look))
        try:
            pipeline.execute()
        except redis.WatchError:
            pass
        else:
            return left
    if len(looks) == 1:
        return []  # It is written all the time.
    middle = len(looks) // 2
    return [*_set_watched(master, looks[:middle]), *_set_watched(master, looks[middle:])]


def _set_one_by_one(master: Any, looks: Sequence[Look]) -> list[Look]:
    """In a cluster, where keys of one step have to belong to one slot."""
    return [look for one in looks for look in _set_watched(master, [one])]
