"""The tables that revisions are sure to make, read from their files. No revision is run for that.

Reading ends where `sure_calls` ends, and at SQL of a revision's own.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from is_db_bootstrap.stores.postgres.revision_folder import revision_files
from is_db_bootstrap.stores.postgres.revisions import declared_ids
from is_db_bootstrap.stores.postgres.sure_calls import Unsure, sure_calls

#: Operations of Alembic after which every table that was there is still there.
_KEEPS_TABLES = {
    "add_column",
    "alter_column",
    "bulk_insert",
    "create_check_constraint",
    "create_foreign_key",
    "create_index",
    "create_primary_key",
    "create_table",
    "create_table_comment",
    "create_unique_constraint",
    "drop_column",
    "drop_constraint",
    "drop_index",
}
#: Options by which `create_table` makes its table elsewhere, or takes one that is there.
_NOT_OURS = {"if_not_exists", "prefixes", "schema"}


def surely_made(folder: Path, revisions: Sequence[str]) -> tuple[str, ...]:
    """The tables that `revisions` of a folder, in the order of the chain, are sure to make."""
    paths = {declared_ids(path)[0]: path for path in revision_files(folder)}
    made: list[str] = []
    try:
        for revision in revisions:
            for operation, call in sure_calls(paths[revision]):
                made += _made_by(operation, call)
    except Unsure:
        pass
    return tuple(made)


def _made_by(operation: str, call: ast.Call) -> list[str]:
    """The table that an operation makes, if its name is written out.

    Raises `Unsure` for an operation after which a table that was there may be gone.
    """
    if operation not in _KEEPS_TABLES:
        raise Unsure
    name = call.args[0] if operation == "create_table" and call.args else None
    is_ours = not any(option.arg in _NOT_OURS for option in call.keywords)
    if is_ours and isinstance(name, ast.Constant) and isinstance(name.value, str):
        return [name.value]
    return []
