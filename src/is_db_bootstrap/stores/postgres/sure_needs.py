"""What the SQL of revisions is sure to need of its role, read from their files.

No revision is run for that. Only what every run of `upgrade` does is counted: its operations one
after the other, and those of the functions of its file that it calls. Reading ends at the first
statement of another kind, such as a condition or SQL that is put together. What comes after that is
not known, in this revision and in those that go on from it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from is_db_bootstrap.stores.postgres.revisions import parse_python

#: The place of the table among the arguments of an operation that only the table's owner may do.
_TABLE_ARGUMENT = {
    "add_column": 0,
    "alter_column": 0,
    "create_check_constraint": 1,
    "create_foreign_key": 1,
    "create_index": 1,
    "create_primary_key": 1,
    "create_table_comment": 0,
    "create_unique_constraint": 1,
    "drop_column": 0,
    "drop_constraint": 1,
    "drop_table_comment": 0,
}
#: What the parameter is called, where it is given by its name.
_TABLE_KEYWORDS = ("table_name", "source_table")
#: Operations that need no more than the schema, or whose need depends on what is there.
_NEED_NOTHING = {"bulk_insert", "create_table", "drop_index", "drop_table"}
_NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_]\w*)'
_ALTER_TABLE = re.compile(
    rf"\s*ALTER\s+TABLE\s+(?:ONLY\s+)?(?P<name>{_NAME}(?:\.{_NAME})?)\s", re.IGNORECASE
)
_EXTENSION = re.compile(
    r"""\bCREATE\s+EXTENSION\s+(?:IF\s+NOT\s+EXISTS\s+)?"?(?P<name>[A-Za-z_][\w-]*)""",
    re.IGNORECASE,
)
#: After these, the role of the session is another one.
_OTHER_ROLE = re.compile(r"\bSET\s+(?:LOCAL\s+|SESSION\s+)?(?:ROLE|SESSION\s+AUTH)", re.IGNORECASE)
#: A block that may live with a refusal.
_HAS_HANDLER = re.compile(r"\bEXCEPTION\s+WHEN\b", re.IGNORECASE)


class _Unsure(Exception):
    """Nobody can tell by reading what a statement does."""


@dataclass(slots=True)
class SureNeeds:
    """What revisions need: tables of which to be the owner, and extensions, by their revision.

    A table is its schema, or None, and its name.
    """

    tables: dict[tuple[str | None, str], str] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the functions of one file, and notes what they need."""

    revision: str
    functions: Mapping[str, ast.FunctionDef]
    needs: SureNeeds

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
        self._read_operation(_operation_of(value.func), value)

    def _read_operation(self, operation: str, call: ast.Call) -> None:
        if operation in _TABLE_ARGUMENT:
            self._note_table(call, _TABLE_ARGUMENT[operation])
        elif operation == "execute":
            self._note_sql(_text(call.args[0] if call.args else None))
        elif operation not in _NEED_NOTHING:
            raise _Unsure

    def _note_table(self, call: ast.Call, place: int) -> None:
        named = {option.arg: option.value for option in call.keywords}
        given = call.args[place] if len(call.args) > place else None
        for keyword in _TABLE_KEYWORDS:
            given = given or named.get(keyword)
        schema = named.get("schema") or named.get("source_schema")
        table = _text(given), _text(schema) if schema is not None else None
        self.needs.tables.setdefault((table[1], table[0]), self.revision)

    def _note_sql(self, sql: str) -> None:
        if _OTHER_ROLE.search(sql):
            raise _Unsure
        if not _HAS_HANDLER.search(sql):
            for found in _EXTENSION.finditer(sql):
                self.needs.extensions.setdefault(found["name"], self.revision)
        if found_table := _ALTER_TABLE.match(sql):
            parts = [_unquoted(each) for each in re.findall(_NAME, found_table["name"])]
            schema = parts[0] if len(parts) > 1 else None
            self.needs.tables.setdefault((schema, parts[-1]), self.revision)


def _operation_of(called: ast.expr) -> str:
    """The operation `x` of `op.x`. Empty for everything else."""
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name):
        return ""
    return called.attr if called.value.id == "op" else ""


def _text(value: ast.expr | None) -> str:
    """A text that is written out, also in `text("…")`. Raises `_Unsure` for everything else."""
    if isinstance(value, ast.Call) and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        raise _Unsure
    return value.value


def _unquoted(name: str) -> str:
    """The name that SQL means."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def sure_needs(files: Mapping[str, Path], revisions: Iterable[str]) -> SureNeeds:
    """What `revisions`, in the order of the chain, are sure to need. `files` are theirs."""
    needs = SureNeeds()
    for revision in revisions:
        path = files.get(revision)
        if path is None:
            break
        tree = parse_python(path.read_bytes())
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        try:
            _Reader(revision, functions, needs).read("upgrade")
        except _Unsure:
            break
    return needs
