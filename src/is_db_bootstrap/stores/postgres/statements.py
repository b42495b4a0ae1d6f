"""SQL statements and remarks in the text of a generated revision, beside Alembic's operations."""

from __future__ import annotations

import re
from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations import ops

#: What `op.execute` would take for a parameter: SQLAlchemy's own pattern of `text()`.
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")
#: Columns of a generated line of SQL, without the indent.
_WIDTH = 80


class Statement(ops.MigrateOperation):
    """A statement that is written as `op.execute(…)`."""

    def __init__(self, sql: str) -> None:
        self.sql = sql


class Remark(ops.MigrateOperation):
    """A comment line above the operation that it is about."""

    def __init__(self, text: str) -> None:
        self.text = text


@renderers.dispatch_for(Statement)
def render_statement(_: Any, statement: Statement) -> str:
    """The call of `op.execute`; several lines of SQL are one string a line."""
    sql = _PARAMETER.sub(r"\\:\1", statement.sql.strip())
    lines = sql.splitlines(keepends=True)
    if len(lines) == 1 and len(sql) <= _WIDTH:
        return f"op.execute({sql!r})"
    written = "\n".join(f"    {line!r}" for line in lines)
    return f"op.execute(\n{written}\n)"


@renderers.dispatch_for(Remark)
def render_remark(_: Any, remark: Remark) -> str:
    """The comment."""
    return f"# {remark.text}"
