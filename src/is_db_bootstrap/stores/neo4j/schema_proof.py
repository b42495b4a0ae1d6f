"""Seeing that what a file leaves behind is there, and usable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from neo4j import exceptions as raised

from is_db_bootstrap.errors import ChangeFailed
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j.compare import different, why_unusable
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.schema_forecast import declared

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.database import Database

_AWAIT = "UNWIND $names AS name CALL db.awaitIndex(name, $seconds) RETURN count(*) AS waited"


class SchemaProof:
    """Looks at `database`, and waits for indexes.

    `index_timeout_s` bounds the wait for the indexes of a file, in seconds.
    """

    def __init__(self, database: Database, index_timeout_s: float) -> None:
        self._database = database
        self._index_timeout_s = index_timeout_s

    def prove(self, session: neo4j.Session, file: CypherFile, change: Change) -> None:
        """See that what `file` leaves behind is there.

        `IF NOT EXISTS` is silent for a name with another definition.
        """
        self.prove_objects(session, declared([file]), file.name, change)

    def prove_objects(
        self,
        session: neo4j.Session,
        wanted: Mapping[str, SchemaObject],
        file_name: str,
        change: Change,
    ) -> None:
        """See that `wanted` is there, and that its indexes are ONLINE."""
        if not wanted:
            return
        kinds = {str(thing.kind) for thing in wanted.values()}
        live = self._database.look_for(session, kinds)
        if _unfinished(live, wanted.values()):
            # A small index is ONLINE soon, and the server's own wait looks every 0.2 s only.
            live = self._database.look_for(session, kinds | {"index"})
        waiting = _unfinished(live, wanted.values())
        if waiting:
            self._await_online(session, waiting)
            live = self._database.look_for(session, kinds | {"index"})
        self._database.live = live
        for thing in wanted.values():
            found = live.find(thing)
            if found is None:
                raise ChangeFailed(
                    STORE,
                    f"{thing} of {file_name} is not there after it was created.",
                    change=change,
                    hint="See who drops it, and run again.",
                    subject=thing.name,
                )
            if not thing.matches(found):
                raise different(thing, found, file_name)
            self._refuse_unfinished(found, live, change)

    def _await_online(self, session: neo4j.Session, names: Sequence[str]) -> None:
        """Wait on the server until they are ONLINE.

        Failing and timing out are judged from the state that they then have.
        """
        try:
            limit_s = max(1, int(self._index_timeout_s))
            self._database.rows(session, _AWAIT, names=names, seconds=limit_s)
        except (raised.ClientError, raised.DatabaseError) as exc:
            if not neo4j_errors.code(exc).startswith(("ClientError.Procedure.", "DatabaseError.")):
                raise

    def _refuse_unfinished(self, thing: SchemaObject, live: LiveSchema, change: Change) -> None:
        state = live.indexes.get(thing.name)
        if state is None or state.state == "ONLINE":
            return
        failure = " ".join(state.failure.split())
        cause = why_unusable(state) if failure else f"after {self._index_timeout_s:g} s"
        hint = "Run again when it is ONLINE, or give a longer IS_DB_BOOTSTRAP_INDEX_TIMEOUT."
        if state.state == "FAILED":
            hint = f"Correct the data, DROP INDEX {thing.name}, and run again."
        raise ChangeFailed(
            STORE,
            f"{thing} is {state.state}: {cause}.",
            change=change,
            hint=hint,
            subject=thing.name,
            detail=failure,
        )


def _unfinished(live: LiveSchema, wanted: Iterable[SchemaObject]) -> list[str]:
    """The names of the indexes of `wanted` that the server still builds.

    Something that is declared without a name, or is there under another one, is waited for under
    the name that it has.
    """
    found = (live.find(thing) for thing in wanted)
    states = [live.indexes.get(thing.name) for thing in found if thing is not None]
    return [state.name for state in states if state is not None and state.state == "POPULATING"]
