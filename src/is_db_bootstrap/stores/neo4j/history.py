"""The history of a Neo4j database, in the format of neo4j-migrations.

Both tools read and continue each other's histories. The BASELINE node also says, in
`isDbBootstrapBlueprint`, whose history it is. A database that neo4j-migrations began has no such
mark and is adopted by the next file that is applied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.neo4j import begun
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, number

STORE = "neo4j"
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

_COLUMNS = """
RETURN m.version AS version, m.checksum AS checksum,
       coalesce(m.repeatable, false) AS repeatable, m.type AS type,
       coalesce(m.source, m.version) AS source, m.isDbBootstrapBlueprint AS blueprint,
       [(m)-[r:REPEATED]->(m) | [r.at.epochMillis, r.checksum]] AS repeats
"""
READ = f"MATCH (m:__Neo4jMigration) WHERE m.migrationTarget IS NULL {_COLUMNS}"

#: Begins every transaction that records. The node is never committed: its unique name makes a
#: second writer wait at the MERGE until the first one has ended, because
#: `unique_version___Neo4jMigration` lets two nodes have one version where there is no
#: `migrationTarget`. Then the node that every chain begins with is made where it is missing, and
#: says whose history it is. The rows are that node, and what is recorded under the number `$order`,
#: however many zeros it is written with.
BEGIN_RECORD = f"""
MERGE (l:__Neo4jMigrationsLock {{name: 'is-db-bootstrap record'}}) DELETE l
WITH count(*) AS writers
OPTIONAL MATCH (b:__Neo4jMigration {{version: 'BASELINE'}}) WHERE b.migrationTarget IS NULL
FOREACH (_ IN CASE WHEN b IS NULL THEN [1] ELSE [] END |
    CREATE (:__Neo4jMigration {{version: 'BASELINE', isDbBootstrapBlueprint: $blueprint}}))
FOREACH (_ IN CASE WHEN b IS NULL THEN [] ELSE [1] END |
    SET b.isDbBootstrapBlueprint = coalesce(b.isDbBootstrapBlueprint, $blueprint))
WITH writers
MATCH (m:__Neo4jMigration) WHERE m.migrationTarget IS NULL
    AND (m.version = 'BASELINE' OR [part IN split(m.version, '.') | toInteger(part)] = $order)
{_COLUMNS}
"""

#: Puts a node behind `$previous`, and what stood there behind the node.
RECORD = """
MATCH (p:__Neo4jMigration {version: $previous}) WHERE p.migrationTarget IS NULL
OPTIONAL MATCH (p)-[old:MIGRATED_TO]->(n:__Neo4jMigration)
CREATE (p)-[:MIGRATED_TO {at: datetime({timezone: 'UTC'}), in: duration({milliseconds: $ms}),
                          by: $by, connectedAs: $user}]->
       (c:__Neo4jMigration {version: $version, description: $description, type: 'CYPHER',
                            repeatable: $repeatable, source: $source, checksum: $checksum})
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded file; `checksum` is that of its latest run, `past` has those of all its runs."""

    version: str
    checksum: str
    repeatable: bool
    type: str
    source: str
    past: frozenset[str] = frozenset()

    def has_had(self, file: CypherFile) -> bool:
        """Whether the text of `file` was applied under this number once, now or before."""
        return not self.past.isdisjoint(file.checksums)

    def __str__(self) -> str:
        return f"{self.source} (version {self.version})"

    @property
    def order(self) -> tuple[int, ...]:
        """Its place among the files."""
        return number(self.version)


@dataclass(frozen=True, slots=True)
class History:
    """What is recorded, in the order of versions; `blueprint` is empty when nobody marked it."""

    entries: tuple[Entry, ...] = ()
    blueprint: str = ""
    begun: bool = False

    @classmethod
    def read(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """From the rows of `READ`."""
        entries, blueprint, begun = [], "", False
        for row in rows:
            begun = True
            if row["version"] == "BASELINE":
                blueprint = row["blueprint"] or ""
                continue
            latest = max(row["repeats"], default=[None, row["checksum"]])[1]
            past = frozenset(
                str(checksum) for checksum in (row["checksum"], *(r[1] for r in row["repeats"]))
            )
            entries.append(
                Entry(
                    row["version"],
                    str(latest),
                    row["repeatable"],
                    row["type"] or "",
                    row["source"],
                    past,
                )
            )
        return cls(tuple(sorted(entries, key=lambda e: e.order)), blueprint, begun)

    def entry(self, version: str) -> Entry | None:
        """What is recorded under a version, however many zeros it is written with."""
        return next((e for e in self.entries if e.order == number(version)), None)

    def before(self, file: CypherFile) -> str:
        """The version behind which `file` is recorded."""
        return next((e.version for e in reversed(self.entries) if e.order < file.order), "BASELINE")

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
        )

    def is_ahead(self, files: Sequence[CypherFile], usable: Sequence[CypherFile]) -> bool:
        """Whether it contains all of `files` and goes on.

        `usable` are those that this server takes.

        Raises `StoreConflict` that names both sides when it goes on and lacks something of ours:
        then it is another line, and not a later state of this one.
        """
        last = files[-1].order if files else ()
        beyond = [entry for entry in self.entries if entry.order > last]
        if not beyond or not files:
            return False
        lacking = [file for file in usable if self.entry(file.version) is None]
        if lacking:
            raise _diverged(beyond, f"{_listed(lacking)}, which was never applied")
        unknown = [f for f in usable if (entry := self.entry(f.version)) and not entry.has_had(f)]
        if unknown:
            raise _diverged(beyond, f"{_listed(unknown)} with a text that was never applied")
        return True

    def check(self, files: Sequence[CypherFile], blueprint: str) -> None:
        """Raise `StoreConflict` when it is another blueprint's.

        The same when it has files that we do not know, or other texts.
        """
        self.refuse_other_blueprint(blueprint)
        by_order = {f.order: f for f in files}
        unknown = []
        for entry in self.entries:
            file = by_order.get(entry.order)
            if file is not None:
                compare(entry, file)
            elif not files or entry.order < files[-1].order:
                unknown.append(entry)
        if unknown:
            self._refuse_unknown(unknown, files, blueprint)

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

    def _refuse_unknown(
        self, unknown: Sequence[Entry], files: Sequence[CypherFile], blueprint: str
    ) -> None:
        """Raise for entries between our files, or for any when there are none."""
        lacking = [
            file for file in files if self.entry(file.version) is None and not file.is_conditional
        ]
        if lacking:
            raise _diverged(unknown, f"{_listed(lacking)}, which was never applied")
        raise StoreConflict(
            STORE,
            f"The history has {_listed(unknown)}, which {blueprint} does not know.",
            hint=f"Bring the file back, or use a database of its own for {blueprint}.",
            subject=unknown[0].source,
        )

    def pending(self, files: Sequence[CypherFile]) -> list[Change]:
        """In order: what is not recorded, and repeatable files whose text is newer than the record.

        A file in front of a recorded one is a `StoreConflict`, unless an assumption may have kept
        it out until now.
        """
        changes = []
        for file in files:
            entry = self.entry(file.version)
            if entry is None:
                self._refuse_late(file)
                changes.append(change_of(file, file.description))
            elif entry.checksum not in file.checksums:
                changes.append(change_of(file, f"{file.description} (changed)"))
        return changes

    def _refuse_late(self, file: CypherFile) -> None:
        last = self.entries[-1] if self.entries else None
        if last is not None and last.order > file.order and not file.is_conditional:
            raise StoreConflict(
                STORE,
                f"{file.name} was never applied, but {last.source} behind it was.",
                hint=f"Give it a version above {last.version}.",
                subject=file.name,
            )


def change_of(file: CypherFile, detail: str) -> Change:
    """The step that applies a file."""
    return Change(file.name, KIND, detail, begun.nature(file))


def _diverged(theirs: Sequence[Entry], ours: str) -> StoreConflict:
    """The conflict of a history and a blueprint of which neither contains the other."""
    return StoreConflict(
        STORE,
        f"The history and the blueprint have diverged: the history has {_listed(theirs)}, "
        "which the blueprint "
        f"does not know, and the blueprint has {ours}.",
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
    if entry.repeatable != file.repeatable:
        words = ("repeatable", "versioned") if entry.repeatable else ("versioned", "repeatable")
        raise StoreConflict(
            STORE,
            f"{entry.source} was applied as a {words[0]} file, "
            f"and {file.name} is a {words[1]} one.",
            hint="Give the new file a version of its own.",
            subject=file.name,
        )
    if not entry.repeatable and entry.checksum not in file.checksums:
        raise StoreConflict(
            STORE,
            f"The text of {file.name} was changed after it was applied: "
            f"recorded checksum {entry.checksum}, now {file.checksum}.",
            hint="Restore the text, and put the change into a new file.",
            subject=file.name,
        )
