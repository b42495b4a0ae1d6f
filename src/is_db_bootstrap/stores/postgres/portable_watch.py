"""The mark of a step that has begun, on MariaDB and SQLite.

There, nobody can ask what has become of a transaction, as `begun` asks PostgreSQL. So the mark is a
row of a table that is there while a revision runs. It is written in the transaction in which the
revision begins. Whatever commits that transaction commits the mark with it: the revision itself, or
on MariaDB every schema statement. A revision that is rolled back takes the mark along, one that
ends drops the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, inspect, text
from sqlalchemy.engine import Connection

from is_db_bootstrap.stores.postgres.half_done import StepWatch

#: The table of the mark.
BEGUN = "is_db_bootstrap_begun"


class PortableWatch(StepWatch):
    """What is known of the revision that runs on one connection.

    `done` counts its statements that were executed.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.done = 0
        self._connection = connection
        event.listen(connection, "after_cursor_execute", self._count)

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """While `step` (`upgrade b2`, `downgrade b2`) runs."""
        self._connection.execute(
            text(f"CREATE TABLE IF NOT EXISTS {BEGUN} (step VARCHAR(255) NOT NULL)")
        )
        query = f"INSERT INTO {BEGUN} VALUES (:step)"  # noqa: S608 - a constant
        self._connection.execute(text(query), {"step": step})
        self.done = 0
        with super().running(step):
            yield

    def ended(self) -> None:
        """The step is recorded in the transaction that is open."""
        self._connection.execute(text(f"DROP TABLE IF EXISTS {BEGUN}"))

    def _count(self, *_: Any) -> None:
        self.done += bool(self.step)


def begun(connection: Connection) -> tuple[str, str] | None:
    """The direction and the revision of the step that is half done; None when there is none."""
    if not inspect(connection).has_table(BEGUN):
        return None
    step = connection.scalar(text(f"SELECT step FROM {BEGUN}"))  # noqa: S608 - a constant
    direction, _, revision = str(step or "").partition(" ")
    return (direction, revision) if revision else None


def forget(connection: Connection) -> None:
    """Remove the mark."""
    connection.execute(text(f"DROP TABLE IF EXISTS {BEGUN}"))
    connection.commit()
