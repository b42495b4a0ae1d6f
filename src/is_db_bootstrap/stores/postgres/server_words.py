"""What PostgreSQL's words tell everywhere, and what only a person is told, as it may be of rows.

A server quotes values of rows in many of its messages, and new versions have new ones. So there is
a list of what is known to name only objects and the server's own state. The rest is told by the
name of its condition. A message between these two, such as "relation "people" does not exist",
may be of the statement or of a value that was cast to a name. Of it a quoted word is told when it
stands in the statement, which is the file's own, or when the server says that it is a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg

#: Beginnings of SQLSTATEs (the manual's appendix A) whose messages have no value of a row.
_OF_OBJECTS = (
    "08",  # connection
    "23",  # integrity: tables, columns and constraints, with the values in DETAIL
    "25",  # state of the transaction
    "26",  # prepared statements
    "28",  # login
    "2BP01",  # objects that depend on another one
    "40",  # rolled back: deadlock, serialization
    "44",  # a view's check option
    "53",  # resources
    "54",  # limits of the server
    "55000",  # an object in the wrong state
    "55006",  # an object in use
    "55P03",  # a lock
    "57",  # cancelled, shut down
    "P0002",  # PL/pgSQL's own: no row, and too many of them
    "P0003",
)
#: Beginnings of SQLSTATEs whose messages name what stands in a statement, or what a value names.
_OF_NAMES = ("0A", "21", "3D", "3F", "42")
#: A value that cannot be what it is to be. Values stand in quotation marks or behind a colon.
_OF_VALUES = "22"

#: Quotation marks of the languages that servers write in.
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("»", "«"),
    ("«", "»"),
    ("„", "“”"),
    ("“", "”"),
    ("\u2018", "\u2019"),
    ("「", "」"),
)
_QUOTED = re.compile("|".join(f"{begin}[^{ends}]*[{ends}]" for begin, ends in _QUOTES))
#: Where the server raises what a function says itself (src/pl/plpgsql/src/pl_exec.c).
_RAISED = frozenset({"exec_stmt_raise", "exec_stmt_assert"})
#: Files of the languages whose functions raise what they like, with any SQLSTATE (src/pl).
_FOREIGN_LANGUAGES = ("plpy", "plperl", "pltcl")
_INTEGRITY, _SYNTAX_ERROR, _NO_FUNCTION = "23", "42601", "42883"


def told(exc: BaseException, statement: str = "") -> tuple[str, str]:
    """What a server says of objects, and what it says of rows and values.

    The second is a detail, for a person at a terminal. Values stand in DETAIL ("Key (email)=(…)
    already exists", "Failing row contains (…)"), in the message of a data exception ("invalid input
    syntax for type integer: …"), and anywhere in what a function raises in its own words.
    `statement` is the text that was refused, without its parameters.
    """
    diag = getattr(exc, "diag", None)
    if diag is None or not diag.message_primary:
        return _told_by_client(exc)
    primary, detail = _one_line(diag.message_primary), _one_line(diag.message_detail or "")
    everything = _sentences(primary, detail)
    state = getattr(exc, "sqlstate", None) or ""
    if _is_raised(diag):
        return _raised(diag), everything
    condition = type(exc).__name__  # psycopg's classes have the names of the conditions
    if _is_of_a_value(diag, state):
        return condition, everything
    if state.startswith(_OF_OBJECTS):
        return primary, _sentences(detail)
    if state.startswith(_OF_VALUES):
        general = _QUOTED.sub("…", primary.partition(": ")[0]) + _of_column(diag)
    elif state.startswith(_OF_NAMES):
        general = _QUOTED.sub(_only_names(diag, statement), primary)
    else:
        general = condition
    return general, _sentences(detail) if general == primary else everything


def _told_by_client(exc: BaseException) -> tuple[str, str]:
    """The same of what psycopg itself raised.

    Of connections it tells everything. Its other errors may be about a value that it could not read
    or write.
    """
    text = _one_line(str(exc))
    if isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
        return text, ""
    return type(exc).__name__, _sentences(text)


def _is_raised(diag: psycopg.errors.Diagnostic) -> bool:
    """Whether a function of the database says it in its own words."""
    source = diag.source_file or ""
    return diag.source_function in _RAISED or source.startswith(_FOREIGN_LANGUAGES)


def _is_of_a_value(diag: psycopg.errors.Diagnostic, state: str) -> bool:
    """Whether what a message quotes may come from a row, although it is no data exception.

    A statement that a function puts together and runs with EXECUTE may have values anywhere. A
    syntax error that is not the parser's is one of a text, such as a `tsquery`. A function that is
    missing, and that has no place in the statement, was asked for by a value (`regprocedure`).
    """
    if re.search(r"\bEXECUTE\b", diag.context or ""):
        return not state.startswith(_INTEGRITY)
    source = diag.source_file or ""
    if state == _SYNTAX_ERROR:
        return not source.startswith(("scan.", "gram.", "parse_"))
    return state == _NO_FUNCTION and source.startswith("regproc.")


def _only_names(diag: psycopg.errors.Diagnostic, statement: str) -> Callable[[re.Match[str]], str]:
    """What becomes of a quoted word: it stays if it is a name for certain.

    The statement of a function that failed (`internal_query`) is no proof, because a function may
    have put it together from values.
    """
    names = {diag.schema_name, diag.table_name, diag.column_name, diag.constraint_name}
    source = statement.casefold()

    def shown(quoted: re.Match[str]) -> str:
        word = quoted[0][1:-1]
        stands = re.search(rf"(?<!\w){re.escape(word.casefold())}(?!\w)", source)
        return quoted[0] if stands or word in names else "…"

    return shown


def _sentences(*parts: str) -> str:
    said = [part for part in parts if part]
    return ". ".join(said) + "." if said else ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _raised(diag: psycopg.errors.Diagnostic) -> str:
    """Which function raised an error in its own words, as far as the server's context tells."""
    found = re.match(r"\S+ (?P<name>[^\s(]+\([^)]*\))", diag.context or "")
    where = f"function {found['name']}" if found else "a function or a block of the database"
    return f"{where} raised an error of its own"


def _of_column(diag: psycopg.errors.Diagnostic) -> str:
    names = [name for name in (diag.table_name, diag.column_name) if name]
    return f" ({'.'.join(names)})" if names else ""
