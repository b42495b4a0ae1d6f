"""What the records of all stores say together: which store was lost, and what is to be recorded.

A record is ours when it is this blueprint's and its stores have the places that ours have. It is a
witness when the store that keeps it is still the one that it tells of. A database that was copied
or restored brings its record along. That record tells of another database, so it is no witness.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from is_db_bootstrap import __version__
from is_db_bootstrap.engine.memory import (
    Member,
    Memory,
    Recall,
    fuller_identity,
    is_same_identity,
)
from is_db_bootstrap.names import STORE_ORDER, StoreName


@dataclass(frozen=True, slots=True)
class Known:
    """What a run knows of one of its stores, or of one that it leaves out (`is_bystander`).

    `address` has no secrets. `is_pending` says that the plan makes something there, `is_ahead` that
    newer code was there. What a bystander remembers counts, and nothing is made or recorded there.
    """

    recall: Recall
    address: str
    is_cache: bool = False
    is_pending: bool = False
    is_ahead: bool = False
    is_bystander: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing is there, and something is to be."""
        return self.recall.is_blank and self.is_pending

    @property
    def missing(self) -> frozenset[str]:
        """What is not there and is to be."""
        return frozenset(self.recall.missing if self.is_pending else ())

    @property
    def is_lacking(self) -> bool:
        """Whether the plan makes the store anew, or a part of it that holds data."""
        return self.is_blank or bool(self.missing)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is not there of a store that lacks something. Empty for one that is blank."""
        return () if self.is_blank else tuple(sorted(self.missing))

    def is_lacking_since(self, before: Known | None) -> bool:
        """Whether more is not there than `before`."""
        if before is None or not before.is_lacking:
            return self.is_lacking
        return self.is_lacking and not _is_covered(self.lacks, before.lacks)

    @property
    def all_holds(self) -> tuple[str, ...]:
        """What the store holds once the plan is applied."""
        return tuple(sorted({*self.recall.holds, *self.missing}))


@dataclass(frozen=True, slots=True)
class Loss:
    """A store that was converged and has lost what it held.

    `objects` are the names of what is missing. Without one, the store as a whole is blank.
    `remembered_by` are the stores whose record says so.
    """

    objects: tuple[str, ...]
    memory: Memory
    remembered_by: tuple[StoreName, ...]

    def is_part_of(self, other: Loss | None) -> bool:
        """Whether another loss of the same store, which was told, covers this one."""
        return other is not None and _is_covered(self.objects, other.objects)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A store that may have lost what it held, and nobody knows.

    `objects` are the names of what is missing. Without one, the store as a whole is blank.
    `keepers` are the stores whose records may tell, and only a newer version can read these.
    """

    objects: tuple[str, ...]
    keepers: tuple[StoreName, ...]


@dataclass(frozen=True, slots=True)
class Recollection:
    """The records that the stores of one run keep, beside what these stores are today.

    `declared` are all stores of the blueprint, also those that this run leaves out. With
    `by_address`, a record is ours only if its addresses are ours too, or if a store is provably the
    recorded one: targets of a fleet may have the same places on several servers.
    """

    known: Mapping[StoreName, Known]
    declared: Collection[StoreName] = field(default=STORE_ORDER)
    by_address: bool = False

    @property
    def _own(self) -> Mapping[StoreName, Known]:
        """The stores of the run itself."""
        return {store: known for store, known in self.known.items() if not known.is_bystander}

    # --- whose record

    def witness(self) -> Memory | None:
        """The record that is believed. None: there is no such record."""
        return self._best(self._ours(witnesses=True))

    def base(self) -> Memory | None:
        """The record that is carried on: the witness, or else the one that a copy brought along."""
        return self.witness() or self._best(self._ours(witnesses=False))

    @property
    def is_ambiguous(self) -> bool:
        """Whether records of several deployments fit, because this run leaves stores out."""
        return any(self._is_told_apart_by_others(s) for s in self.known)

    def _is_told_apart_by_others(self, store: StoreName) -> bool:
        """Whether a store has several records of ours, of other places in stores left out."""
        records = [memory for at, memory in self._ours(witnesses=True) if at == store]
        most = max(map(self._agreement, records), default=0)
        best = [memory for memory in records if self._agreement(memory) == most]
        places = {
            tuple(
                (other, member.place)
                for other, member in sorted(memory.members.items())
                if other not in self.known and other in self.declared
            )
            for memory in best
        }
        return len(places) > 1

    def _ours(self, *, witnesses: bool) -> list[tuple[StoreName, Memory]]:
        """The records of this deployment, each with the store that keeps it."""
        return [
            (store, memory)
            for store, known in self.known.items()
            for memory in known.recall.memories
            if self._is_ours(store, memory)
            and (not witnesses or self._is_witness(known.recall, memory.members[store]))
        ]

    def _is_ours(self, store: StoreName, memory: Memory) -> bool:
        if store not in memory.members:
            return False
        common = [s for s in memory.members if s in self.known]
        if any(self.known[s].recall.place != memory.members[s].place for s in common):
            return False
        return not self.by_address or self._is_of_these_servers(memory, common)

    def _is_of_these_servers(self, memory: Memory, common: Sequence[StoreName]) -> bool:
        """Whether a record is of this target of a fleet.

        A server may be reached by another name tomorrow, or move. Then a store whose own identity
        is the recorded one tells that the record is of this target.
        """
        return all(
            _server(self.known[s].address) == _server(memory.members[s].address) for s in common
        ) or any(self._is_proven(self.known[s].recall, memory.members[s]) for s in common)

    def _is_proven(self, recall: Recall, member: Member) -> bool:
        """Whether a store that has an identity of its own is the recorded one."""
        return bool(recall.identity) and is_same_identity(recall.identity, member.identity)

    def _is_witness(self, recall: Recall, member: Member) -> bool:
        return not recall.identity or is_same_identity(recall.identity, member.identity)

    def _best(self, found: Sequence[tuple[StoreName, Memory]]) -> Memory | None:
        """Of several records, the one of which most is as it says. Of equal ones, the latest."""
        memories = [memory for _, memory in found]
        return max(memories, key=lambda m: (self._agreement(m), m.recorded_at), default=None)

    def _agreement(self, memory: Memory) -> int:
        """How many stores of this run are as the record tells of them."""
        return sum(
            self._is_witness(self.known[store].recall, member)
            for store, member in memory.members.items()
            if store in self.known
        )

    # --- what was lost

    def losses(self) -> dict[StoreName, Loss]:
        """The stores that were lost, or have lost a part. A blank cache is none of them."""
        found = {}
        for store, known in self._own.items():
            said = self._said_of(store)
            if said is None or known.is_cache:
                continue
            missing = sorted(known.missing & {*said.members[store].holds})
            if known.is_blank or missing:
                objects = () if known.is_blank else tuple(missing)
                found[store] = Loss(objects, said, self._who_remembers(store, said.key))
        return found

    def blank_caches(self) -> dict[StoreName, Loss]:
        """The caches that are blank, although they were converged."""
        found = {}
        for store, known in self._own.items():
            said = self._said_of(store)
            if said is not None and known.is_cache and known.is_blank:
                found[store] = Loss((), said, self._who_remembers(store, said.key))
        return found

    def doubtful(self) -> dict[StoreName, Doubt]:
        """The stores that may have lost what is made anew, as records of a newer version may say.

        Only that version can read these records. Where a record that we believe tells of a store,
        what this record does not name is new, as far as we know. See `unsure_parts`.
        """
        return {
            store: doubt
            for store, doubt in self._doubts().items()
            if not doubt.objects or self._said_of(store) is None
        }

    def unsure_parts(self) -> dict[StoreName, Doubt]:
        """What our record of a store does not name, and records of a newer version may.

        An older release adds such a part beside the newer one, so this is no reason to refuse.
        """
        doubtful = self.doubtful()
        return {store: each for store, each in self._doubts().items() if store not in doubtful}

    def _doubts(self) -> dict[StoreName, Doubt]:
        """What is made anew beside records of a newer version and is no loss, but for caches."""
        keepers = tuple(store for store, known in self.known.items() if known.recall.newer_keys)
        if not keepers:
            return {}
        losses = self.losses()
        return {
            store: Doubt(known.lacks, keepers)
            for store, known in self._own.items()
            if known.is_lacking and not known.is_cache and store not in losses
        }

    def unread(self) -> dict[StoreName, Mapping[StoreName, str]]:
        """The stores to be made anew that records may tell of which could not be seen.

        Each has the stores of the run whose records could not be seen, and why. What a bystander
        could not tell is said by the one who has asked it. A cache is none of the stores.
        """
        unread = {
            store: known.recall.unable
            for store, known in self._own.items()
            if known.recall.is_unread
        }
        if not unread:
            return {}
        told = {*self.losses(), *self.doubtful()}
        return {
            store: unread
            for store, known in self._own.items()
            if known.is_lacking and not known.is_cache and store not in told
        }

    def foretold(self) -> dict[StoreName, Memory]:
        """The blank stores that were converged with the store from which another one was copied.

        A restored backup and the copy of another environment cannot be told apart. So none of these
        stores counts as lost.
        """
        base = self.base()
        if base is None or self.witness() is not None:
            return {}
        return {
            store: base
            for store, known in self._own.items()
            if store in base.members and known.is_blank and not known.is_cache
        }

    def others(self) -> dict[StoreName, Memory]:
        """The stores that are not blank, and not the ones that the records tell of.

        They were restored, copied or replaced. Each has the record that tells of another one.
        """
        base = self.base()
        found = {}
        for store, known in self._own.items():
            own = self._best([(at, m) for at, m in self._ours(witnesses=False) if at == store])
            said = own or base
            if said is None or store not in said.members or known.is_blank:
                continue
            if not self._is_witness(known.recall, said.members[store]):
                found[store] = said
        return found

    def _said_of(self, store: StoreName) -> Memory | None:
        """The record that is believed of a store. None: no such record tells of it."""
        witness = self.witness()
        if witness is not None and store in witness.members:
            return witness
        return self._best([each for each in self._ours(witnesses=True) if each[0] == store])

    def _who_remembers(self, store: StoreName, key: str) -> tuple[StoreName, ...]:
        found = self._ours(witnesses=True)
        return tuple(at for at, m in found if m.key == key and store in m.members)

    # --- what is to be recorded

    def to_record(self, template: Memory) -> dict[StoreName, Memory]:
        """The record of each store in which it is missing or out of date.

        `template` has what this run says of itself. Its key and its members are not looked at.
        A store that this release is older than is no reason to record another fingerprint. Without
        a record to carry on, nothing tells what the newer release had compared, so none is due.
        """
        base = self.base()
        is_ahead = any(known.is_ahead for known in self._own.values())
        if self.is_ambiguous or (is_ahead and base is None):
            return {}
        wanted = replace(
            template,
            key=self._present_key() or uuid.uuid4().hex,
            fingerprint=base.fingerprint if base and is_ahead else template.fingerprint,
            members=self._wanted_members(base, is_ahead=is_ahead),
        )
        return {
            store: wanted
            for store, known in self._own.items()
            if not known.recall.unable
            and not self._is_recorded(known.recall, wanted, is_ahead)
            and not _has_no_room(known.recall, wanted.key)
        }

    def without_room(self) -> dict[StoreName, str]:
        """The stores that lack our record and take no further one, each with the reason."""
        key = self._present_key()
        return {
            store: known.recall.full
            for store, known in self._own.items()
            if not known.recall.unable and _has_no_room(known.recall, key)
        }

    def _present_key(self) -> str:
        """The key of the record that is carried on. Empty: a new one is to be made.

        A key under which a newer version keeps its record stays with that version.
        """
        taken = {key for known in self.known.values() for key in known.recall.newer_keys}
        for witnesses in (True, False):
            free = [each for each in self._ours(witnesses=witnesses) if each[1].key not in taken]
            if best := self._best(free):
                return best.key
        return ""

    def _wanted_members(self, base: Memory | None, *, is_ahead: bool) -> dict[StoreName, Member]:
        """What is remembered of each store: of those of this run anew, of others as before.

        Another release may declare a store that this one does not, so none is forgotten. A store
        that this run leaves out, and that was asked, may be known to its own record alone.
        """
        before = base.members if base else {}
        members = {store: member for store, member in before.items() if store not in self._own}
        for store, known in self.known.items():
            own = self._best([(at, m) for at, m in self._ours(witnesses=True) if at == store])
            if known.is_bystander and own is not None:
                members.setdefault(store, own.members[store])
        for store, known in self._own.items():
            holds = {*known.all_holds}
            if is_ahead and store in before:
                holds |= {*before[store].holds}
            members[store] = Member(
                identity=self._identity(store, before),
                place=known.recall.place,
                address=known.address,
                holds=tuple(sorted(holds)),
            )
        return members

    def _identity(self, store: StoreName, before: Mapping[StoreName, Member]) -> str:
        """The identity that the store has, or the one that we give it.

        What this run could not see of it, and an earlier one could, is kept.
        """
        seen = self._own[store].recall.identity
        if not seen:
            return self._minted_identity(store, before)
        return fuller_identity(seen, before[store].identity) if store in before else seen

    def _minted_identity(self, store: StoreName, before: Mapping[StoreName, Member]) -> str:
        """The identity that we wrote into a store, or a new one.

        A store that has lost no more than its record keeps the one that others remember.
        """
        own = self._best([each for each in self._ours(witnesses=True) if each[0] == store])
        if own is not None:
            return own.members[store].identity
        is_same = store in before and not self._own[store].recall.is_blank
        return before[store].identity if is_same else uuid.uuid4().hex

    def _is_recorded(self, recall: Recall, wanted: Memory, is_ahead: bool) -> bool:
        """Whether all of a store has the record, but for the addresses, the run and the time.

        A release that the store is ahead of leaves it to the newer one to complete the record.
        """
        for memory in recall.memories:
            if memory.key == wanted.key:
                is_complete = memory.key not in recall.incomplete
                is_same = is_complete and memory.fingerprint == wanted.fingerprint
                return (is_ahead or is_same) and _compared(memory) == _compared(wanted)
        return False


def template(blueprint: str, fingerprint: str, run_id: str) -> Memory:
    """What a run says of itself in its record."""
    now = datetime.now(UTC).replace(microsecond=0)
    return Memory("", blueprint, fingerprint, run_id, __version__, now)


def _is_covered(objects: Collection[str], by: Collection[str]) -> bool:
    """Whether what is gone is a part of what was gone before. No object stands for the whole."""
    return not by or (bool(objects) and {*objects} <= {*by})


def _has_no_room(recall: Recall, key: str) -> bool:
    """Whether a store takes no further record, and has none under this key to renew."""
    return bool(recall.full) and key not in {memory.key for memory in recall.memories}


def _server(address: str) -> str:
    """An address without its user, who may be another one tomorrow."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _compared(memory: Memory) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return sorted(_rows(memory))


def _rows(memory: Memory) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    for store, member in memory.members.items():
        yield store, member.identity, member.place, tuple(sorted(member.holds))
