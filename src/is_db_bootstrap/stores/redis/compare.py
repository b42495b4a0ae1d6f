"""The declared conventions against the recorded ones, and what that makes of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.errors import APPLY, StoreConflict
from is_db_bootstrap.results import Change, Drift, Nature, Plan
from is_db_bootstrap.stores.redis.convention_record import (
    TOGETHER_S,
    Found,
    Order,
    Record,
    changed_entries,
)
from is_db_bootstrap.stores.redis.errors import STORE

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint

KIND = "conventions"
#: As many names as one reads.
_NAMED = 3


class Comparison:
    """What `blueprint` declares, beside what `record_key` holds.

    `client` is how a person calls `redis-cli`. `first_seen` is the text that this run found when it
    looked first, None when there was none. Times are seconds since 1970 by the server's clock.
    """

    def __init__(self, blueprint: Blueprint, record_key: str, client: str) -> None:
        self.declared = Record.declared(blueprint)
        self.first_seen: bytes | None = None
        self._keys = blueprint.keys
        self._record_key = record_key
        self._client = client

    def read(self, text: bytes | None) -> Record | None:
        """The record in `text`. Raises `StoreConflict` when it is something else."""
        if text is None:
            return None
        try:
            return Record.read(text)
        except ValueError as exc:
            raise StoreConflict(
                STORE,
                f"{self._record_key} holds something that is not a record of this tool: {exc}.",
                hint="See who wrote it; delete it to have it written again.",
                subject=self._record_key,
            ) from exc

    def plan(self, recorded: Record | None, now_s: float, info: Mapping[str, Any]) -> Plan:
        """At most one change, of kind `conventions`; `info` is what INFO says of the server.

        Raises `StoreConflict` when both go on from one earlier version in two directions.
        """
        notes = tuple(self._eviction(info))
        if recorded is None:
            first = self._change(f"record {self.declared.summary()}", None)
            return Plan((first,), notes=notes)
        found = self._compared(recorded, now_s)
        if found.standing is Standing.SAME:
            return Plan(notes=notes)
        if found.order is Order.SUPPOSED:
            is_known = self.declared.digest in recorded.undecided
            remember = f"remember {self.declared.summary()} as the other of two versions"
            changes = () if is_known else (self._change(remember, recorded),)
            return Plan(changes, notes=(*notes, self._older_for_now(recorded)), ahead=True)
        if found.standing is Standing.AHEAD:
            return Plan(notes=(*notes, self._ahead()), ahead=True)
        if found.standing is Standing.DIVERGED:
            raise self._diverged(recorded, found)
        if found.order is Order.UNDECIDED:
            notes += (self._undecided(recorded),)
        return Plan((self._change(self.declared.difference(recorded), recorded),), notes=notes)

    def next_record(self, before: Record | None, now_s: float) -> Record:
        """The record that is to follow `before`."""
        if before is None:
            return self.declared.after(None, now_s)
        if self._compared(before, now_s).order is Order.SUPPOSED:
            return before.remembering(self.declared)
        together = self._began_together(before, now_s)
        return self.declared.after(before, now_s, together=together)

    def is_recorded(self, recorded: Record | None) -> bool:
        """Whether the record has just what is declared."""
        return recorded is not None and recorded.conventions == self.declared.conventions

    def drifts(self, recorded: Record | None) -> Sequence[Drift]:
        """Nothing, or one drift that says what differs."""
        if self.is_recorded(recorded):
            return []
        message, actual = "is missing", None
        if recorded is not None:
            message = f"differs: {self.declared.difference(recorded)}"
            actual = recorded.summary()
        declared = self.declared.summary()
        return [Drift(self._record_key, KIND, message, declared, actual, APPLY)]

    def _change(self, detail: str, recorded: Record | None) -> Change:
        return Change(
            self._record_key,
            KIND,
            detail,
            Nature.ATOMIC,
            expected=self.declared.summary(),
            actual=recorded.summary() if recorded is not None else None,
        )

    def _compared(self, recorded: Record, now_s: float) -> Found:
        together = self._began_together(recorded, now_s)
        return recorded.compare(self.declared, together=together)

    def _began_together(self, recorded: Record, now_s: float) -> bool:
        """Whether the run that recorded began at about the same time as this one.

        That it was the first tells nothing then. Its record has just been written, or was written
        since this run looked first, which may have waited for the lock meanwhile.
        """
        is_recent = recorded.age_s(now_s) < TOGETHER_S
        first_seen = self.read(self.first_seen)
        was_seen = first_seen is not None and first_seen.digest == recorded.digest
        return is_recent or not was_seen

    def _ahead(self) -> str:
        return (
            f"The conventions in {self._record_key} were recorded after this version's. They are "
            "taken for newer and are left alone. To go back to this version's for good, "
            "delete that key."
        )

    def _older_for_now(self, recorded: Record) -> str:
        return (
            f"Another version has just recorded its conventions ({recorded.digest}), which have "
            f"all of this version's ({self.declared.digest}) and more: this version is taken for "
            f"the older one for now. If it is the newer one, run it again after {TOGETHER_S:g} s."
        )

    def _undecided(self, recorded: Record) -> str:
        return (
            f"Nothing tells whether this version's conventions ({self.declared.digest}) are newer "
            f"than the recorded ones ({recorded.digest}), because the two versions started "
            "together: the one that runs last is recorded."
        )

    def _diverged(self, recorded: Record, found: Found) -> StoreConflict:
        """Both sides: what was recorded since the version that they go on from, and what is new."""
        since, before = found.since or ("", {})
        return StoreConflict(
            STORE,
            f"{self._record_key} holds {recorded.summary()}, and this version declares "
            f"{self.declared.summary()}. Both go on from {since}. Recorded since then: "
            f"{changed_entries(before, recorded.entries)}. Declared instead: "
            f"{changed_entries(before, self.declared.entries) or 'nothing else'}."
            " Nothing was changed.",
            hint="Bring both lines together in one version, or delete that key to have this "
            f"version's conventions recorded: {self._client} DEL {self._record_key}.",
            subject=self._record_key,
        )

    def _eviction(self, info: Mapping[str, Any]) -> Iterator[str]:
        """What `maxmemory_policy` means for the patterns.

        INFO memory has it where CONFIG is blocked (spring-data-redis#2894). An `allkeys-` policy
        met juicefs#1991, a `volatile-` one OpenCollective (opencollective PR#10005).
        """
        policy = str(info.get("maxmemory_policy", ""))
        has_limit = bool(int(info.get("maxmemory", 0)))
        unlimited = "" if has_limit else " No maxmemory is set, so nothing is evicted yet."
        mortal = [key.name for key in self._keys if key.longest_ttl is not None]
        eternal = [key.name for key in self._keys if key.longest_ttl is None]
        if policy.startswith("allkeys-") and self._keys:
            yield (
                f"Warning: maxmemory_policy {policy} may evict any key before its time, locks and "
                f"revoked tokens too: {_some(mortal or eternal)}. Use noeviction, or a Redis of "
                f"their own.{unlimited}"
            )
        if policy.startswith("volatile-") and eternal:
            yield (
                f"Warning: maxmemory_policy {policy} never evicts keys without lifetime, so writes "
                f"fail when they fill the memory: {_some(eternal)}. Give them a lifetime, or use "
                f"another policy.{unlimited}"
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
