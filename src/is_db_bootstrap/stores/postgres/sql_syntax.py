"""SQL as PostgreSQL's own parser reads it, without a server.

The parser is that of PostgreSQL 18, which `postgast` brings along (BSD, libpg_query). It reads
what PostgreSQL 14 and later take. Parsers of PyPI that are written in Python were tried: sqlglot
30.30 does not know `ATTACH PARTITION`, `USING INDEX` or `CLUSTER`. pglast has the same parser, and
the GPL. `postgast` is imported with the first statement that is read.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

#: What to type where the parser is not installed.
INSTALL = "pip install postgast"
#: Characters of a statement that a message shows.
_SHOWN = 60
#: A parameter as drivers of Python write it, such as `%(name)s` and `%s`.
_PARAMETER = re.compile(r"%(?:\([^)]*\))?[sbt]\b")


class Unreadable(ValueError):
    """A text that the parser refuses. `line` counts from 1, and is 0 when it is not known."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class ParserMissing(ImportError):
    """`postgast` is not installed, or its library does not load on this machine."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a table as a statement has it. `schema` is empty when it has none."""

    schema: str
    table: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table

    @property
    def quoted(self) -> str:
        """The name as SQL takes any name."""
        parts = [self.schema, self.table] if self.schema else [self.table]
        return ".".join(map(quoted, parts))


def quoted(name: str) -> str:
    """One identifier as SQL takes any identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"


def constants() -> Any:
    """The parser's names of kinds, such as `CONSTR_CHECK`."""
    return _parser().pg_query_pb2


def name_of(relation: Any) -> Name:
    """The name in a `RangeVar`."""
    return Name(relation.schemaname, relation.relname)


def name_of_list(node: Any) -> Name:
    """The name in a list of strings, as `DROP TABLE` has it."""
    parts = strings(node.list.items) if node.HasField("list") else strings([node])
    return Name(parts[-2] if len(parts) > 1 else "", parts[-1])


def strings(nodes: Any) -> list[str]:
    """The texts of a list of strings."""
    return [node.string.sval for node in nodes if node.HasField("string")]


def statements_of(text: str) -> list[Any]:
    """The statements of a text as `Node` messages.

    Raises `Unreadable` with the parser's words, and `ParserMissing`.
    """
    parser = _parser()
    try:
        found = _parsed(parser, text)
    except parser.PgQueryError as exc:
        line = text.count("\n", 0, exc.cursorpos) + 1 if exc.cursorpos else 0
        raise Unreadable(exc.message, line) from exc
    return [each.stmt for each in found.stmts]


def _parsed(parser: Any, text: str) -> Any:
    """What the parser finds. Parameters of a Python driver are tried as those of the server."""
    try:
        return parser.parse(text)
    except parser.PgQueryError:
        without = _PARAMETER.sub("$1", text)
        if without == text:
            raise
        with suppress(parser.PgQueryError):
            return parser.parse(without)
        raise


def expression_text(node: Any) -> str:
    """An expression as SQL."""
    parser = _parser()
    tree = parser.parse("SELECT 1")
    tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val.CopyFrom(node)
    text: str = parser.deparse(tree)
    return text.removeprefix("SELECT ")


def type_text(type_name: Any) -> str:
    """A type with its length, as SQL."""
    parser = _parser()
    tree = parser.parse("SELECT NULL::int")
    cast = tree.stmts[0].stmt.select_stmt.target_list[0].res_target.val.type_cast
    cast.type_name.CopyFrom(type_name)
    text: str = parser.deparse(tree)
    return text.removeprefix("SELECT NULL::")


def called_functions(node: Any) -> set[str]:
    """The names of the functions that an expression calls, without their schemas."""
    found = set()
    for _, part in _parser().walk(node):
        if type(part).__name__ == "FuncCall":
            found.add(strings(part.funcname)[-1])
    return found


def named_columns(node: Any) -> set[str]:
    """The names of the columns in an expression."""
    found = set()
    for _, part in _parser().walk(node):
        if type(part).__name__ == "ColumnRef":
            found.update(strings(part.fields)[-1:])
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """What a `DO` block sends. `is_read` is False when it has SQL that it puts together itself."""

    statements: tuple[str, ...]
    is_read: bool


def block_of(do: Any) -> Block:
    """What is in a `DO` statement, as far as it can be read."""
    found = _tree_of_block(do)
    if found is None:
        return Block((), is_read=False)
    sent, is_read = [], True
    for kind, part in _parts(found):
        if kind in {"PLpgSQL_stmt_execsql", "PLpgSQL_stmt_perform"}:
            expression = part.get("sqlstmt") or part.get("expr") or {}
            sent.append(expression["PLpgSQL_expr"]["query"])
        elif kind in {"PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_dynfors"}:
            is_read = False
    return Block(tuple(sent), is_read)


def sure_statements_of(do: Any, is_met: Callable[[str], bool]) -> list[str]:
    """What every run of a `DO` statement sends, as far as it can be read.

    `is_met` says of the text of a condition that it holds where it matters. A block that may live
    with an error is left out.
    """
    found = _tree_of_block(do)
    if found is None:
        return []
    sent: list[str] = []
    for _, block in _parts_called(found, "PLpgSQL_function"):
        _collect_sure([block.get("action") or {}], is_met, sent)
    return sent


def _collect_sure(body: Iterable[Any], is_met: Callable[[str], bool], sent: list[str]) -> None:
    for statement in body:
        for kind, part in statement.items():
            if kind == "PLpgSQL_stmt_block" and "exceptions" not in part:
                _collect_sure(part.get("body") or (), is_met, sent)
            elif kind == "PLpgSQL_stmt_if" and is_met(part["cond"]["PLpgSQL_expr"]["query"]):
                _collect_sure(part.get("then_body") or (), is_met, sent)
            elif kind == "PLpgSQL_stmt_execsql":
                sent.append(part["sqlstmt"]["PLpgSQL_expr"]["query"])


def _tree_of_block(do: Any) -> Any:
    """The parsed text of a `DO` statement. None when it is not PL/pgSQL, or cannot be read."""
    options = {each.def_elem.defname: each.def_elem.arg.string.sval for each in do.args}
    body, language = options.get("as", ""), options.get("language", "plpgsql")
    if language != "plpgsql":
        return None
    parser = _parser()
    tag = "$is_db_bootstrap$"
    function = f"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS {tag}{body}{tag}"
    try:
        return parser.parse_plpgsql(function)
    except (parser.PgQueryError, json.JSONDecodeError):
        return None


def _parts_called(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The parts of a JSON value that have this name."""
    return ((kind, part) for kind, part in _parts(value) if kind == name)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Each named part of a JSON value, from the outside in, in the order of the text."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from _parts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part)


def beginning(text: str) -> str:
    """The first line of a statement, cut."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _parser() -> Any:
    # A plain import would lead type checkers to stubs of postgast 0.2 that are no Python.
    try:
        return importlib.import_module("postgast")
    except (ImportError, OSError) as exc:
        raise ParserMissing(str(exc)) from exc
