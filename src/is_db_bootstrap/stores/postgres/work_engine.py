"""The engine of SQLAlchemy for the sessions that revisions work in.

SQLAlchemy asks a server six questions before its first statement, and compiles each statement
anew for each engine. A worker has many databases of one kind. So what it has learnt of one server
is used again for the next session that is alike. Each database has an engine and a pool of its
own all the same: a thread that a revision has left behind reaches no other database by it.

Imported only when there is something to apply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Dialect, Engine, make_url
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import LRUCache

from is_db_bootstrap.stores.postgres.driver_text import send_what_has_no_values

_URL = "postgresql+psycopg://"
#: The further connections that a revision may take from its engine.
FURTHER_CONNECTIONS = 4
#: SQLAlchemy's name for the compiled statements of an engine or a connection.
_CACHE = "compiled_cache"
#: Compiled statements that are kept of each kind of session, as SQLAlchemy keeps for an engine.
_STATEMENTS_KEPT = 500
#: Kinds of session that are kept.
_KINDS_KEPT = 8
#: What SQLAlchemy keeps of a session besides the server's version.
_STATE = """
    SELECT current_schema(), current_setting('transaction_isolation'),
           current_setting('standard_conforming_strings'), version()
"""

#: By what a session is like: the dialect that knows it, and its compiled statements.
_known: dict[tuple[object, ...], tuple[Dialect, LRUCache[Any, Any]]] = {}


def work_engine(open_session: Callable[[], psycopg.Connection[Any]]) -> Engine:
    """An engine over sessions that `open_session` opens, the first of them at once.

    Raises what `open_session` raises.
    """
    first = open_session()
    waiting = [first]

    def creator() -> psycopg.Connection[Any]:
        return waiting.pop() if waiting else open_session()

    try:
        kind = _kind_of(first)
        found = _engine_like(*_known[kind], creator) if kind in _known else _new_engine(creator)
        found.connect().close()  # the session is in the pool, and a new dialect learns of it
    except BaseException:
        first.close()
        raise
    if kind not in _known:
        _keep(kind, found)
    return found


def _kind_of(session: psycopg.Connection[Any]) -> tuple[object, ...]:
    """All that a dialect learns when it first meets a session."""
    was = session.autocommit
    session.autocommit = True
    try:
        row = session.execute(_STATE.encode()).fetchone()
    finally:
        session.autocommit = was
    return tuple(row or ())


def _new_engine(creator: Callable[[], Any]) -> Engine:
    found = create_engine(
        _URL,
        creator=creator,
        pool_size=1,
        max_overflow=FURTHER_CONNECTIONS,
        use_native_hstore=False,
        hide_parameters=True,  # what a revision writes stays out of errors and logs
        execution_options={_CACHE: LRUCache(_STATEMENTS_KEPT)},
    )
    send_what_has_no_values(found)  # for the dialect, which the next engines have too
    return found


def _keep(kind: tuple[object, ...], engine: Engine) -> None:
    """Let the next engines over sessions of this kind use what this engine has learnt."""
    if len(_known) >= _KINDS_KEPT:
        _known.clear()
    _known[kind] = (engine.dialect, engine.get_execution_options()[_CACHE])


def _engine_like(
    dialect: Dialect, statements: LRUCache[Any, Any], creator: Callable[[], Any]
) -> Engine:
    """An engine with a pool of its own, whose dialect knows such sessions already."""
    pool = QueuePool(creator, pool_size=1, max_overflow=FURTHER_CONNECTIONS, dialect=dialect)
    prepare = dialect.on_connect()
    if prepare is not None:
        event.listen(pool, "connect", lambda session, _: prepare(session))
    return Engine(
        pool,
        dialect,
        make_url(_URL),
        hide_parameters=True,
        execution_options={_CACHE: statements},
    )
