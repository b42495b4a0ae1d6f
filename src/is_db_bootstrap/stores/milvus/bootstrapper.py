"""Milvus: a collection behind an alias, with its indexes, loaded.

Compared attribute by attribute and never dropped. Only its properties are changed in place.

Changes are of kind `collection` (named as the collection), `partition`, `index` and `property`
(`collection.field`), `alias` (as the alias) and `load` (as the collection). Milvus has no lock to
offer; what another run did meanwhile is found by looking first. `server` opens and asks a Milvus,
`compare` sets what it reports beside the declaration, and `changes` takes the steps.
"""

from __future__ import annotations

from collections.abc import Collection as Some
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import AccessDenied, StoreConflict
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.results import (
    Change,
    Danger,
    Detail,
    Drift,
    Plan,
    Proof,
    RepairPlan,
    ServerInfo,
    Status,
)
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.milvus import abilities, compare
from is_db_bootstrap.stores.milvus.changes import CONTRACT_PROPERTY, Changes
from is_db_bootstrap.stores.milvus.connection import single_token
from is_db_bootstrap.stores.milvus.dangers import dangers_of
from is_db_bootstrap.stores.milvus.errors import Translation
from is_db_bootstrap.stores.milvus.kind import KIND
from is_db_bootstrap.stores.milvus.memory_properties import MemoryProperties
from is_db_bootstrap.stores.milvus.releases import not_compared
from is_db_bootstrap.stores.milvus.server import Server

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint, Collection
    from is_db_bootstrap.engine.memory import Memory, Recall
    from is_db_bootstrap.engine.store import Adoption, Place
    from is_db_bootstrap.grant_list import GrantWish, RoleGrants
    from is_db_bootstrap.results import Diagnosis
    from is_db_bootstrap.rungs import RungResult
    from is_db_bootstrap.stores.milvus.compare import Live
    from is_db_bootstrap.stores.milvus.versions import VersionKeeper

#: How many collections are asked for the blueprint that made them.
_MOST_LOOKED_AT = 100
#: What a server calls the database of an address that names none.
_DEFAULT_DATABASE = "default"


class MilvusBootstrapper:
    """The Milvus part of a blueprint, on a server, a cluster or Milvus Lite over TCP.

    `url` is `http://`, `https://` or `tcp://`, with `user:password`, or a token as either of them;
    its path is the database. Of `timing`, `connect_timeout_s` bounds every connection and look,
    `index_timeout_s` every change with the wait for what it started. Raises `ConfigurationError`
    for an address that cannot be one.
    """

    name: StoreName = "milvus"
    is_cache = False
    compares_pending = True
    drift_advice = (
        "Milvus changes no field of a collection that has rows: a new version of it takes what "
        "differs (`is-db-bootstrap vector upgrade`)."
    )

    def __init__(
        self, url: StoreUrl | str, blueprint: Blueprint, *, timing: Timing | None = None
    ) -> None:
        parsed = StoreUrl.parse("milvus", url) if isinstance(url, str) else url
        self._url = single_token(parsed)
        self._blueprint = blueprint
        self._timing = timing or Timing()
        self._errors = Translation(self._url)
        names = frozenset(each.name for each in blueprint.collections)
        self._server = Server(self._url, self._timing, self._errors, names)
        self._changes = Changes(self._server, blueprint.name, self._timing, self._errors)
        place = self._url.database or _DEFAULT_DATABASE
        self._memory = MemoryProperties(self._server, blueprint, self._errors, place)
        #: What the last plan has found.
        self._planned: tuple[Change, ...] = ()
        self.target = str(self._url)

    def grants(self, wish: GrantWish) -> RoleGrants:
        """The smallest privileges of a role; see `grants.py`. No server is asked."""
        from is_db_bootstrap.stores.milvus.grants import role_grants

        return role_grants(self._blueprint, wish, self._url.database)

    # --- looking

    def ping(self, timeout_s: float) -> ServerInfo:
        """One try on a new connection, which takes proxy and coordinator.

        `/healthz` is not asked, it says ready before the proxy is (milvus#53731). Raises
        `StoreUnavailable` while the server starts, `AccessDenied`, `ConfigurationError` when
        something else answers or the database is missing.
        """
        self.close()
        self._memory.forget()
        self._errors.cancelled.clear()
        return self._server.open(timeout_s)

    def places(self) -> Sequence[Place]:
        """Where gRPC connects to."""
        from is_db_bootstrap.stores.milvus import ladder

        return ladder.places_of(self._url, self._timing.connect_timeout_s)

    def rungs(self) -> Sequence[RungResult]:
        """What the last ping has seen. What Milvus does not tell is said, and fails nothing."""
        from is_db_bootstrap.stores.milvus import ladder
        from is_db_bootstrap.stores.milvus.diagnosis import privilege_of

        with self._errors():
            return ladder.rungs_of(self._url, privilege_of(self._url, self._server))

    def server_age_s(self) -> float | None:
        """None, because Milvus does not tell when it was started."""
        return None

    def diagnose(self) -> Diagnosis:
        """What the server of the last ping tells, for `doctor`."""
        from is_db_bootstrap.stores.milvus.diagnosis import diagnosis

        with self._errors():
            return diagnosis(self._url, self._server)

    def plan(self) -> Plan:
        """What is missing of each collection, in order.

        `StoreConflict` for anything present but different. A collection whose alias leads to a
        later version is ahead.
        """
        changes: list[Change] = []
        notes: list[str] = []
        ahead: list[str] = []
        server = self._server
        release = server.told_release
        self._memory.forget()
        for declared in self._blueprint.collections:
            abilities.check(declared, release.numbers, release.version, lite=release.is_lite)
            live = server.live(declared)
            self._memory.note(declared, live)
            if compare.goes_beyond(declared, live.target):
                ahead.append(declared.name)
                notes.append(
                    f"Alias {declared.alias} points to {live.target}, a later version of "
                    f"{declared.name}; it is left alone and {declared.name} is not required."
                )
                continue
            compare.refuse_different(declared, live, server.is_collection)
            changes += compare.missing(declared, live, server.definition)
            notes += self._remarks(declared, live)
        notes += self._not_compared()
        self._planned = tuple(changes)
        is_ahead = len(ahead) == len(self._blueprint.collections) > 0
        return Plan(tuple(changes), notes=tuple(notes), ahead=is_ahead, parts_ahead=tuple(ahead))

    def check_rights(self) -> None:
        """See that the user may do what is planned; nothing is changed. Raises `AccessDenied`.

        A server without users, and Milvus Lite, refuse nothing.
        """
        if self._server.told_release.is_lite or not self._url.username or not self._planned:
            return
        from is_db_bootstrap.stores.milvus.rights import refuse_missing

        pending = [(self._declared_of(change), change) for change in self._planned]
        with self._errors("the privileges"):
            refuse_missing(self._server, pending, self._url.username, self._url.database)

    def with_statements(self, plan: Plan) -> Plan:
        """The plan with the calls of each change. Milvus has no language of statements."""
        changes = [
            replace(each, statements=self._calls_of(each), dangers=self._dangers_of(each))
            for each in plan.changes
        ]
        return replace(plan, changes=tuple(changes))

    def _dangers_of(self, change: Change) -> tuple[Danger, ...]:
        name = self._declared_of(change).name
        with self._errors(change.name, change):
            return dangers_of(change, name, lambda: self._server.stored_rows(name))

    def _calls_of(self, change: Change) -> tuple[str, ...]:
        declared = self._declared_of(change)
        with self._errors(change.name, change):
            return (self._changes.shown_call(declared, change),)

    def _declared_of(self, change: Change) -> Collection:
        """The declared collection that a change concerns."""
        owner = change.name.split(".")[0]
        return next(c for c in self._blueprint.collections if owner in {c.name, c.alias})

    def _remarks(self, declared: Collection, live: Live) -> Iterator[str]:
        """What is told of indexes that are as declared, or will be."""
        if compare.lags_behind(declared, live.target):
            yield f"Alias {declared.alias} {compare.alias_stays(declared, live.target)}."
        for index in declared.indexes:
            if remark := self._server.remark_on_type(declared, index):
                yield remark
            rows = compare.unindexed_rows(live.indexes.get(index.field, {}))
            if rows:
                yield (
                    f"The index on {declared.name}.{index.field} does not serve {rows} of its rows "
                    "yet; the server goes on building it."
                )

    def _not_compared(self) -> Iterator[str]:
        """What is declared and could not be compared, because this release does not tell it."""
        release = self._server.told_release
        untold = {
            attribute: None
            for declared in self._blueprint.collections
            for attribute in not_compared(declared, release)
        }
        if untold:
            told = f"{release.label} does not tell {', '.join(untold)}; not compared."
            yield Detail(told) if release.is_lite else told

    # --- writing

    def apply(self, change: Change) -> str | None:
        """Take one step and read it back, for a create that succeeds may have made nothing new.

        `StoreBusy` when the server limits the rate, shows its own new collection late
        (milvus#44507), or has no query node yet; `StoreConflict` when someone else made something
        different meanwhile.
        """
        declared = self._declared_of(change)
        self._memory.forget()
        with self._errors(change.name, change):
            return self._changes.apply(declared, change)

    # --- adopting

    def adoption(self) -> Adoption:
        """What differs of the declared collections, and which ones nobody has marked as ours.

        Raises `StoreConflict` for a collection whose alias leads to a later version.
        """
        from is_db_bootstrap.stores.milvus import adoption

        found: dict[str, Live] = {}
        differences: list[Drift] = []
        unmarked = []
        self._memory.forget()
        for declared in self._blueprint.collections:
            live = found[declared.name] = self._server.live(declared)
            self._memory.note(declared, live)
            if compare.goes_beyond(declared, live.target):
                raise adoption.newer_version(declared, live)
            differences += compare.drifts(declared, live, self._server.definition)
            if live.described is not None and not self._changes.is_marked(declared):
                unmarked.append(declared)
        contracts = {each.name: self._changes.contract(each) for each in unmarked}
        return adoption.adoption(found, differences, unmarked, contracts)

    # --- proving

    def verify(self) -> Sequence[Drift]:
        """Every declared attribute that the server reports.

        Other collections are no findings: a Milvus may be shared.
        """
        return [
            drift for declared in self._blueprint.collections for drift in self._drifts(declared)
        ]

    def _drifts(self, declared: Collection) -> Iterator[Drift]:
        live = self._server.live(declared)
        if not compare.goes_beyond(declared, live.target):
            yield from compare.drifts(declared, live, self._server.definition)

    def repair_plan(self) -> RepairPlan:
        """What differs: steps that make what is missing of a collection, and the rest.

        A collection that is missing, or differs where Milvus changes nothing in place, gets no
        steps.
        """
        from is_db_bootstrap.stores.milvus import repairs

        changes: list[Change] = []
        left: list[Drift] = []
        for declared in self._blueprint.collections:
            live = self._server.live(declared)
            if compare.goes_beyond(declared, live.target):
                continue
            drifts = [*compare.drifts(declared, live, self._server.definition)]
            steps = self._repair_steps(declared, live, drifts)
            changes += steps
            left += repairs.left_of(drifts, steps)
        told = self.with_statements(Plan(tuple(changes)))
        return RepairPlan(told.changes, tuple(left))

    def _repair_steps(
        self, declared: Collection, live: Live, drifts: Sequence[Drift]
    ) -> list[Change]:
        """The steps that mend drifts of one collection, in an order in which they can be taken."""
        from is_db_bootstrap.stores.milvus import repairs

        try:
            compare.refuse_different(declared, live, self._server.is_collection)
        except StoreConflict:
            return []
        missing = compare.missing(declared, live, self._server.definition)
        return repairs.steps_of(drifts, missing)

    def repair(self, change: Change) -> str | None:
        """Take one step, as `apply` does."""
        return self.apply(change)

    def selftest(self) -> Iterator[Proof]:
        """Fill and search a probe collection like each declared one; see `selftest.py`."""
        from is_db_bootstrap.stores.milvus.selftest import proofs

        with self._errors("a probe collection"):
            for declared in self._blueprint.collections:
                yield from proofs(self._open_probe, self._server.client, declared)

    def _open_probe(self, collection: Collection) -> MilvusBootstrapper:
        """The same store for another collection, on a connection of its own."""
        blueprint = replace(self._blueprint, collections=(collection,))
        return MilvusBootstrapper(self._url, blueprint, timing=self._timing)

    def status(self) -> Status:
        """The contract that each collection was created for, and the declared one.

        Milvus has no lock.
        """
        declared = [self._changes.contract(c) for c in self._blueprint.collections]
        recorded = [self._recorded(c) for c in self._blueprint.collections]
        return Status(", ".join(filter(None, recorded)), ", ".join(declared))

    def _recorded(self, declared: Collection) -> str:
        live = self._server.live(declared)
        if compare.goes_beyond(declared, live.target):
            return f"{live.target} (later than {declared.name})"
        if live.described is None:
            return ""
        contract = live.properties.get(CONTRACT_PROPERTY)
        return contract or f"{declared.name} (not created by this tool)"

    def recorded_blueprints(self) -> Some[str]:
        """The blueprints that properties of collections name.

        Of many collections, the first ones by name are looked at.
        """
        with self._errors("the collections"):
            names = self._server.client.list_collections(**self._server.look_options)
            described = [self._server.described(name) for name in sorted(names)[:_MOST_LOOKED_AT]]
        properties = [(each or {}).get("properties") or {} for each in described]
        contracts = [str(each.get(CONTRACT_PROPERTY, "")) for each in properties]
        return {contract.rpartition("/")[0] for contract in contracts if "/" in contract}

    # --- what it remembers

    def recall(self) -> Recall:
        """What this Milvus holds and remembers, from what the last plan has read.

        Raises `StoreConflict` for a broken record.
        """
        return self._memory.recall()

    def memory_refusal(self) -> str:
        """Why the user may not change the properties of a collection. Nothing is changed.

        A server without users, and Milvus Lite, refuse nothing.
        """
        if self._server.told_release.is_lite or not self._url.username:
            return ""
        from is_db_bootstrap.stores.milvus.rights import refuse_missing

        declared = self._blueprint.collections[0]
        change = Change("memory", "property")
        user, database = self._url.username, self._url.database
        try:
            with self._errors("the privileges"):
                refuse_missing(self._server, [(declared, change)], user, database)
        except AccessDenied as exc:
            return f"Milvus does not remember what was converged: {exc.message} {exc.hint}"
        return ""

    def remember(self, memory: Memory) -> str | None:
        """Keep a record as a property of each collection.

        Returns a remark when the user may not change properties.
        """
        return self._memory.remember(memory)

    # --- versions

    def version_keeper(self) -> VersionKeeper:
        """What looks at the versions of each collection, and moves their aliases."""
        from is_db_bootstrap.stores.milvus.versions import VersionKeeper

        return VersionKeeper(self._server, self._errors)

    # --- ending

    def cancel(self) -> None:
        """From another thread: break the connection.

        What Milvus has begun (an index, a load) it goes on with.
        """
        self._errors.cancelled.set()
        self._server.close()

    def what_goes_on(self) -> str:
        """What the server goes on with after `cancel`, as a sentence for the report."""
        return KIND.unended

    def close(self) -> None:
        """Release the connection."""
        self._server.close()
