"""The tables that revisions are sure to make, read from their files. No revision is run for that.

Only what every run of `upgrade` does is counted: its statements one after the other, and those of
the functions of its file that it calls. Reading ends at the first statement of another kind, such
as a condition, a loop or SQL of its own. What comes after that is not known, in this revision and
in those that go on from it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from is_db_bootstrap.stores.postgres.revision_folder import revision_files
from is_db_bootstrap.stores.postgres.revisions import declared_ids, parse_python

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


class _Unsure(Exception):
    """Nobody can tell by reading what a statement does."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the functions of one file, and notes what they make."""

    functions: Mapping[str, ast.FunctionDef]
    made: list[str] = field(default_factory=list)

    def read(self, name: str, callers: tuple[str, ...] = ()) -> None:
        """Read one function. Raises `_Unsure`; what was noted until then holds."""
        function = self.functions.get(name)
        if function is None or function.decorator_list or name in callers:
            raise _Unsure
        for statement in function.body:
            self._read_statement(statement, (*callers, name))

    def _read_statement(self, statement: ast.stmt, callers: tuple[str, ...]) -> None:
        if isinstance(statement, ast.Pass):
            return
        if not isinstance(statement, ast.Expr | ast.Assign):
            raise _Unsure
        value = statement.value
        if isinstance(value, ast.Constant):
            return
        if not isinstance(value, ast.Call):
            raise _Unsure
        if isinstance(value.func, ast.Name):
            self.read(value.func.id, callers)
            return
        operation = _operation_of(value.func)
        if operation not in _KEEPS_TABLES:
            raise _Unsure
        if operation == "create_table":
            self._note(value)

    def _note(self, call: ast.Call) -> None:
        """Note the table that a call of `create_table` makes, if its name is written out."""
        name = call.args[0] if call.args else None
        is_ours = not any(option.arg in _NOT_OURS for option in call.keywords)
        if is_ours and isinstance(name, ast.Constant) and isinstance(name.value, str):
            self.made.append(name.value)


def _operation_of(called: ast.expr) -> str:
    """The operation `x` of `op.x`. Empty for everything else."""
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name):
        return ""
    return called.attr if called.value.id == "op" else ""


def surely_made(folder: Path, revisions: Sequence[str]) -> tuple[str, ...]:
    """The tables that `revisions` of a folder, in the order of the chain, are sure to make."""
    paths = {declared_ids(path)[0]: path for path in revision_files(folder)}
    made: list[str] = []
    for revision in revisions:
        tree = parse_python(paths[revision].read_bytes())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        reader = _Reader(functions, made)
        try:
            reader.read("upgrade")
        except _Unsure:
            break
    return tuple(made)
