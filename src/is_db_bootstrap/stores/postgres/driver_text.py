"""Text that a revision hands to the driver, by `op.get_bind().exec_driver_sql`.

psycopg takes a `%` in it for a parameter, also where no values go with it: it refuses `LIKE 'a%'`,
and makes `$1` of `%s`. asyncpg sends it as it stands, so a team that has used it has such text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from is_db_bootstrap.settings import StoreUrl

#: The option of an engine whose revisions were written for a driver that changes no text.
_AS_IT_STANDS = "is_db_bootstrap_text_as_it_stands"


def read_as_driver_of(url: StoreUrl, engine: Engine) -> None:
    """Let the text of revisions mean on `engine` what it means to the driver that `url` names."""
    engine.update_execution_options(**{_AS_IT_STANDS: "asyncpg" in url.scheme})


def send_what_has_no_values(engine: Engine) -> None:
    """Send text without values as it stands where a `%` in it can be no parameter.

    Text of which each `%` is doubled means what it means to psycopg, unless the address names
    asyncpg.
    """

    @event.listens_for(engine, "do_execute")
    def send(cursor: Any, text: str, values: Any, context: Any) -> bool | None:
        if values or context is None or context.compiled is not None:
            return None
        is_for_psycopg = "%" not in text.replace("%%", "")
        if is_for_psycopg and not context.execution_options.get(_AS_IT_STANDS):
            return None
        cursor.execute(text)
        return True
