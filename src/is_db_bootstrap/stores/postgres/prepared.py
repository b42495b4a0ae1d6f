"""Statements that a run asks once per step, which the server parses and plans once.

Such a statement is small, and the run waits for its answer. psycopg prepares none on our sessions
(`connection.connect`), because a statement that is asked once is dearer prepared. Here, libpq is
called itself: that takes an eighth of the client's time and a third of the round trip's (500
steps on a local PostgreSQL 18).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import count
from typing import Any

import psycopg
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

#: What tells a statement from the others of this process.
_NUMBERS = count()
#: A parameter as psycopg writes it, or a per cent sign.
_PARAMETER = re.compile(r"%\((\w+)\)s|%%")


class PreparedStatements:
    """Statements of one session at a time. Another session prepares them anew."""

    def __init__(self) -> None:
        self._session: psycopg.Connection[Any] | None = None
        #: The name of each statement on the server, and the names of its parameters.
        self._known: dict[str, tuple[bytes, tuple[str, ...]]] = {}

    def only_row(
        self, session: psycopg.Connection[Any], query: str, given: Mapping[str, str]
    ) -> tuple[str | None, ...] | None:
        """The only row of a query whose parameters are written as psycopg has them, as text.

        None where it has no row. Raises what psycopg raises.
        """
        with session.lock:
            if session is not self._session:
                self._session, self._known = session, {}
            if query not in self._known:
                self._known[query] = _prepare(session, query)
            name, parameters = self._known[query]
            values = [given[parameter].encode() for parameter in parameters]
            result = session.pgconn.exec_prepared(name, values)
            refuse_failed(session, result)
        if not result.ntuples:
            return None
        found = (result.get_value(0, column) for column in range(result.nfields))
        return tuple(None if value is None else value.decode() for value in found)


def _prepare(session: psycopg.Connection[Any], query: str) -> tuple[bytes, tuple[str, ...]]:
    """Let the server parse a query. Returns its name and the names of its parameters.

    A pooler may hand a session on with what another process of ours has prepared on it.
    """
    name = f"is_db_bootstrap_{os.getpid()}_{next(_NUMBERS)}".encode()
    parameters = tuple(dict.fromkeys(filter(None, _PARAMETER.findall(query))))

    def numbered(found: re.Match[str]) -> str:
        return f"${parameters.index(found[1]) + 1}" if found[1] else "%"

    statement = _PARAMETER.sub(numbered, query)
    refuse_failed(session, session.pgconn.prepare(name, statement.encode()))
    return name, parameters


def refuse_failed(session: psycopg.Connection[Any], result: PGresult) -> None:
    """Raise as psycopg does when the server has refused a statement, or is gone."""
    if result.status in {ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK}:
        return
    if session.pgconn.status != ConnStatus.OK:
        raise psycopg.OperationalError(session.pgconn.get_error_message())
    raise psycopg.errors.error_from_result(result)
