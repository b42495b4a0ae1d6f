"""How many rows of a database a downgrade would lose or change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

from is_db_bootstrap.stores.postgres.connection import identifier, settings_query
from is_db_bootstrap.stores.postgres.errors import errors, translated
from is_db_bootstrap.stores.postgres.moves import COUNTED, Loss
from is_db_bootstrap.stores.postgres.server_words import told

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.downgrade_look import Session
    from is_db_bootstrap.stores.postgres.downgrade_trial import Seen

#: Seconds that counting the rows of one table may take, and that it may wait for a lock.
COUNT_S, COUNT_LOCK_S = 10, 2
#: Tables of a schema that goes as a whole: also those that nobody here has made.
_OF_SCHEMAS = """
    SELECT n.nspname::text, c.relname::text
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = ANY(%s) AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
    ORDER BY 1, 2
"""


class LossCount:
    """Counts on the server that messages call `target`. Names of `schema` are told without it."""

    def __init__(self, target: str, schema: str) -> None:
        self._target = target
        self._schema = schema

    def losses(self, reader: Session, seen: Seen) -> list[Loss]:
        """Which of what the trial has seen holds rows on the target, or may hold some."""
        with errors(self._target, "tables of schemas that go"):
            inside = (
                reader.execute(_OF_SCHEMAS.encode(), [list(seen.schemas)]).fetchall()
                if seen.schemas
                else []
            )
        tables = sorted({*seen.tables, *((space, name) for space, name in inside)})
        found = [self._counted(reader, name) for name in tables]
        found += [self._counted_sequence(reader, name) for name in seen.sequences]
        found += [self._counted(reader, name, column) for name, column in seen.columns]
        found += [
            self._counted(reader, name, column, f"type {types}")
            for name, column, types in seen.retyped
        ]
        found += [
            self._counted(reader, name, column, "values computed anew")
            for name, column in seen.rewritten
        ]
        for name, touches in seen.touched.items():
            writes = [touch for touch in touches if touch.writes]
            how = " and ".join(dict.fromkeys(touch.how for touch in writes or touches))
            sent_by = tuple(dict.fromkeys(map(str, touches)))
            found.append(replace(self._counted(reader, name, "", how), sent_by=sent_by))
        return sorted((loss for loss in found if loss.rows != 0), key=str)

    def _shown(self, name: tuple[str, str]) -> str:
        """A name as messages have it: without the blueprint's own schema."""
        return name[1] if name[0] == self._schema else ".".join(name)

    def _counted_sequence(self, reader: Session, name: tuple[str, str]) -> Loss:
        """Whether a sequence was used: then it would begin anew."""
        query = f"SELECT is_called::int FROM {identifier(*name)}"  # noqa: S608 - quoted
        shown = self._shown(name)
        try:
            with reader.transaction(force_rollback=True):
                row = reader.execute(query.encode()).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return Loss(shown, 0, kind="sequence")  # the target has none
        except psycopg.errors.InsufficientPrivilege as exc:
            return Loss(shown, None, why=str(exc.diag.message_primary), kind="sequence")
        return Loss(shown, int(row[0]) if row else 0, kind="sequence")

    def _counted(
        self,
        reader: Session,
        name: tuple[str, str],
        column: str = "",
        how: str = "",
    ) -> Loss:
        """How many rows a table has, or how many have something in a column.

        They are counted up to `COUNTED`, and within `COUNT_S`. `row_security = off` makes the
        server refuse instead of hiding rows (manual, 20.11 Client Connection Defaults).
        """
        shown = self._shown(name)
        # A composite value with an empty attribute is neither NULL nor NOT NULL (manual, 9.2).
        where = f" WHERE {identifier(column)} IS DISTINCT FROM NULL" if column else ""
        rows = f"SELECT FROM {identifier(*name)}{where} LIMIT {COUNTED}"
        query = f"SELECT count(*) FROM ({rows}) AS counted"  # noqa: S608 - quoted
        limits = {
            "row_security": "off",
            "statement_timeout": f"{COUNT_S}s",
            "lock_timeout": f"{COUNT_LOCK_S}s",
        }
        try:
            with reader.transaction(force_rollback=True):  # so the limits end with it
                reader.execute(*settings_query(limits, in_transaction=True))
                row = reader.execute(query.encode()).fetchone()
        except (
            psycopg.errors.UndefinedTable,
            psycopg.errors.UndefinedColumn,
            psycopg.errors.InvalidSchemaName,
        ):
            return Loss(
                shown, 0, column, how
            )  # the target has no such thing, so nothing in it is lost
        except psycopg.Error as exc:
            if reader.closed:
                raise translated(exc, self._target, shown) from exc
            return Loss(shown, None, column, how, told(exc, query)[0])
        return Loss(shown, int(row[0]) if row else 0, column, how)
