"""The history of a Neo4j database, in the format of neo4j-migrations.

Both tools read and continue each other's histories. The BASELINE node also says, in
`isDbBootstrapBlueprint`, whose history it is. A database that neo4j-migrations began has no such
mark and is adopted by the next file that is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from is_db_bootstrap.engine.lineage import Comparison, Lineage, Standing, Step
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.neo4j import begun
from is_db_bootstrap.stores.neo4j.cypher_file import LINE_ENDS, CypherFile
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.version import number

KIND = "cypher"

#: What neo4j-migrations creates, by name; these are nobody's findings.
SCHEMA: Mapping[str, str] = {
    "unique_version___Neo4jMigration": (
        "CREATE CONSTRAINT unique_version___Neo4jMigration IF NOT EXISTS "
        "FOR (n:__Neo4jMigration) REQUIRE (n.version, n.migrationTarget) IS UNIQUE"
    ),
    "repeated_at__Neo4jMigration": (
        "CREATE INDEX repeated_at__Neo4jMigration IF NOT EXISTS FOR ()-[r:REPEATED]-() ON (r.at)"
    ),
}

LABEL = "__Neo4jMigration"
#: The version of the node that every chain begins with.
BASELINE = "BASELINE"

# A server compiles each of these anew after each schema change, and the long ones take it 100 ms
# and more. So there are several short ones, and what they return is put together here.

#: One row for each run of a file again, and one for each other file.
READ = f"MATCH (m:{LABEL}) OPTIONAL MATCH (m)-[r:REPEATED]->(m) RETURN m, r"

#: Begins every transaction that records. The node is never committed: its unique name makes a
#: second writer wait here until the first one has ended, because `unique_version___Neo4jMigration`
#: lets two nodes have one version where there is no `migrationTarget`.
WAIT_FOR_WRITERS = "CREATE (l:__Neo4jMigrationsLock {name: 'is-db-bootstrap record'}) DELETE l"
#: What is recorded then.
VERSIONS = f"""
MATCH (m:{LABEL}) WHERE m.migrationTarget IS NULL AND m.version IS NOT NULL
RETURN m.version AS version, m.isDbBootstrapBlueprint AS blueprint
"""
#: Makes the node that every chain begins with, which says whose history it is.
BEGIN_CHAIN = f"CREATE (:{LABEL} {{version: '{BASELINE}', isDbBootstrapBlueprint: $blueprint}})"
#: Says whose it is on the node that another tool has made.
ADOPT = f"""
MATCH (b:{LABEL} {{version: '{BASELINE}'}}) WHERE b.migrationTarget IS NULL
SET b.isDbBootstrapBlueprint = $blueprint
"""

#: Puts a node behind `$previous`, behind which nothing stands.
RECORD_LAST = f"""
MATCH (p:{LABEL} {{version: $previous}}) WHERE p.migrationTarget IS NULL
CREATE (p)-[:MIGRATED_TO {{at: datetime({{timezone: 'UTC'}}), in: duration({{milliseconds: $ms}}),
                          by: $by, connectedAs: $user}}]->(c:{LABEL} $facts)
RETURN count(c) AS recorded
"""
#: Puts a node behind `$previous`, and what stood there behind the node.
RECORD = """
MATCH (p:__Neo4jMigration {version: $previous}) WHERE p.migrationTarget IS NULL
OPTIONAL MATCH (p)-[old:MIGRATED_TO]->(n:__Neo4jMigration)
CREATE (p)-[:MIGRATED_TO {at: datetime({timezone: 'UTC'}), in: duration({milliseconds: $ms}),
                          by: $by, connectedAs: $user}]->
       (c:__Neo4jMigration $facts)
FOREACH (_ IN CASE WHEN n IS NULL THEN [] ELSE [1] END |
    CREATE (c)-[moved:MIGRATED_TO]->(n) SET moved = properties(old) DELETE old)
RETURN count(c) AS recorded
"""

REPEAT = """
MATCH (m:__Neo4jMigration {version: $version}) WHERE m.migrationTarget IS NULL
CREATE (m)-[r:REPEATED {at: datetime({timezone: 'UTC'}), in: duration({milliseconds: $ms}),
                        by: $by, connectedAs: $user, checksum: $checksum}]->(m)
RETURN count(r) AS recorded
"""


#: Takes a node out of the history, and joins what stood before it and behind it.
REMOVE = f"""
MATCH (m:{LABEL} {{version: $version}}) WHERE m.migrationTarget IS NULL
OPTIONAL MATCH (p)-[:MIGRATED_TO]->(m)
OPTIONAL MATCH (m)-[old:MIGRATED_TO]->(n)
FOREACH (_ IN CASE WHEN p IS NULL OR n IS NULL THEN [] ELSE [1] END |
    CREATE (p)-[moved:MIGRATED_TO]->(n) SET moved = properties(old))
DETACH DELETE m
"""
#: Lets a node say what its file is now.
CORRECT = f"""
MATCH (m:{LABEL} {{version: $previous}}) WHERE m.migrationTarget IS NULL SET m += $facts
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded file; `checksum` is that of its latest run, `past` has those of all its runs."""

    version: str
    checksum: str
    repeatable: bool
    type: str
    source: str
    past: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.source} (version {self.version})"

    @property
    def order(self) -> tuple[int, ...]:
        """Its place among the files."""
        return number(self.version)


@dataclass(frozen=True, slots=True)
class History:
    """What is recorded, in the order of versions; `blueprint` is empty when nobody marked it.

    `targets` are the databases whose histories lie here besides, under their `migrationTarget`.
    """

    entries: tuple[Entry, ...] = ()
    blueprint: str = ""
    begun: bool = False
    targets: frozenset[str] = frozenset()

    @classmethod
    def read(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """From the rows of `READ`."""
        nodes: dict[str, Any] = {}
        repeats: dict[str, list[Any]] = {}
        for row in rows:
            node = row["m"]
            nodes[node.element_id] = node
            if row["r"] is not None:
                repeats.setdefault(node.element_id, []).append(row["r"])
        blueprint = ""
        entries = []
        targets = {str(n["migrationTarget"]) for n in nodes.values() if n.get("migrationTarget")}
        own = {i: n for i, n in nodes.items() if not n.get("migrationTarget") and _counts(n)}
        for identity, node in own.items():
            if node["version"] == BASELINE:
                blueprint = node.get("isDbBootstrapBlueprint") or ""
            else:
                entries.append(_entry(node, repeats.get(identity, [])))
        return cls(
            tuple(sorted(entries, key=lambda e: e.order)),
            blueprint,
            begun=bool(own),
            targets=frozenset(targets),
        )

    def entry(self, version: str) -> Entry | None:
        """What is recorded under a version, however many zeros it is written with."""
        order = number(version)
        return next((e for e in self.entries if e.order == order), None)

    def before(self, file: CypherFile) -> str:
        """The version behind which `file` is recorded."""
        return next((e.version for e in reversed(self.entries) if e.order < file.order), BASELINE)

    def continued(self, file: CypherFile, blueprint: str) -> History:
        """What it is after `file` was recorded for `blueprint`, as a reading would find it."""
        before = self.entry(file.version)
        version, source = (before.version, before.source) if before else (file.version, file.name)
        past = before.past if before else frozenset[str]()
        latest = Entry(
            version, file.checksum, file.repeatable, "CYPHER", source, past | {file.checksum}
        )
        others = [e for e in self.entries if e.order != file.order]
        return History(
            tuple(sorted([*others, latest], key=lambda e: e.order)),
            self.blueprint or blueprint,
            begun=True,
            targets=self.targets,
        )

    def is_ahead(
        self, files: Sequence[CypherFile], usable: Sequence[CypherFile], blueprint: str
    ) -> bool:
        """Whether it contains all of `files` and goes on: newer code was here.

        `usable` are those that this server takes. Raises `StoreConflict`, which names both sides,
        when each has something that the other one lacks.
        """
        taken = {file.order for file in usable}
        passed_over = [file for file in files if file.order not in taken]
        found = self._as_lineage(passed_over).compare(_declared_lineage(usable, passed_over))
        unknown = [entry for entry in self.entries if _step_name(entry.order) in found.beyond]
        if found.standing is Standing.AHEAD and not files:
            raise _unknown(unknown, blueprint)
        if found.standing is Standing.DIVERGED:
            self._refuse_diverged(found, unknown, usable, blueprint)
        return found.standing is Standing.AHEAD

    def _as_lineage(self, passed_over: Sequence[CypherFile]) -> Lineage:
        """What is recorded, as a lineage that is compared with that of the files.

        There is nothing to do for a file that is passed over, so it counts as recorded.
        """
        texts: dict[tuple[int, ...], Iterable[str]] = {file.order: () for file in passed_over}
        for entry in self.entries:
            texts[entry.order] = entry.past if entry.repeatable else [entry.checksum]
        orders = sorted(texts)
        chain = Lineage.in_order(*map(_step_name, orders)).steps
        pairs = zip(chain, orders, strict=True)
        return Lineage(tuple(replace(step, digests=frozenset(texts[o])) for step, o in pairs))

    def _refuse_diverged(
        self,
        found: Comparison,
        unknown: Sequence[Entry],
        usable: Sequence[CypherFile],
        blueprint: str,
    ) -> NoReturn:
        """Raise the `StoreConflict` of a history that has gone another way than the files."""
        by_name = {_step_name(file.order): file for file in usable}
        for entry in self.entries:
            if _step_name(entry.order) in found.rewritten:
                raise _other_text(entry, by_name[_step_name(entry.order)])
        pending = [by_name[name] for name in found.pending]
        if unknown and pending:
            rewritten = [file for file in pending if self.entry(file.version) is not None]
            raise _diverged(unknown, pending, rewritten)
        if unknown:
            raise _unknown(unknown, blueprint)
        raise self._late(by_name[found.skipped[0]])

    def refuse_other_target(self, database: str) -> None:
        """Raise `StoreConflict` when the history of `database` is recorded as that of a target.

        neo4j-migrations records it so where a `--schema-database` is given, and finds it only with
        that option. Without this, every file would be applied a second time.
        """
        if not self.entries and database in self.targets:
            raise StoreConflict(
                STORE,
                f"neo4j-migrations recorded the history of the database {database} with the option "
                "--schema-database, under that name as migrationTarget, where nobody finds it "
                "without the option.",
                hint="Go on with neo4j-migrations there, or remove the property from these nodes: "
                f"MATCH (m:{LABEL} {{migrationTarget: '{database}'}}) REMOVE m.migrationTarget.",
                subject=database,
            )

    def check(self, files: Sequence[CypherFile], blueprint: str) -> None:
        """Raise `StoreConflict` when it is another blueprint's, or has another kind of file."""
        self.refuse_other_blueprint(blueprint)
        for file in files:
            entry = self.entry(file.version)
            if entry is not None:
                _refuse_other_kind(entry, file)

    def refuse_other_blueprint(self, blueprint: str) -> None:
        """Raise `StoreConflict` when the history says that it is another blueprint's."""
        if self.blueprint and self.blueprint != blueprint:
            raise StoreConflict(
                STORE,
                f"The database carries the blueprint {self.blueprint}, not {blueprint}.",
                hint="A database carries one: name another in the address. Community has only one, "
                "so there it is another server "
                "(locally another --data-dir).",
                subject=blueprint,
            )

    def pending(self, files: Sequence[CypherFile]) -> list[Change]:
        """In order: what is not recorded, and repeatable files whose text is newer than the record.

        `is_ahead` has found that the history and the files go one way.
        """
        changes = []
        for file in files:
            entry = self.entry(file.version)
            if entry is None:
                changes.append(change_of(file, file.description))
            elif entry.checksum not in file.checksums:
                changes.append(change_of(file, f"{file.description} (changed)"))
        return changes

    def _late(self, file: CypherFile) -> StoreConflict:
        """The conflict of a file that was put before one that is recorded."""
        last = self.entries[-1]
        return StoreConflict(
            STORE,
            f"{file.name} was never applied, but {last.source} behind it was.",
            hint=f"Give it a version above {last.version}.",
            subject=file.name,
        )


def _counts(node: Mapping[str, Any]) -> bool:
    """Whether neo4j-migrations counts a node as one of its history (`ChainBuilder.java`)."""
    is_failed = node.get("flyway_failed") is True
    return node.get("version") is not None and not is_failed and node.get("type") != "DELETE"


def _entry(node: Mapping[str, Any], repeats: Sequence[Mapping[str, Any]]) -> Entry:
    """The entry of a node, and of the relationships that say when it ran again."""
    runs = sorted(repeats, key=_ran_at)
    checksums = [str(each.get("checksum")) for each in (node, *runs)]
    version = str(node["version"])
    return Entry(
        version,
        checksums[-1],
        node.get("repeatable") or False,
        node.get("type") or "",
        node.get("source") or version,
        frozenset(checksums),
    )


def _ran_at(repeat: Mapping[str, Any]) -> datetime:
    at: datetime = repeat["at"].to_native()
    return at


def recorded_facts(file: CypherFile) -> dict[str, Any]:
    """What the node of a file has."""
    return {
        "version": file.version,
        "description": file.description,
        "type": "CYPHER",
        "repeatable": file.repeatable,
        "source": file.name,
        "checksum": file.checksum,
    }


def change_of(file: CypherFile, detail: str) -> Change:
    """The step that applies a file."""
    return Change(file.name, KIND, detail, begun.nature(file))


def _step_name(order: tuple[int, ...]) -> str:
    """The name of a version in a lineage, however many zeros it is written with."""
    return ".".join(map(str, order))


def _declared_lineage(usable: Sequence[CypherFile], passed_over: Sequence[CypherFile]) -> Lineage:
    """The files as a lineage. Nothing goes on from those that are passed over."""
    chain = Lineage.in_order(*(_step_name(file.order) for file in usable)).steps
    declared = [
        replace(
            step,
            digests=frozenset(file.checksums),
            may_repeat=file.repeatable,
            may_come_late=file.is_conditional,
        )
        for step, file in zip(chain, usable, strict=True)
    ]
    return Lineage((*declared, *(Step(_step_name(file.order)) for file in passed_over)))


def _unknown(theirs: Sequence[Entry], blueprint: str) -> StoreConflict:
    """The conflict of entries that no file declares, between our files or without any."""
    return StoreConflict(
        STORE,
        f"The history has {_listed(theirs)}, which {blueprint} does not know.",
        hint=f"Bring the file back, or use a database of its own for {blueprint}.",
        subject=theirs[0].source,
    )


def _diverged(
    theirs: Sequence[Entry], ours: Sequence[CypherFile], rewritten: Sequence[CypherFile]
) -> StoreConflict:
    """The conflict of a history and a blueprint of which neither contains the other."""
    what = f"{_listed(ours)}, which was never applied"
    if rewritten:
        what = f"{_listed(rewritten)} with a text that was never applied"
    return StoreConflict(
        STORE,
        f"The history and the blueprint have diverged: the history has {_listed(theirs)}, which "
        f"the blueprint does not know, and the blueprint has {what}.",
        hint="Bring both lines together: add the files that are missing here, and give ours "
        "versions behind theirs.",
        subject=theirs[0].source,
    )


def _listed(things: Sequence[Entry] | Sequence[CypherFile]) -> str:
    return ", ".join(
        thing.name if isinstance(thing, CypherFile) else str(thing) for thing in things
    )


def compare(entry: Entry, file: CypherFile) -> None:
    """Raise `StoreConflict` when the record of this number is of another kind of file.

    The same for the record of another text.
    """
    _refuse_other_kind(entry, file)
    if not entry.repeatable and entry.checksum not in file.checksums:
        raise _other_text(entry, file)


def _refuse_other_kind(entry: Entry, file: CypherFile) -> None:
    if entry.repeatable == file.repeatable:
        return
    words = ("repeatable", "versioned") if entry.repeatable else ("versioned", "repeatable")
    raise StoreConflict(
        STORE,
        f"{entry.source} was applied as a {words[0]} file, and {file.name} is a {words[1]} one.",
        hint="Give the new file a version of its own.",
        subject=file.name,
    )


def _other_text(entry: Entry, file: CypherFile) -> StoreConflict:
    """The conflict of a file that has another text than the one that was applied."""
    changed = "The text"
    hint = "Restore the text, and put the change into a new file."
    only = file.why_other(entry.checksum)
    if only:
        changed = f"Nothing but {only}"
        hint = "Save the file as it was applied."
    if only == LINE_ENDS:
        hint = (
            "Check the file out as it was applied (`*.cypher text eol=lf` in .gitattributes), or "
            "let line ends not count: cypher_autocrlf=True in the blueprint, as --autocrlf of "
            "neo4j-migrations."
        )
    if entry.source != file.name and not only:
        return StoreConflict(
            STORE,
            f"Version {entry.version} was applied as {entry.source}, and {file.name} is another "
            f"text: recorded checksum {entry.checksum}, now {file.checksum}.",
            hint="Restore that file, and give the new one a version of its own.",
            subject=file.name,
        )
    return StoreConflict(
        STORE,
        f"{changed} of {file.name} was changed after it was applied: "
        f"recorded checksum {entry.checksum}, now {file.checksum}.",
        hint=hint,
        subject=file.name,
    )
