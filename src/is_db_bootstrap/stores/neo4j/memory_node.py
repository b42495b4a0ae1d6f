"""The records of converged stores in a Neo4j database: one node each, of a label of our own.

neo4j-migrations does not look at this label.

The identity of a database is its store id together with that of the `system` database. Seen on
5.26 and 2026.08: both stay through a restart. `neo4j-admin database load` brings the store id of
the dump along, so the copy of a database on another server has the same one. The `system` database
tells these servers apart. A database that is made anew has another store id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neo4j import exceptions as raised

from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.errors import AccessDenied, StoreBusy
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.neo4j import begun, errors, history, lock
from is_db_bootstrap.stores.neo4j.history import History
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.recalled import Kept, full, read_kept

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject
    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.errors import Translation
    from is_db_bootstrap.stores.neo4j.fence import Fence

LABEL = "__IsDbBootstrapMemory"
#: Records that a database takes of one blueprint.
MOST_RECORDS = 1000
#: What a database holds that a run would make anew: without it, every file runs again.
HISTORY = "the history of its Cypher files"

_IDENTITY = """
CALL db.info() YIELD id AS database, name AS place
CALL dbms.info() YIELD id AS server
"""
#: The records of one blueprint, and those that say of no blueprint.
_OURS = f"(m:{LABEL}) WHERE coalesce(m.blueprint, $blueprint) = $blueprint"
#: One row for each record, and one row when there is none.
READ = f"{_IDENTITY}OPTIONAL MATCH {_OURS} RETURN m, null AS r, database, place, server"
#: The same, and the rows of `history.READ`, so that a plan asks once.
READ_WITH_HISTORY = (
    f"{history.READ}, null AS database, null AS place, null AS server UNION ALL {READ}"
)
#: The records for a user who may not ask for the identity.
READ_BARE = f"OPTIONAL MATCH {_OURS} RETURN m, null AS r, '' AS database, '' AS place, '' AS server"
#: Puts a record in the place of the one with its key.
WRITE = f"MERGE (m:{LABEL} {{key: $key}}) SET m.record = $record, m.blueprint = $blueprint"
#: The key of a record that is never committed.
_TRIAL_KEY = "trial"
#: What is recorded under a key.
READ_BACK = f"MATCH (m:{LABEL} {{key: $key}}) RETURN m.record AS record"
#: Whether there is a node that neither tool has made for itself.
ANY_NODE = f"""
MATCH (n) WHERE NOT n:{LABEL} AND NOT n:{history.LABEL} AND NOT n:{lock.LABEL}
AND NOT n:{begun.LABEL} RETURN true AS found LIMIT 1
"""
_REMOVAL = f"MATCH (m:{LABEL} {{key: '…'}}) DELETE m."
#: Codes of a server that does not let this user, or anybody, ask for the identity.
_UNASKED = ("ClientError.Security.Forbidden", errors.NO_PROCEDURE)

Rows = Sequence[Mapping[str, Any]]


class MemoryNodes:
    """The records of `blueprint` in `database`, and what a look at a plan has told of them."""

    def __init__(
        self, database: Database, fence: Fence, translate: Translation, blueprint: str
    ) -> None:
        self._database = database
        self._fence = fence
        self._errors = translate
        self._blueprint = blueprint
        #: The rows of the last look. None when something was changed since.
        self._seen: Rows | None = None

    def forget(self) -> None:
        """Take what a look has seen for known no more."""
        self._seen = None

    def look_with_history(self, session: neo4j.Session) -> Rows:
        """The rows of `history.READ`. The records are seen in the same query."""
        try:
            rows = self._database.rows(session, READ_WITH_HISTORY, blueprint=self._blueprint)
        except raised.ClientError as exc:
            if errors.code(exc) not in _UNASKED:
                raise
            self._seen = None
            return self._database.rows(session, history.READ)
        self._seen = [row for row in rows if row["database"] is not None]
        return [row for row in rows if row["database"] is None]

    def look(self, session: neo4j.Session) -> None:
        """See the records, unless they were seen and nothing was changed since."""
        if self._seen is not None:
            return
        try:
            self._seen = self._database.rows(session, READ, blueprint=self._blueprint)
        except raised.ClientError as exc:
            if errors.code(exc) not in _UNASKED:
                raise
            self._seen = self._database.rows(session, READ_BARE, blueprint=self._blueprint)

    def recall(
        self,
        session: neo4j.Session,
        found: History,
        *,
        is_schema_there: bool,
        is_file_pending: bool,
    ) -> Recall:
        """What the database is and remembers.

        `found` is its history. `is_schema_there` says whether anything is there of the constraints
        and indexes that the files declare, and `is_file_pending` whether the last plan runs a file.
        Raises `StoreConflict` for a broken record.
        """
        self.look(session)
        seen = self._seen or ()
        nodes = [row["m"] for row in seen if row["m"] is not None]
        recalled = read_kept(STORE, self._blueprint, map(_kept, nodes))
        is_bare = not found.begun and not nodes
        if is_bare and is_schema_there:
            # `MATCH (n) DETACH DELETE n` leaves constraints and indexes.
            is_bare = not self._database.rows(session, ANY_NODE)
        is_recorded = bool(found.entries)
        return Recall(
            place=str(seen[0]["place"]) or self._database.name,
            identity=identity_of(seen[0]),
            is_blank=is_bare,
            holds=(HISTORY,) if is_recorded else (),
            missing=(HISTORY,) if is_file_pending and not is_recorded else (),
            memories=recalled.memories,
            full=full("Neo4j", len(nodes), MOST_RECORDS, _REMOVAL),
            newer_keys=recalled.newer_keys,
            remarks=recalled.remarks,
        )

    def refusal(self) -> str:
        """Why the user may not keep a record, as a transaction tells that is rolled back."""
        change = Change("memory", "memory", nature=Nature.REPEATABLE)
        trial = {"key": _TRIAL_KEY, "record": "", "blueprint": self._blueprint}
        try:
            with self._errors("the memory", change), self._database.session() as session:
                metadata = self._database.metadata
                with session.begin_transaction(metadata=metadata) as transaction:
                    transaction.run(WRITE, trial).consume()
                    transaction.rollback()  # at its end, the driver would commit
        except AccessDenied as exc:
            return _not_remembered(exc)
        return ""

    def remember(self, memory: Memory) -> str | None:
        """Write a record, under the lease of this run, and read it back.

        Returns a remark when the user may not write it.
        """
        self.forget()
        record = to_text(memory)
        change = Change("memory", "memory", nature=Nature.REPEATABLE)
        try:
            with self._errors("the memory", change), self._database.session() as session:
                with self._fence.transaction(session, change) as run:
                    run(WRITE, key=memory.key, record=record, blueprint=memory.blueprint)
                kept = self._database.rows(session, READ_BACK, key=memory.key)
        except AccessDenied as exc:
            return _not_remembered(exc)
        if [row["record"] for row in kept] != [record]:
            raise StoreBusy(
                STORE,
                "The record of this run was written, and another one is there.",
                subject="memory",
                hint="Another run is at work. Run again.",
            )
        return None


def _not_remembered(refusal: AccessDenied) -> str:
    return (
        f"Neo4j does not remember what was converged: {refusal.message} Let the user make and "
        f"set nodes with the label {LABEL} (GRANT CREATE, SET LABEL, SET PROPERTY)."
    )


def is_any_there(wanted: Sequence[SchemaObject], live: LiveSchema) -> bool:
    """Whether the database has any of these constraints and indexes."""
    return any(live.find(each) is not None for each in wanted)


def _kept(node: neo4j.graph.Node) -> Kept:
    text = node.get("record")
    return Kept(
        text if isinstance(text, str) else None,
        f"node {LABEL} {node.get('key') or node.element_id}",
        f"MATCH (m:{LABEL}) WHERE elementId(m) = '{node.element_id}' DELETE m",
        key=str(node.get("key") or ""),
    )


def identity_of(row: Mapping[str, Any]) -> str:
    """Store id and id of the server. Empty when the user may not ask for them."""
    return f"{row['database']}@{row['server']}" if row["database"] else ""
