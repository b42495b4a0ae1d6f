"""Running revisions with Alembic from code. Imported only when there is something to apply."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from alembic import command
from alembic.autogenerate.render import _repr_type
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext, RevisionStep
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import MetaData, TypeDecorator, event, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from is_db_bootstrap import files
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.guests import GuestFailed
from is_db_bootstrap.settings import StoreUrl, address_elsewhere
from is_db_bootstrap.stores.postgres import lineage_table
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.connection import NOWHERE, identifier
from is_db_bootstrap.stores.postgres.declared_revisions import chain_of
from is_db_bootstrap.stores.postgres.driver_text import read_as_driver_of
from is_db_bootstrap.stores.postgres.errors import errors
from is_db_bootstrap.stores.postgres.half_done import StepWatch, Watch, WorkingConnection
from is_db_bootstrap.stores.postgres.kind import KIND
from is_db_bootstrap.stores.postgres.named_types import is_made, named_type, place_of
from is_db_bootstrap.stores.postgres.reached import OneServer
from is_db_bootstrap.stores.postgres.revision_folder import draft_of
from is_db_bootstrap.stores.postgres.revisions import TABLE
from is_db_bootstrap.stores.postgres.search_path import Found, leads_nowhere
from is_db_bootstrap.stores.postgres.session_roles import SessionRoles
from is_db_bootstrap.stores.postgres.team_environment import read_environment
from is_db_bootstrap.stores.postgres.work_engine import work_engine

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Timing
    from is_db_bootstrap.stores.postgres.record_place import RecordPlace
    from is_db_bootstrap.stores.postgres.revision_contents import Contents

#: Seconds that a new process may take to import a module of the application.
_IMPORT_S = 60.0
#: A type that a generated revision defines itself.
_CLASS = '''

class {name}(sa.types.UserDefinedType):
    """What {shown} was for PostgreSQL when this revision was written."""

    cache_ok = True

    def get_col_spec(self, **_):
        return {sql!r}

'''
_NOWHERE_PARTS = {
    "host": "127.0.0.1",
    "hostaddr": "127.0.0.1",
    "port": "1",
    "database": "nowhere",
    "username": "nobody",
}
#: The same for addresses of MariaDB and SQLite, behind their schemes.
_NOWHERE_ON_OTHER_ENGINES = {
    "mysql": "//nobody@127.0.0.1:1/nowhere",
    "mariadb": "//nobody@127.0.0.1:1/nowhere",
    "sqlite": "////dev/null/nowhere.db",
}


def nowhere() -> AbstractContextManager[None]:
    """Let the variables of the environment name addresses where nobody listens, meanwhile.

    So a revision that takes its address from them reaches no database by itself.
    """
    return address_elsewhere(KIND, NOWHERE, _NOWHERE_PARTS, others=_NOWHERE_ON_OTHER_ENGINES)


def engine(
    url: StoreUrl,
    schema: str | None,
    timing: Timing,
    opened: Callable[[psycopg.Connection[Any]], None] = lambda _: None,
    watch: Watch | None = None,
    *,
    one_server: OneServer | None = None,
) -> Engine:
    """An engine whose connections we open ourselves, so that every form of address works.

    Their search path begins with `schema`, if there is one. The first one is opened at once.
    `opened` is told of each. All of them reach `one_server`, if it is given.

    All of them are watched by `watch` while a revision runs.
    """
    sessions = SessionRoles(url, schema, timing, one_server or OneServer())

    def open_session() -> WorkingConnection:
        connection = sessions.working()
        opened(connection)
        return connection

    found = work_engine(open_session)
    read_as_driver_of(url, found)

    @event.listens_for(found, "checkout")
    def watched(connection: WorkingConnection, *_: Any) -> None:
        connection.watch = watch

    return found


def watch_of(connection: Connection) -> Watch:
    """The watch of a connection of `engine`.

    One that marks nothing for a connection of other means.
    """
    found = getattr(connection.connection.driver_connection, "watch", None)
    return found if isinstance(found, Watch) else Watch()


def watch_steps(
    ctx: MigrationContext,
    watch: StepWatch,
    before_first: Callable[[RevisionStep], None] = lambda _: None,
    before_all: Callable[[], None] = lambda: None,
) -> None:
    """Let every revision that `ctx` is going to run be watched.

    `before_first` is called with the first one, before it runs. `before_all` is called before that,
    also when there is none.
    """
    steps = ctx._migrations_fn  # noqa: SLF001 - Alembic tells of a step only when it has ended

    def followed(heads: Any, context: MigrationContext) -> Iterator[Any]:
        begun = False
        before_all()
        for step in steps(heads, context) if steps else ():
            watch.left = False
            if isinstance(step, RevisionStep):
                if not begun:
                    before_first(step)
                begun = True
                step.migration_fn = watched(step, context, watch)
            yield step

    ctx._migrations_fn = followed  # noqa: SLF001 - the same


def watched(step: RevisionStep, ctx: MigrationContext, watch: StepWatch) -> Callable[..., Any]:
    """What a step runs, so that `watch` sees it."""
    act = step.migration_fn
    name = f"{'upgrade' if step.is_upgrade else 'downgrade'} {step.revision.revision}"

    @wraps(act)  # Alembic logs its name
    def run(**given: Any) -> Any:
        connection = ctx.connection
        if connection is None or ctx.as_sql:
            return act(**given)
        began = connection.get_transaction()
        if isinstance(watch, Watch):
            watch.begin_on(connection.connection.driver_connection)
        with watch.running(name):
            result = act(**given)
        watch.left = connection.get_transaction() is not began
        return result

    return run


def commit_record(ctx: MigrationContext, watch: StepWatch) -> None:
    """Commit the row of a step that has left the transaction that Alembic would have committed."""
    if watch.left and ctx.connection is not None:
        ctx.connection.commit()


def config(blueprint: Blueprint, schema: str, connection: Connection | None = None) -> Config:
    """The configuration of `migrations/alembic.ini`, for revisions of any folder."""
    team = blueprint.alembic
    found = Config() if team is None else read_environment(team).trial_config()
    found.set_main_option("script_location", _escaped(files.root() / "migrations"))
    found.attributes.update(blueprint=blueprint, schema=schema, connection=connection)
    if team is not None:
        return found
    found.set_main_option("path_separator", "os")
    draft = draft_of(blueprint.migrations) if blueprint.migrations else None
    places = [blueprint.migrations, *([draft.parent] if draft else [])]
    found.set_main_option("version_locations", os.pathsep.join(map(_escaped, places)))
    return found


def _escaped(path: Path | None) -> str:
    return str(path).replace("%", "%%")


def downgrade(engine: Engine, blueprint: Blueprint, schema: str, revision: str) -> bool:
    """Undo `revision` itself, in one transaction. False when that had been done meanwhile."""
    return _ran(engine, blueprint, schema, undo, revision)


def undo(wanted: Config, *revisions: str) -> None:
    """Undo `revisions`, the newest first, one transaction a revision.

    Alembic's own command is told where to end. Below a merge, no revision names that: there are two
    heads. One that is not applied is passed over.
    """
    script = ScriptDirectory.from_config(wanted)
    chain = chain_of(wanted.attributes["blueprint"])

    def steps(heads: Any, _: Any) -> list[Any]:
        found: list[Any] = []
        left = set(chain.until(head for head in heads if head in chain.parents))
        for revision in revisions:
            if revision not in left:
                continue
            left.remove(revision)
            if later := [r for r in sorted(left) if revision in chain.parents[r]]:
                raise CommandError(f"{', '.join(later)} goes on from {revision}")
            down = RevisionStep(
                script.revision_map, script.get_revision(revision), is_upgrade=False
            )
            found.append(down)
        return found

    with EnvironmentContext(wanted, script, fn=steps, destination_rev=revisions[-1]):
        script.run_env()


def upgrade_to(wanted: Config, *heads: str) -> None:
    """Apply the revisions up to `heads`, of which there are several below a merge."""
    for head in heads:
        command.upgrade(wanted, head)


def stamp(engine: Engine, blueprint: Blueprint, schema: str, revision: str) -> bool:
    """Record `revision` as the schema's, whatever is in it; False when it was recorded already."""
    return _ran(engine, blueprint, schema, command.stamp, revision)


def write_revision(
    engine: Engine | None,
    blueprint: Blueprint,
    message: str,
    revision: str,
    file_template: str,
    *,
    folder: Path,
    contents: Contents | None = None,
    models: MetaData | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Path | None:
    """Write the next revision file into `folder`, and return its path.

    With an `engine`, which leads to a database at head, it has what autogenerate finds between
    models and database, as `contents` arranges it; else it is empty. The models are those of the
    blueprint, unless some are given. The path is None when there is
    nothing to write. `warn` is told of each type that the revision cannot import. Raises
    `ConfigurationError` for models that cannot be loaded or compared.
    """

    def only_with_changes(context: Any, _: Any, directives: list[Any]) -> None:
        if contents is None or not directives:
            return
        contents.fill(context, directives[0])
        if directives[0].upgrade_ops.is_empty():
            directives[:] = []

    with (
        engine.connect() if engine else nullcontext() as connection,
        failures_told(blueprint),
        running_alembic(),
    ):
        wanted = config(blueprint, "public", connection)
        wanted.cmd_opts = Namespace(quiet=True)  # Alembic would print the name of the file
        told = dict[str, None]()
        wanted.attributes["type_told"] = told.setdefault
        wanted.attributes["compares_models"] = engine is not None
        wanted.attributes["models"] = models
        wanted.attributes["created_types"] = contents.created_types if contents else ()
        wanted.set_main_option("file_template", file_template.replace("%", "%%"))
        places = os.pathsep.join([_escaped(blueprint.migrations), _escaped(folder)])
        wanted.set_main_option("version_locations", places)
        made = command.revision(
            wanted,
            message,
            autogenerate=engine is not None,
            rev_id=revision,
            version_path=str(folder),
            process_revision_directives=only_with_changes,
        )
    for sentence in told:
        warn(sentence)
    scripts = [script for script in (made if isinstance(made, list) else [made]) if script]
    return Path(scripts[0].path) if scripts else None


@contextmanager
def failures_told(blueprint: Blueprint) -> Iterator[None]:
    """Make a `ConfigurationError` of what models and revisions raise.

    It has the file and the line of the blueprint's own code.
    """
    try:
        yield
    except (CommandError, GuestFailed) as exc:
        raise ConfigurationError(f"{blueprint.name}: {exc}.") from exc
    except (BootstrapError, psycopg.Error, DBAPIError):
        raise
    except Exception as exc:
        raise ConfigurationError(
            f"{blueprint.name}: {type(exc).__name__}: {exc}{_place(exc, blueprint)}."
        ) from exc


def _place(exc: BaseException, blueprint: Blueprint) -> str:
    """Where in code that is neither ours nor a library's the error came up, in brackets.

    Empty if nowhere.
    """
    homes = _homes(blueprint)
    frames = traceback.extract_tb(exc.__traceback__)
    own = [frame for frame in frames if any(_is_below(frame.filename, home) for home in homes)]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _homes(blueprint: Blueprint) -> list[Path]:
    """The folders of a blueprint's own code, or those of a team's revisions."""
    if blueprint.alembic is not None:
        environment = read_environment(blueprint.alembic)
        locations = map(Path, environment.version_locations)
        return [environment.ini.parent, environment.folder, *locations]
    return [blueprint.migrations.parent] if blueprint.migrations else []


def _is_below(file: str, home: Path) -> bool:
    """Whether a file is below `home`, and not in a virtual environment that is there too."""
    path = Path(file)
    return path.is_relative_to(home) and "site-packages" not in path.relative_to(home).parts


def render_type(kind: str, item: Any, context: Any) -> Any:
    """How a generated revision writes a type of another package: Alembic's hook `render_item`.

    A type of SQLAlchemy stays as it is, also one that SQLAlchemy decorates, such as `Interval`.
    A type that the application decorates is written as the type that PostgreSQL gets, so the
    revision needs no module of the application. Any other type is written with the import of its
    module, if a new process can import that from anywhere. Else, as with the models in the
    blueprint's own folder, the revision gets a type of its own.

    An enum or a domain that the database has, or that the revision creates by a statement of its
    own, is not created again with a table.
    """
    module = type(item).__module__
    if kind == "type" and isinstance(item, types.Enum | postgresql.DOMAIN):
        return _known_type(item, context)
    if kind != "type" or module.startswith("sqlalchemy."):
        return False
    if isinstance(item, TypeDecorator):
        return _repr_type(_public(item.load_dialect_impl(context.dialect)), context)
    if _is_importable(module, type(item).__name__):
        context.imports.add(f"import {module}")
        return False
    return _own_type(item, context)


def render_team_type(kind: str, item: Any, context: Any) -> Any:
    """How a team's revision writes a type, where the team's own hook leaves it to Alembic.

    That is as Alembic has it, with the import of the type's module, unless `env.py` says how
    modules of types are called. An enum or a domain is written as by `render_type`.
    """
    if kind != "type":
        return False
    if isinstance(item, types.Enum | postgresql.DOMAIN):
        return _known_type(item, context)
    module = type(item).__module__
    if not module.startswith("sqlalchemy.") and not context.opts["user_module_prefix"]:
        context.imports.add(f"import {module}")
    return False


def _known_type(item: types.Enum | postgresql.DOMAIN, context: Any) -> Any:
    """How a type is written that is there when the column gets it. False for every other one."""
    named = named_type(item)
    if named is None or context.connection is None or not getattr(item, "create_type", True):
        return False
    is_created = place_of(named) in context.opts["created_types"]
    if not is_created and not is_made(context.connection, named):
        return False
    if isinstance(named, postgresql.DOMAIN):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        schema = f", schema={named.schema!r}" if named.schema else ""
        base = _repr_type(named.data_type, context)
        return f"postgresql.DOMAIN({named.name!r}, {base}{schema}, create_type=False)"
    known = postgresql.ENUM(*named.enums, name=named.name, schema=named.schema, create_type=False)
    return _repr_type(known, context)


@cache
def _is_importable(module: str, name: str) -> bool:
    """Whether a new process that is started elsewhere finds `name` in `module`."""
    code = "import importlib, sys; getattr(importlib.import_module(sys.argv[1]), sys.argv[2])"
    with tempfile.TemporaryDirectory() as elsewhere, suppress(subprocess.TimeoutExpired):
        found = subprocess.run(  # noqa: S603 - our own interpreter and a module's name
            [sys.executable, "-c", code, module, name],
            cwd=elsewhere,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_S,
            check=False,
        )
        return found.returncode == 0
    return False


def _own_type(item: TypeEngine[Any], context: Any) -> str:
    """A type of the application, written so that the revision needs nothing but SQLAlchemy.

    That is the type of SQLAlchemy of which it is a subclass, if PostgreSQL gets the same from it.
    Else the revision defines a class of its own. Either is told.
    """
    kind = type(item)
    shown = f"{kind.__module__}.{kind.__qualname__}"
    sql = item.compile(dialect=context.dialect)
    plain = item if isinstance(item, types.UserDefinedType) else _public(item)
    if type(plain) is not kind and plain.compile(dialect=context.dialect) == sql:
        written = str(_repr_type(plain, context))
    else:
        name = "".join(word.capitalize() for word in re.findall(r"[^\W_]+", sql)) + "Type"
        context.imports.add(_CLASS.format(name=name, shown=shown, sql=sql))
        written = f"{name}()"
    context.opts["type_told"](
        f"The revision has {written} for {shown}, which cannot be imported outside of its folder: "
        f"PostgreSQL gets {sql} from both."
    )
    return written


def _public(found: TypeEngine[Any]) -> TypeEngine[Any]:
    """The type under a name that a revision can import.

    A dialect has classes of its own for some.
    """
    for kind in type(found).__mro__:
        if kind is getattr(postgresql, kind.__name__, None) or kind is getattr(
            types, kind.__name__, None
        ):
            return found if kind is type(found) else found.adapt(kind)
    return found


def offline_sql(blueprint: Blueprint, schema: str, span: str, *, after: Sequence[str] = ()) -> str:
    """The SQL that an upgrade over `span` (`TO` or `FROM:TO`) would run, without a server.

    `after` stands for `FROM` where a schema records several revisions, between the branches of a
    merge.

    Meanwhile the variables of the environment name an address where nobody listens, so that no
    revision reaches a database by itself. Raises `ConfigurationError` for a revision that needs a
    server, such as one that reads through `op.get_bind()`.
    """
    found = config(blueprint, schema)
    found.output_buffer = text = io.StringIO()
    found.attributes["after"] = list(after)
    try:
        with running_alembic(), nowhere():
            command.upgrade(found, span, sql=True)
    except (BootstrapError, CommandError, GuestFailed) as exc:
        raise ConfigurationError(f"{blueprint.name}: {exc}.") from exc
    except Exception as exc:
        place = _place(exc, blueprint)
        if not place:
            raise
        raise ConfigurationError(
            f"{blueprint.name}: a revision cannot be written as SQL without a server: "
            f"{type(exc).__name__}: {exc}{place}.",
            hint="It reads through op.get_bind(), or runs code that needs a database, "
            "which it cannot reach meanwhile: apply it with `migrate upgrade`.",
        ) from exc
    return text.getvalue()


def refuse_unwritten_baseline(blueprint: Blueprint, span: str) -> None:
    """Refuse SQL for an empty database that a baseline has to fill before.

    Raises `ConfigurationError` for a `span` without `FROM`, if the blueprint declares a baseline.
    """
    begins = span.partition(":")[0] if ":" in span else ""
    if blueprint.baseline is None or begins not in {"", "base"}:
        return
    raise ConfigurationError(
        f"{blueprint.name}: an empty database is filled by the baseline "
        f"{blueprint.baseline.source} first, which is not written as SQL.",
        hint="Fill the database with `migrate upgrade`, or by hand and `migrate stamp`. Then say "
        "from which revision the SQL goes on, as in `migrate sql FROM:head`.",
    )


def _ran(
    engine: Engine, blueprint: Blueprint, schema: str, act: Callable[..., None], revision: str
) -> bool:
    """Run an Alembic command; whether it changed anything.

    Each transaction begins by locking the version table, and Alembic reads it only then: a backend
    that outlived its killed client, or a second run, is waited for and its work recognised.
    """
    ran: list[Any] = []
    with engine.connect() as connection:

        @event.listens_for(connection, "begin")
        def lock_version_table(begun: Connection) -> None:
            if getattr(begun.connection.driver_connection, "autocommit", False):
                return  # an autocommit_block locks nothing
            begun.exec_driver_sql(
                f"LOCK TABLE {identifier(schema, TABLE)} IN SHARE ROW EXCLUSIVE MODE",
                execution_options={"no_parameters": True},  # a `%` in a name is none
            )

        with running_alembic():
            wanted = config(blueprint, schema, connection)
            wanted.attributes["applied"] = ran.append
            act(wanted, revision)
    return bool(ran)


def create_version_table(
    connection: psycopg.Connection[Any], target: str, place: RecordPlace
) -> None:
    """Create the version table as Alembic would, and where this role may, our table of lineages.

    The schema of the version table is made if it is missing. Raises `ConfigurationError` where no
    schema is named, and the search path names none that is there. `IF NOT EXISTS` is not atomic,
    so a faster run is no error.
    """
    statement = place.create_statement
    with errors(target, place.table):
        try:
            _create(connection, statement)
        except psycopg.errors.InvalidSchemaName as exc:
            if place.schema is None:
                raise leads_nowhere(Found.by(connection)) from exc
            _create(connection, f"CREATE SCHEMA IF NOT EXISTS {identifier(place.schema or '')}")
            _create(connection, statement)
    with errors(target, lineage_table.PLACE):
        lineage_table.make(connection)


def _create(connection: psycopg.Connection[Any], statement: str) -> None:
    with suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateTable):
        connection.execute(statement.encode())
