"""Which rules each kind of statement is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from is_db_bootstrap.results import Danger, DangerKind
from is_db_bootstrap.stores.postgres import table_dangers
from is_db_bootstrap.stores.postgres.constraint_dangers import duplicates
from is_db_bootstrap.stores.postgres.danger_judge import Judge, drops, unseen
from is_db_bootstrap.stores.postgres.sql_syntax import (
    Name,
    Unreadable,
    block_of,
    constants,
    expression_text,
    name_of_list,
    named_columns,
    quoted,
    statements_of,
    strings,
)

#: `LOCK TABLE` modes from this one on keep writers out (5 is SHARE).
_KEEPS_WRITERS_OUT = 5
_DROPPED: dict[str, str] = {
    "OBJECT_TABLE": "The table is dropped, and its rows are lost",
    "OBJECT_FOREIGN_TABLE": "The foreign table is dropped",
    "OBJECT_MATVIEW": "The materialized view is dropped, and its rows are lost",
    "OBJECT_SCHEMA": "The schema is dropped",
    "OBJECT_SEQUENCE": "The sequence is dropped, and where it had come to is lost",
    "OBJECT_TYPE": "The type is dropped",
    "OBJECT_DOMAIN": "The domain is dropped",
    "OBJECT_EXTENSION": "The extension is dropped",
    "OBJECT_INDEX": "The index is dropped: what it made fast or unique is so no longer",
}
_TABLES = {"OBJECT_TABLE", "OBJECT_FOREIGN_TABLE", "OBJECT_MATVIEW"}
#: What takes other objects with it only with CASCADE, and has no rows of its own.
_HARMLESS = {"OBJECT_VIEW", "OBJECT_FUNCTION", "OBJECT_PROCEDURE", "OBJECT_TRIGGER", "OBJECT_RULE"}


def of(judge: Judge, node: Any) -> Iterator[Danger]:
    """The dangers of one statement. What it does is kept in `judge` for the next ones."""
    kind = node.WhichOneof("node")
    rule = _RULES.get(kind)
    if rule is not None:
        yield from rule(judge, getattr(node, kind))


def _drop(judge: Judge, drop: Any) -> Iterator[Danger]:
    kind = _object_kind(drop.remove_type)
    cascades = drop.behavior == constants().DROP_CASCADE
    for each in drop.objects:
        name = judge.plain(_dropped_name(each))
        if kind == "OBJECT_SCHEMA":
            name = Name(name.table, "")
        is_passed_over = drop.missing_ok and kind in _TABLES and not judge.is_there(name)
        if is_passed_over or _is_new(judge, kind, name):
            continue
        if words := _words_of_drop(judge, kind, name, cascades=cascades):
            yield drops(name.schema if kind == "OBJECT_SCHEMA" else name, f"{words}.")
        if kind in _TABLES:
            judge.tables.create(name)


def _words_of_drop(judge: Judge, kind: str, name: Name, *, cascades: bool) -> str:
    """What is lost with an object. Empty for one without rows that takes nothing with it."""
    if kind in _HARMLESS:
        return "What needs it is dropped with it (CASCADE)" if cascades else ""
    words = _DROPPED.get(kind, "")
    if words and kind in _TABLES:
        is_empty = judge.rows is not None and judge.extent(name) is None
        words = "It is dropped. It is empty now" if is_empty else words + judge.in_brackets(name)
    return f"{words}, with all that needs it (CASCADE)" if words and cascades else words


def _is_new(judge: Judge, kind: str, name: Name) -> bool:
    if kind == "OBJECT_SCHEMA":
        return judge.tables.is_new_schema(name.schema)
    if kind == "OBJECT_TYPE" and judge.tables.enum_values(name.table) is not None:
        return True
    if kind != "OBJECT_INDEX":
        return judge.planned(name).is_new
    return judge.tables.is_new_index(name)


def _dropped_name(node: Any) -> Name:
    if node.HasField("type_name"):
        parts = strings(node.type_name.names)
        return Name("", parts[-1])
    if node.HasField("object_with_args"):
        return Name("", strings(node.object_with_args.objname)[-1])
    return name_of_list(node)


def _drop_owned(_: Judge, statement: Any) -> Iterator[Danger]:
    roles = ", ".join(each.role_spec.rolename for each in statement.roles)
    yield drops(roles, "All that the role owns in this database is dropped.")


def _drop_database(_: Judge, statement: Any) -> Iterator[Danger]:
    yield drops(statement.dbname, "The database is dropped.")


def _truncate(judge: Judge, statement: Any) -> Iterator[Danger]:
    cascades = statement.behavior == constants().DROP_CASCADE
    for each in statement.relations:
        name = judge.name(each.range_var)
        extent = judge.extent(name)
        if extent is not None:
            more = ", and those of each table that refers to it (CASCADE)" if cascades else ""
            size = judge.in_brackets(name)
            yield drops(name, f"All rows of {name} are removed{size}{more}.")
        judge.planned(name).is_written = True


def _delete(judge: Judge, statement: Any) -> Iterator[Danger]:
    name = judge.name(statement.relation)
    if not statement.HasField("where_clause") and judge.extent(name) is not None:
        yield drops(name, f"All rows of {name} are deleted{judge.in_brackets(name)}.")
    judge.planned(name).is_written = True


def _update(judge: Judge, statement: Any) -> Iterator[Danger]:
    name = judge.name(statement.relation)
    if not statement.HasField("where_clause"):
        yield from judge.locks(
            name, "Each row is written, and stays locked until the revision ends ({})."
        )
    judge.planned(name).is_written = True


def _write(judge: Judge, statement: Any) -> Iterator[Danger]:
    judge.planned(judge.name(statement.relation)).is_written = True
    yield from ()


def _create(judge: Judge, statement: Any) -> Iterator[Danger]:
    _note_new(judge, judge.name(statement.relation), is_guarded=statement.if_not_exists)
    yield from ()


def _create_as(judge: Judge, statement: Any) -> Iterator[Danger]:
    _note_new(judge, judge.name(statement.into.rel), is_guarded=statement.if_not_exists)
    yield from ()


def _note_new(judge: Judge, name: Name, *, is_guarded: bool) -> None:
    """A table is created, unless it is there already and the statement passes over it."""
    if not (is_guarded and judge.rows is not None and judge.is_there(name)):
        judge.tables.create(name)


def _create_schema(judge: Judge, statement: Any) -> Iterator[Danger]:
    if not statement.if_not_exists:
        judge.tables.create_schema(statement.schemaname)
    yield from ()


def _index(judge: Judge, statement: Any) -> Iterator[Danger]:
    name = judge.name(statement.relation)
    judge.tables.create_index(Name(name.schema, statement.idxname))
    if not statement.concurrent:
        yield from judge.locks(
            name,
            f"Writers of {name} wait while the index is built ({{}}). CREATE INDEX CONCURRENTLY "
            "lets them go on.",
        )
    if not statement.unique:
        return
    expressions, columns = [], set()
    for each in statement.index_params:
        element = each.index_elem
        if element.name:
            expressions.append(quoted(element.name))
            columns.add(element.name)
        else:
            expressions.append(expression_text(element.expr))
            columns |= named_columns(element.expr)
    condition = ""
    if statement.HasField("where_clause"):
        condition = expression_text(statement.where_clause)
        columns |= named_columns(statement.where_clause)
    yield from duplicates(
        judge,
        name,
        expressions,
        sorted(columns),
        nulls_are_one=statement.nulls_not_distinct,
        condition=condition,
    )


def _cluster(judge: Judge, statement: Any) -> Iterator[Danger]:
    if not statement.HasField("relation"):
        yield Danger(DangerKind.REWRITES, "database", "Each clustered table is written anew.")
        return
    yield from judge.rewrites(judge.name(statement.relation), "CLUSTER writes the table anew")


def _vacuum(judge: Judge, statement: Any) -> Iterator[Danger]:
    if "full" not in {each.def_elem.defname for each in statement.options}:
        return
    if not statement.rels:
        text = "VACUUM FULL writes each table of the database anew."
        yield Danger(DangerKind.REWRITES, "database", text)
    for each in statement.rels:
        name = judge.name(each.vacuum_relation.relation)
        yield from judge.rewrites(name, "VACUUM FULL writes the table anew")


def _reindex(judge: Judge, statement: Any) -> Iterator[Danger]:
    if "concurrently" in {each.def_elem.defname for each in statement.params}:
        return
    if judge.rows is None:
        return
    text = "Writers wait while indexes are built again. REINDEX … CONCURRENTLY lets them go on."
    if not statement.HasField("relation"):
        yield Danger(DangerKind.LOCKS, statement.name or "database", text)
        return
    name = judge.name(statement.relation)
    is_table = statement.kind == constants().REINDEX_OBJECT_TABLE
    if is_table and judge.extent(name) is None:
        return
    if not judge.tables.is_new_index(name):
        yield Danger(DangerKind.LOCKS, str(name), text)


def _refresh(judge: Judge, statement: Any) -> Iterator[Danger]:
    if not statement.concurrent:
        yield from judge.locks(
            judge.name(statement.relation),
            "Readers wait while the view is computed again ({}). REFRESH … CONCURRENTLY lets them "
            "go on.",
        )


def _lock(judge: Judge, statement: Any) -> Iterator[Danger]:
    if statement.mode < _KEEPS_WRITERS_OUT:
        return
    for each in statement.relations:
        name = judge.name(each.range_var)
        yield from judge.locks(name, "LOCK TABLE keeps others out until the revision ends ({}).")


def _rename(judge: Judge, statement: Any) -> Iterator[Danger]:
    kind = _object_kind(statement.rename_type)
    if kind == "OBJECT_TABLE":
        old = judge.name(statement.relation)
        judge.tables.rename(old, Name(old.schema, statement.newname))
    elif kind == "OBJECT_COLUMN":
        planned = judge.planned(judge.name(statement.relation))
        planned.rename_column(statement.subname, statement.newname)
    elif kind == "OBJECT_TYPE":
        old_type = strings(statement.object.list.items)[-1]
        judge.tables.rename_type(old_type, statement.newname)
    yield from ()


def _create_enum(judge: Judge, statement: Any) -> Iterator[Danger]:
    judge.tables.create_enum(strings(statement.type_name)[-1], strings(statement.vals))
    yield from ()


def _alter_enum(judge: Judge, statement: Any) -> Iterator[Danger]:
    values = judge.tables.enum_values(strings(statement.type_name)[-1])
    if values is not None:
        if statement.old_val in values:
            values.remove(statement.old_val)
        values.append(statement.new_val)
    yield from ()


def _set_schema(judge: Judge, statement: Any) -> Iterator[Danger]:
    if _object_kind(statement.object_type) == "OBJECT_TABLE":
        old = judge.name(statement.relation)
        judge.tables.rename(old, judge.plain(Name(statement.newschema, old.table)))
    yield from ()


def _do(judge: Judge, statement: Any) -> Iterator[Danger]:
    block = block_of(statement)
    for text in block.statements:
        try:
            nodes = statements_of(text)
        except Unreadable:
            block = replace(block, is_read=False)
            continue
        for node in nodes:
            for each in of(judge, node):
                yield replace(each, text=f"{each.text} This is in a DO block.")
    if not block.is_read:
        judge.tables.code_ran = True
        yield unseen("DO", "The DO block runs SQL that it puts together, which cannot be read.")


def _call(judge: Judge, statement: Any) -> Iterator[Danger]:
    judge.tables.code_ran = True
    name = ".".join(strings(statement.funccall.funcname))
    yield unseen(name, f"What the procedure {name} does is not looked at.")


def _object_kind(number: int) -> str:
    name: str = constants().ObjectType.Name(number)
    return name


_RULES: dict[str, Callable[[Judge, Any], Iterator[Danger]]] = {
    "alter_enum_stmt": _alter_enum,
    "alter_object_schema_stmt": _set_schema,
    "alter_table_stmt": table_dangers.altered,
    "call_stmt": _call,
    "cluster_stmt": _cluster,
    "copy_stmt": _write,
    "create_enum_stmt": _create_enum,
    "create_schema_stmt": _create_schema,
    "create_stmt": _create,
    "create_table_as_stmt": _create_as,
    "delete_stmt": _delete,
    "do_stmt": _do,
    "drop_owned_stmt": _drop_owned,
    "drop_stmt": _drop,
    "dropdb_stmt": _drop_database,
    "index_stmt": _index,
    "insert_stmt": _write,
    "lock_stmt": _lock,
    "merge_stmt": _write,
    "refresh_mat_view_stmt": _refresh,
    "reindex_stmt": _reindex,
    "rename_stmt": _rename,
    "truncate_stmt": _truncate,
    "update_stmt": _update,
    "vacuum_stmt": _vacuum,
}
