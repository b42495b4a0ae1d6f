"""What a running PostgreSQL is declared by: a team's own Alembic, or a first revision of it."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import MetaData
from sqlalchemy.types import NullType

from is_db_bootstrap.blueprint import AlembicEnvironment, Blueprint
from is_db_bootstrap.errors import AccessDenied, ConfigurationError
from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.postgres.alembic import engine
from is_db_bootstrap.stores.postgres.connection import connect, identifier
from is_db_bootstrap.stores.postgres.differences import Side
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing, errors
from is_db_bootstrap.stores.postgres.models_database import read_side
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA
from is_db_bootstrap.stores.postgres.revision_draft import Draft, DraftWriter, NewRevision
from is_db_bootstrap.stores.postgres.revisions import TABLE
from is_db_bootstrap.stores.postgres.scratch import at_head
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.models import Models
    from is_db_bootstrap.stores.postgres.models_database import ModelsUnmade

_SCHEMAS = """
SELECT nspname FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> ALL (%s) ORDER BY nspname
"""
_TABLES = """
SELECT nspname, relname FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND nspname = ANY (%s)
"""
_EXTENSIONS = """
SELECT extname, nspname FROM pg_catalog.pg_extension e
JOIN pg_catalog.pg_namespace n ON n.oid = extnamespace
WHERE nspname <> 'pg_catalog' ORDER BY extname
"""
_NOT_THEIRS = ["information_schema", SCHEMA]
_USUAL_SCHEMA = "public"
_MESSAGE = "what was there"
#: As many columns as a sentence names.
_NAMED = 5
_FILE_TEMPLATE = "%(rev)s"


def read_existing(url: StoreUrl, timing: Timing, request: Request) -> Existing:
    """The environment that was named or found, else a first revision of what is there.

    The revision is written and tried in scratch databases on the same server. Where the role may
    not make these, there is no revision, and that is said.
    """
    try:
        with connect(url, timing.connect_timeout_s) as connection, errors(str(url)):
            place = _Place.read(connection)
    except DatabaseMissing as exc:
        raise ConfigurationError(
            f"postgres: there is no database {url.database} at {url}.",
            hint="Name the application's database in the address.",
        ) from exc
    found = counted(place.tables, "table")
    if request.environment is not None:
        return Existing(
            declared={"alembic": AlembicEnvironment(request.environment)},
            found=found,
            guesses=[f"{request.environment} is taken for what made these tables."],
        )
    if place.version_tables:
        tables = ", ".join(place.version_tables)
        return Existing(
            found=found,
            unread=[f"{tables} is there: give the alembic.ini of the application with --alembic."],
        )
    if not place.tables:
        return Existing(found=found)
    try:
        return _first_revision(url, timing, request.blueprint, place)
    except AccessDenied as exc:
        unread = f"There is no first revision: {exc.message} {exc.hint}"
        return Existing(found=found, unread=[unread.strip()])
    except _UnknownTypes as exc:
        return Existing(found=found, unread=[f"There is no first revision. {exc}"])


class _UnknownTypes(Exception):
    """SQLAlchemy does not know the types of some columns, so no revision can be written."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The schemas and tables of a database, apart from the server's and ours."""

    schemas: tuple[str, ...]
    tables: int
    version_tables: tuple[str, ...]
    #: Extensions with their schemas.
    extensions: tuple[tuple[str, str], ...]

    @property
    def ground(self) -> list[tuple[str, str]]:
        """What the tables stand on, with what undoes it."""
        schemas = [identifier(each) for each in self.schemas if each != _USUAL_SCHEMA]
        made = [(f"CREATE SCHEMA IF NOT EXISTS {each}", f"DROP SCHEMA {each}") for each in schemas]
        for name, schema in self.extensions:
            create = (
                f"CREATE EXTENSION IF NOT EXISTS {identifier(name)} SCHEMA {identifier(schema)}"
            )
            made.append((create, f"DROP EXTENSION {identifier(name)}"))
        return made

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> _Place:
        rows = connection.execute(_SCHEMAS.encode(), [_NOT_THEIRS]).fetchall()
        schemas = tuple(row[0] for row in rows)
        tables = connection.execute(_TABLES.encode(), [list(schemas)]).fetchall()
        own = tuple(f"{schema}.{name}" for schema, name in tables if name == TABLE)
        extensions = tuple(connection.execute(_EXTENSIONS.encode()).fetchall())
        return cls(schemas, len(tables) - len(own), own, extensions)


def _first_revision(url: StoreUrl, timing: Timing, name: str, place: _Place) -> Existing:
    """A revision that makes what is there, tried in scratch databases."""
    revision = f"{name}_0001"
    unread: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        migrations = folder / "migrations"
        migrations.mkdir()
        draft_folder = folder / "draft"
        draft_folder.mkdir()
        blueprint = Blueprint(name, "being written", migrations=migrations)
        wanted = NewRevision(_MESSAGE, revision, _FILE_TEMPLATE)
        writer = _CopyWriter(blueprint, timing, wanted, draft_folder, unread.append, original=url)
        writer.models = _reflected(url, timing, place)
        writer.ground = place.ground
        with at_head(url, blueprint, timing, unread.append) as head:
            draft = writer.written(head)
        return _as_files(draft, migrations, place, revision, unread)


def _as_files(
    draft: Draft, migrations: Path, place: _Place, revision: str, unread: list[str]
) -> Existing:
    files: dict[str, str] = {}
    for path, text in draft.generated.items():
        files[f"migrations/{path.relative_to(migrations)}"] = text
    if draft.path is not None:
        files[f"migrations/{draft.path.name}"] = draft.path.read_text(encoding="utf-8")
    unread += [str(each) for each in draft.operations if each.by_hand or each.left_out]
    return Existing(
        files=files,
        found=counted(place.tables, "table"),
        unread=unread,
        next_steps=[f"is-db-bootstrap migrate stamp {revision} --blueprint {{folder}}"],
    )


def _reflected(url: StoreUrl, timing: Timing, place: _Place) -> MetaData:
    """The tables of all schemas, as SQLAlchemy reads them."""
    metadata = MetaData()
    found = engine(url, _USUAL_SCHEMA, timing)
    try:
        with found.connect() as connection, _without_warnings():
            for schema in place.schemas:
                named = None if schema == _USUAL_SCHEMA else schema
                metadata.reflect(connection, schema=named, views=False)
    finally:
        found.dispose()
    _refuse_unknown_types(metadata)
    return metadata


def _refuse_unknown_types(metadata: MetaData) -> None:
    """Raise `_UnknownTypes`, which names the columns whose types SQLAlchemy does not know."""
    columns = [each for table in metadata.tables.values() for each in table.columns]
    unknown = [f"{each.table}.{each.name}" for each in columns if isinstance(each.type, NullType)]
    if not unknown:
        return
    named = ", ".join(unknown[:_NAMED])
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    raise _UnknownTypes(
        f"SQLAlchemy does not know the type of {named}{more}. Write the revision by hand, or name "
        "a dump of the schema as the baseline (docs/how-to/existing-project.md)."
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """SQLAlchemy warns of what it does not read. Catalogues are compared afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(slots=True)
class _CopyWriter(DraftWriter):
    """Writes a revision that makes what is in the database `original`, which is only read."""

    original: StoreUrl = field(kw_only=True)

    def made_models(self, metadata: Models, head: StoreUrl) -> Side | ModelsUnmade:
        """What is in the original."""
        del metadata, head
        return read_side(self.original, self.timing)

    def compared(self, side: Side) -> Side:
        """All but what is ours."""
        objects = {schema: held for schema, held in side.objects.items() if schema != SCHEMA}
        definitions = {s: held for s, held in side.definitions.items() if s != SCHEMA}
        return Side(objects, definitions)
