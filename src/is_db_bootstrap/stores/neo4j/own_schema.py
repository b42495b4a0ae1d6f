"""The constraints and the index that this tool needs for itself: which of them a database lacks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from neo4j import exceptions as raised

from is_db_bootstrap.errors import StoreBusy, StoreConflict
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j import history as neo4j_history
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.compare import described
from is_db_bootstrap.stores.neo4j.cypher_schema import LiveSchema, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement, split
from is_db_bootstrap.stores.neo4j.kind import STORE
from is_db_bootstrap.stores.neo4j.left_index import drop_left_index
from is_db_bootstrap.stores.neo4j.schema_forecast import is_unfinished

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.results import Change
    from is_db_bootstrap.stores.neo4j.database import Database
    from is_db_bootstrap.stores.neo4j.fence import Fence

#: What both tools need for themselves, by name.
OWN_SCHEMA: Mapping[str, str] = {**neo4j_history.SCHEMA, **neo4j_lock.SCHEMA}


class OwnSchema:
    """What both tools need for themselves in `database`: seen, and made where it is absent."""

    def __init__(self, database: Database, fence: Fence) -> None:
        self._database = database
        self._fence = fence
        #: Whether what recording needs was seen or made.
        self.can_record = False

    def get_ready_to_record(self, session: neo4j.Session, change: Change) -> None:
        """Make the constraints and the index that recording needs, where they are absent."""
        if self.absent_for_record(session):
            self._fence.refuse_lost(session, change)
            self.make(session, OWN_SCHEMA)
        self.can_record = True

    def absent_for_record(self, session: neo4j.Session) -> dict[str, str]:
        """The statements that make what recording needs and the database lacks, by name."""
        if self.can_record:
            return {}
        if self._database.live is None:
            self._database.live = self._database.look(session)
        return absent(OWN_SCHEMA, self._database.live)

    def make(self, session: neo4j.Session, schema: Mapping[str, str]) -> None:
        """Make what is absent of `schema`, and see that it is there.

        `IF NOT EXISTS` keeps no second run from being refused: of two that make an index at once,
        one gets `EquivalentSchemaRuleAlreadyExists`. So what is there afterwards decides, not the
        answer. Raises `StoreBusy` when something is still absent then, because another run is
        making or removing it.
        """
        live, self._database.live = self._database.live, None
        if live is not None and self._make_together(session, absent(schema, live)):
            return
        for text in absent(schema, self._database.look(session)).values():
            try:
                with self._database.sending(Statement(text, text, line=1)):
                    self._database.rows(session, text)
            except raised.ClientError as exc:
                if neo4j_errors.code(exc) not in neo4j_errors.EXISTS:
                    raise
        self._database.live = self._database.look(session)
        left = absent(schema, self._database.live)
        if left:
            for name in left:  # the next try makes it anew
                drop_left_index(partial(self._database.rows, session), name)
            raise StoreBusy(
                STORE,
                f"{', '.join(left)} was made and is not there: another run is at work, "
                "or the server was ended while it made one and had kept its index.",
                hint=f"If no other run is at work, DROP INDEX {next(iter(left))} IF EXISTS.",
                subject=next(iter(left)),
            )

    def _make_together(self, session: neo4j.Session, absent: Mapping[str, str]) -> bool:
        """Make what recording or the lock needs, in one transaction.

        Returns False when some of it was there already. Then nothing was made.
        """
        try:
            with session.begin_transaction(metadata=self._database.metadata) as transaction:
                for text in absent.values():
                    with self._database.sending(Statement(text, text, line=1)):
                        transaction.run(text).consume()
                transaction.commit()
        except raised.ClientError as exc:
            if neo4j_errors.code(exc) not in neo4j_errors.EXISTS:
                raise
            return False
        return True


def absent(schema: Mapping[str, str], live: LiveSchema) -> dict[str, str]:
    """The statements of `schema`, by name, whose objects `live` does not have under any name.

    Raises `StoreConflict` when one of the names stands for something else.
    """
    return {name: text for name, text in schema.items() if not _is_there(_wanted(text), live)}


def _wanted(text: str) -> SchemaObject:
    (statement,) = split(text)
    found = recognise(statement.tokens)
    if not isinstance(found, SchemaObject):
        raise TypeError(text)
    return found


def _is_there(wanted: SchemaObject, live: LiveSchema) -> bool:
    found = live.find(wanted)
    if found is None or is_unfinished(wanted, found):
        return False
    if not wanted.matches(found):
        raise StoreConflict(
            STORE,
            f"{wanted} is needed for the history or the lock as {described(wanted)}, "
            f"but the database has {described(found)} of that name.",
            hint=f"Drop it (DROP {found.kind.upper()} {found.name}), and run again.",
            subject=wanted.name,
        )
    return True
