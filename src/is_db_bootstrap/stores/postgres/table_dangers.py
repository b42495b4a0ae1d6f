"""Dangers in ALTER TABLE, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from is_db_bootstrap.results import Danger
from is_db_bootstrap.stores.postgres import column_dangers, constraint_dangers
from is_db_bootstrap.stores.postgres.danger_judge import Judge, drops
from is_db_bootstrap.stores.postgres.sql_syntax import Name, constants, literal, quoted

_HAS_METHOD = """
    SELECT 1 FROM pg_class c JOIN pg_am m ON m.oid = c.relam
    WHERE c.oid = to_regclass({table}) AND m.amname = {method}
"""
_HAS_PERSISTENCE = """
    SELECT 1 FROM pg_class WHERE oid = to_regclass({table}) AND relpersistence = {kind}
"""
_PERSISTENCE = {"AT_SetLogged": ("p", "LOGGED"), "AT_SetUnLogged": ("u", "UNLOGGED")}


def altered(judge: Judge, statement: Any) -> Iterator[Danger]:
    """The dangers of each part of an ALTER TABLE. Other objects have no such parts."""
    kinds = constants()
    if statement.objtype != kinds.OBJECT_TABLE:
        return
    name = judge.name(statement.relation)
    if statement.missing_ok and not judge.is_there(name):
        return
    for each in statement.cmds:
        command = each.alter_table_cmd
        rule = _RULES.get(kinds.AlterTableType.Name(command.subtype))
        if rule is not None:
            yield from rule(judge, name, command)


def _add_constraint(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    yield from constraint_dangers.added(judge, name, getattr(command, "def").constraint)


def _drop_constraint(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    planned = judge.planned(name)
    if planned.is_new or planned.constraints.pop(command.name, None) is not None:
        return
    text = f"Constraint {command.name} is dropped, and what it refused is taken from then on."
    yield drops(name, text)


def _validate(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    yield from constraint_dangers.validated(judge, name, command.name)


def _set_not_null(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    yield from constraint_dangers.not_null(judge, name, command.name)


def _set_persistence(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    kind, word = _PERSISTENCE[constants().AlterTableType.Name(command.subtype)]
    live = judge.planned(name).live
    if live is not None and judge.rows is not None:
        values = {"table": literal(live.quoted), "kind": literal(kind)}
        if judge.has(_HAS_PERSISTENCE.format(**values)):
            return
    yield from judge.rewrites(name, f"SET {word} writes the table anew")


def _set_access_method(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    live = judge.planned(name).live
    if live is not None and judge.rows is not None:
        table, method = literal(live.quoted), literal(command.name)
        if judge.has(_HAS_METHOD.format(table=table, method=method)):
            return
    yield from judge.rewrites(name, f"SET ACCESS METHOD {command.name} writes the table anew")


def _set_tablespace(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    yield from judge.rewrites(name, f"The table is copied to the tablespace {command.name}")


def _set_expression(judge: Judge, name: Name, command: Any) -> Iterator[Danger]:
    text = f"The table is written anew, because {quoted(command.name)} is computed in another way"
    yield from judge.rewrites(name, text)


def _attach(judge: Judge, _: Name, command: Any) -> Iterator[Danger]:
    part = judge.name(getattr(command, "def").partition_cmd.name)
    yield from judge.locks(
        part,
        "Readers and writers wait while each row is checked against the bounds of the partition "
        "({}), unless a CHECK constraint says already that all of them fit.",
    )


_RULES: dict[str, Callable[[Judge, Name, Any], Iterator[Danger]]] = {
    "AT_AddColumn": column_dangers.added,
    "AT_AddConstraint": _add_constraint,
    "AT_AlterColumnType": column_dangers.retyped,
    "AT_AttachPartition": _attach,
    "AT_DropColumn": column_dangers.dropped,
    "AT_DropConstraint": _drop_constraint,
    "AT_SetAccessMethod": _set_access_method,
    "AT_SetExpression": _set_expression,
    "AT_SetLogged": _set_persistence,
    "AT_SetNotNull": _set_not_null,
    "AT_SetTableSpace": _set_tablespace,
    "AT_SetUnLogged": _set_persistence,
    "AT_ValidateConstraint": _validate,
}
