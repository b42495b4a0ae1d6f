"""What the SQL of revisions is sure to need of its role, read from their files.

No revision is run for that. Reading ends where `sure_calls` ends, and at SQL that is put together
or that PostgreSQL's own parser does not read.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from is_db_bootstrap.stores.postgres import sql_syntax
from is_db_bootstrap.stores.postgres.sure_calls import Unsure, sure_calls

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
#: Calls whose one argument is the text itself. Any other function may make another text of it.
_TEXTS = {"text", "sa.text", "sqlalchemy.text", "op.f"}
#: Operations that need no more than the schema, or whose need depends on what is there.
_NEED_NOTHING = {"bulk_insert", "create_table", "drop_index", "drop_table"}
#: SQL without any of these words needs nothing that is counted here, so it is not parsed.
_MAY_NEED = re.compile(r"\b(?:EXTENSION|ALTER|ROLE|AUTHORIZATION|SET_CONFIG)\b", re.IGNORECASE)
#: In a block, these give the session another role.
_SET_ROLE = re.compile(r"\bSET\s+(?:LOCAL\s+|SESSION\s+)?(?:ROLE|SESSION\s+AUTH)", re.IGNORECASE)
#: The condition under which a block makes an extension that is missing.
_EXTENSION_IS_MISSING = re.compile(
    r"\s*NOT\s+EXISTS\s*\(\s*SELECT\b[^()]*\bFROM\s+(?:pg_catalog\.)?pg_extension\b[^()]*\)\s*\Z",
    re.IGNORECASE,
)
#: The statements that begin with `ALTER TABLE`, by the fields that name the object's kind.
_ALTERS_TABLE = {
    "alter_table_stmt": "objtype",
    "alter_object_schema_stmt": "object_type",
    "rename_stmt": "rename_type",
}


@dataclass(slots=True)
class SureNeeds:
    """What revisions need: tables of which to be the owner, and extensions, by their revision.

    A table is its schema, or None, and its name.
    """

    tables: dict[tuple[str | None, str], str] = field(default_factory=dict)
    extensions: dict[str, str] = field(default_factory=dict)


def sure_needs(files: Mapping[str, Path], revisions: Iterable[str]) -> SureNeeds:
    """What `revisions`, in the order of the chain, are sure to need. `files` are theirs."""
    needs = SureNeeds()
    try:
        for revision in revisions:
            path = files.get(revision)
            if path is None:
                break
            for operation, call in sure_calls(path):
                _note_operation(needs, revision, operation, call)
    except Unsure:
        pass
    return needs


def _note_operation(needs: SureNeeds, revision: str, operation: str, call: ast.Call) -> None:
    if operation in _TABLE_ARGUMENT:
        needs.tables.setdefault(_table_of(call, _TABLE_ARGUMENT[operation]), revision)
    elif operation == "execute":
        _note_sql(needs, revision, _text(call.args[0] if call.args else None))
    elif operation not in _NEED_NOTHING:
        raise Unsure


def _table_of(call: ast.Call, place: int) -> tuple[str | None, str]:
    """Schema and name of the table that an operation is about."""
    named = {option.arg: option.value for option in call.keywords}
    given = call.args[place] if len(call.args) > place else None
    for keyword in _TABLE_KEYWORDS:
        given = given or named.get(keyword)
    schema = named.get("schema") or named.get("source_schema")
    return (_text(schema) if schema is not None else None), _text(given)


def _note_sql(needs: SureNeeds, revision: str, sql: str) -> None:
    """Note what SQL needs. What stands in a comment or a string is not counted.

    Of a `DO` block, only what is sent whenever it matters counts: without a condition, or where an
    extension is missing.
    """
    if not _MAY_NEED.search(sql):
        return
    try:
        nodes = sql_syntax.statements_of(sql)
    except (sql_syntax.Unreadable, sql_syntax.ParserMissing) as exc:
        raise Unsure from exc
    for node in nodes:
        kind = node.WhichOneof("node")
        statement = getattr(node, kind)
        if _changes_role(kind, statement):
            raise Unsure
        if kind == "do_stmt":
            for sent in sql_syntax.sure_statements_of(statement, _asks_for_missing):
                _note_sql(needs, revision, sent)
        elif kind == "create_extension_stmt":
            needs.extensions.setdefault(statement.extname, revision)
        elif _is_of_table(kind, statement):
            name = sql_syntax.name_of(statement.relation)
            needs.tables.setdefault((name.schema or None, name.table), revision)


def _asks_for_missing(condition: str) -> bool:
    """Whether a condition holds just where an extension is missing, which the server is asked."""
    return bool(_EXTENSION_IS_MISSING.match(condition))


def _changes_role(kind: str, statement: Any) -> bool:
    """Whether the session may have another role after a statement."""
    if kind == "variable_set_stmt":
        return statement.name in {"role", "session_authorization"}
    if kind == "do_stmt":
        return bool(_SET_ROLE.search(str(statement)))
    return kind == "select_stmt" and "set_config" in sql_syntax.called_functions(statement)


def _is_of_table(kind: str, statement: Any) -> bool:
    """Whether a statement changes a table, as only its owner may."""
    if kind not in _ALTERS_TABLE or not statement.HasField("relation"):
        return False
    names = sql_syntax.constants()
    found = getattr(statement, _ALTERS_TABLE[kind])
    if found == names.OBJECT_COLUMN:
        found = statement.relation_type
    return bool(found in {names.OBJECT_TABLE, names.OBJECT_TABCONSTRAINT})


def _text(value: ast.expr | None) -> str:
    """A text that is written out, also in `text("…")`. Raises `Unsure` for everything else."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in _TEXTS and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        raise Unsure
    return value.value
