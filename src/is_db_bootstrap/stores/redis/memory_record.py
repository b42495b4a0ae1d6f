"""What Redis remembers: one key for each blueprint, with the record of each deployment in a line.

A string, and no hash, so that a user needs no right besides those of the record of conventions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from is_db_bootstrap.engine.memory import Memory
from is_db_bootstrap.engine.memory_text import BrokenMemory, NewerMemory, from_text, to_text
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.redis.errors import STORE
from is_db_bootstrap.wording import visible

#: Deployments that one key remembers. The ones that were recorded long ago are dropped first.
MOST_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one key. `newer` are the lines that a newer version wrote, with that version.

    They are kept as they are.
    """

    memories: tuple[Memory, ...] = ()
    newer: tuple[tuple[str, str], ...] = ()

    @property
    def remarks(self) -> Iterator[str]:
        """A note for each version that wrote records which this one cannot read."""
        for version in sorted({version for _, version in self.newer}):
            yield (
                f"A record of what was converged was written by version {visible(version) or '?'} "
                "of is-db-bootstrap, which is newer. It is left alone and not believed."
            )


def read(key: str, value: bytes | None) -> Records:
    """The records in the value of a key. Raises `StoreConflict` when one of them is broken."""
    memories, newer = [], []
    text = (value or b"").decode("utf-8", "replace")
    for line in filter(None, text.split("\n")):
        try:
            memories.append(from_text(line))
        except NewerMemory as exc:
            newer.append((line, exc.version))
        except BrokenMemory as exc:
            raise StoreConflict(
                STORE,
                f"{key} holds a line that is no record of what was converged: {exc}. "
                "Nothing was changed.",
                hint=f"See who wrote it. Without it, the record is made anew: redis-cli DEL {key}.",
                subject=key,
            ) from exc
    return Records(tuple(memories), tuple(newer))


def written(before: Records, memory: Memory) -> bytes:
    """The value that has one record more, or anew in the place of the one with its key."""
    others = [each for each in before.memories if each.key != memory.key]
    others.sort(key=lambda each: each.recorded_at)
    kept = [*others[1 - MOST_RECORDS :], memory]
    lines = [*(line for line, _ in before.newer), *map(to_text, kept)]
    return "\n".join(lines).encode()
