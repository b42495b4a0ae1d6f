"""The SQL that a file of Python may send, as far as it is written out there."""

from __future__ import annotations

import ast
from collections.abc import Iterator

#: Stands for what is put into a text when it runs.
_UNKNOWN = "unknown"


def sql_of_python(source: str) -> Iterator[str]:
    """The texts of a file of Python in their order, without its comments and documentation.

    The whole file, where it is not Python.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        yield source
        return
    told = {id(each.value) for each in ast.walk(tree) if isinstance(each, ast.Expr)}
    yield from _texts(tree, told)


def _texts(node: ast.AST, told: set[int]) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(_part(each) for each in node.values)
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, told)


def _part(value: ast.expr) -> str:
    is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
    return str(value.value) if is_text and isinstance(value, ast.Constant) else _UNKNOWN
