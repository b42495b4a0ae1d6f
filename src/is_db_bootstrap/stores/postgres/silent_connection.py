"""What a revision gets for a connection while its statements are written down without a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import TextClause

if TYPE_CHECKING:
    from sqlalchemy.engine.mock import MockConnection
    from sqlalchemy.sql import ClauseElement


#: Why a revision needs an answer.
_ASKS = "asks the database"
_LOOKS_FIRST = "looks first whether an object is there"


class AsksDatabaseError(BaseException):
    """A revision asks the database for something, and there is none.

    No `Exception`, because a revision may catch those and go on.
    """


class SilentConnection:
    """A connection that writes down what is sent, and answers nothing.

    `written` is Alembic's own connection of that kind. `asked` hears why a revision needs an
    answer. A statement whose result nobody reads needs none.
    """

    def __init__(
        self, written: MockConnection, output: Callable[[str], None], asked: Callable[[str], None]
    ) -> None:
        self._written = written
        self._output = output
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        """Whatever else a connection has: a revision that asks for it needs an answer.

        Alembic itself looks for `in_transaction`, and knows that a written connection has none.
        """
        if name == "in_transaction":
            raise AttributeError(name)
        self._ask()

    @property
    def dialect(self) -> Any:
        """That of PostgreSQL."""
        return self._written.dialect

    def execution_options(self, **_: Any) -> SilentConnection:
        """The same connection."""
        return self

    def execute(self, statement: Any, parameters: Any = None, **_: Any) -> _Unread:
        """Write a statement down, once for each set of parameters."""
        sets = parameters if isinstance(parameters, Sequence) else [parameters]
        for each in sets:
            self._written.execute(self._with_values(statement, each) if each else statement)
        return _Unread(self._ask)

    def exec_driver_sql(self, statement: str, parameters: Any = None, **_: Any) -> _Unread:
        """Write a text down as it is."""
        if parameters:
            self._ask()
        self._output(f"{statement};")
        return _Unread(self._ask)

    def _run_ddl_visitor(self, visitor: Any, element: Any, **options: Any) -> None:
        """Write down what makes or drops an object. `checkfirst` asks whether the object is there.

        The statement is the one that is sent if it is missing.
        """
        if options.get("checkfirst"):
            self._asked(_LOOKS_FIRST)
        self._written._run_ddl_visitor(visitor, element, **options)  # noqa: SLF001 - its hook

    def _with_values(self, statement: ClauseElement, parameters: Any) -> Any:
        if not isinstance(parameters, Mapping):
            self._ask()
        if isinstance(statement, UpdateBase):
            return statement.values(**parameters)  # type: ignore[attr-defined]  # a DELETE has none
        if isinstance(statement, TextClause):
            return statement.bindparams(**parameters)  # takes the types from the values
        return statement.params(**parameters)

    def _ask(self) -> NoReturn:
        self._asked(_ASKS)
        raise AsksDatabaseError


class _Unread:
    """The result of a statement that was written down. Reading it is a question."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        #: Never returns.
        self._ask = ask

    def close(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        self._ask()

    def __iter__(self) -> Any:
        self._ask()

    def __bool__(self) -> bool:
        return bool(self._ask())

    def __len__(self) -> int:
        return int(self._ask())
