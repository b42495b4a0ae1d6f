"""The operations of Alembic that every run of a revision does, read from its file.

No revision is run for that. Only what every run of `upgrade` does is counted: its statements one
after the other, and those of the functions of its file that it calls. Reading ends at the first
statement of another kind, such as a condition or a loop. What comes after that is not known, in
this revision and in those that go on from it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from is_db_bootstrap.stores.postgres.revisions import parse_python


class Unsure(Exception):
    """Nobody can tell by reading what a statement does."""


def sure_calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Each operation `x` of `op.x(…)` in the order of a run, with its call.

    The operation is empty for a call of something else. Raises `Unsure` where reading ends. What
    was given until then holds.
    """
    tree = parse_python(path.read_bytes())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    yield from _calls(functions, "upgrade", ())


def _calls(
    functions: Mapping[str, ast.FunctionDef], name: str, callers: tuple[str, ...]
) -> Iterator[tuple[str, ast.Call]]:
    function = functions.get(name)
    if function is None or function.decorator_list or name in callers:
        raise Unsure
    for statement in function.body:
        call = _call_of(statement)
        if call is None:
            continue
        if isinstance(call.func, ast.Name):
            yield from _calls(functions, call.func.id, (*callers, name))
        else:
            yield _operation_of(call.func), call


def _call_of(statement: ast.stmt) -> ast.Call | None:
    """The call that a statement is, or whose value it keeps. None for one that does nothing."""
    if isinstance(statement, ast.Pass):
        return None
    if not isinstance(statement, ast.Expr | ast.Assign):
        raise Unsure
    value = statement.value
    if isinstance(value, ast.Constant):
        return None
    if not isinstance(value, ast.Call):
        raise Unsure
    return value


def _operation_of(called: ast.expr) -> str:
    """The operation `x` of `op.x`. Empty for everything else."""
    if not isinstance(called, ast.Attribute) or not isinstance(called.value, ast.Name):
        return ""
    return called.attr if called.value.id == "op" else ""
