"""A team's project as a generator of files: its own `alembic.ini`, `env.py` and revisions."""

from __future__ import annotations

import importlib
import sys
import textwrap
from contextlib import chdir
from pathlib import Path

from alembic import command
from alembic.config import Config

#: Opens a connection with a driver of its own and hands it to `run`.
SYNC = """
from sqlalchemy import create_engine, pool


def online(run):
    engine = create_engine(DATABASE, poolclass=pool.NullPool)
    with engine.connect() as connection:
        run(connection)
        connection.commit()
"""
ASYNC = """
import asyncio
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine


def online(run):
    async def main():
        engine = create_async_engine(DATABASE, poolclass=pool.NullPool)
        async with engine.connect() as connection:
            await connection.run_sync(run)
            await connection.commit()
        await engine.dispose()

    asyncio.run(main())
"""
_ENV = """
import os
from alembic import context
from sqlalchemy import text

DATABASE = os.environ["SHOP_DATABASE"]
OPTIONS = dict({options})
{online}

def run(connection):
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS meta"))
    connection.commit()
    context.configure(connection=connection, **OPTIONS)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
{offline}
else:
    online(run)
"""
_OFFLINE = """
context.configure(url=DATABASE, literal_binds=True, **OPTIONS)
with context.begin_transaction():
    context.run_migrations()
"""
_REVISION = '''"""{title}"""
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {before!r}
{more}


def upgrade():
{body}


def downgrade():
    pass
'''
#: What most projects here say to `context.configure`.
OPTIONS = 'version_table="shop_version", version_table_schema="meta"'


class TeamProject:
    """A folder with a project in it. `driver` is SQLAlchemy's name of a driver."""

    def __init__(self, folder: Path, url: str, driver: str = "psycopg") -> None:
        self.folder = folder
        self.url = url
        self.driver = driver
        self.ini()
        self.env()
        (folder / "is-db-bootstrap.toml").write_text('[postgres]\nalembic = "alembic.ini"\n')

    @property
    def address(self) -> str:
        """The address that `env.py` reads."""
        return self.url.replace("postgresql://", f"postgresql+{self.driver}://", 1)

    @property
    def toml(self) -> Path:
        """The file that is a blueprint by itself."""
        return self.folder / "is-db-bootstrap.toml"

    def ini(self, more: str = "") -> None:
        """Write `alembic.ini`, with `more` options."""
        text = (
            f"[alembic]\nscript_location = db\nprepend_sys_path = .\npath_separator = os\n{more}\n"
        )
        (self.folder / "alembic.ini").write_text(text)

    def ini_separator(self, name: str) -> None:
        """Let the lists of `alembic.ini` be separated in another way than by the system's."""
        path = self.folder / "alembic.ini"
        path.write_text(path.read_text().replace("separator = os", f"separator = {name}"))

    def env(self, options: str = OPTIONS, offline: str = _OFFLINE) -> None:
        """Write `env.py`, whose `context.configure` has `options`."""
        online = ASYNC if self.driver == "asyncpg" else SYNC
        body = textwrap.indent(textwrap.dedent(offline).strip(), "    ")
        self.write("db/env.py", _ENV.format(options=options, online=online, offline=body))

    def write(self, name: str, text: str) -> None:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def revision(
        self,
        revision: str,
        before: object,
        body: str,
        *,
        place: str = "db/versions",
        more: str = "",
    ) -> None:
        """Write a revision whose upgrade is `body`."""
        text = _REVISION.format(
            title=f"does {revision}",
            revision=revision,
            before=before,
            more=more,
            body=textwrap.indent(textwrap.dedent(body).strip() or "pass", "    "),
        )
        self.write(f"{place}/{revision}.py", text)

    def stock(self, act: str, *arguments: str, **options: bool) -> None:
        """Run a command of the stock Alembic in this process, as from the folder."""
        config = Config(self.folder / "alembic.ini")
        path = list(sys.path)
        with chdir(self.folder):
            importlib.invalidate_caches()  # `.` on the path was another folder before
            try:
                getattr(command, act)(config, *arguments, **options)
            finally:
                sys.path[:] = path
