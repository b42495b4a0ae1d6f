"""Recording revisions as applied in a team's own version table, without its `env.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.postgres.alembic import create_version_table

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.stores.postgres.history import History
    from is_db_bootstrap.stores.postgres.revisions import Chain


def heads_after(chain: Chain, recorded: Sequence[str], stamped: Collection[str]) -> tuple[str, ...]:
    """What a version table records after a stamp, as `alembic stamp` leaves it.

    A branch that has nothing to do with a stamped revision stays. Without one, nothing stays.
    """
    if not stamped:
        return ()
    before = set(chain.until(stamped))
    others = [
        head
        for head in recorded
        if head in chain.parents
        and head not in before
        and not before.intersection(stamped).intersection(chain.until([head]))
    ]
    return tuple(sorted(chain.heads(chain.until([*others, *stamped]))))


def stamp(
    reader: psycopg.Connection[Any],
    history: History,
    target: str,
    heads: Sequence[str],
    chain: Chain,
) -> None:
    """Let the version table record `heads` of `chain`, in one transaction with what led there.

    The marks of steps that did not end are lifted in it. `reader` is in autocommit mode.
    """
    lineage = chain.until(heads)
    create_version_table(reader, target, history.place)
    table = history.table
    known = [name for name in history.recorded(reader) if name in chain.parents]
    before = set(chain.until(known))
    renewed = [name for name in lineage if name not in before]
    with reader.transaction():
        reader.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
        reader.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - quoted
        for head in heads:
            insert = f"INSERT INTO {table} (version_num) VALUES (%s)"  # noqa: S608 - quoted
            reader.execute(insert.replace(table, table.replace("%", "%%")).encode(), [head])
        history.write_lineage(reader, lineage, renewed)
        history.forget(reader)
