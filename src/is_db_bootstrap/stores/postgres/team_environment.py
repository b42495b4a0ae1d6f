"""A team's own Alembic environment: its `alembic.ini`, its revisions, and what its `env.py` says.

Everything that Alembic's configuration can say holds, because Alembic itself reads it: several
folders, recursive ones, branches, labels, dependencies, revisions whose ids are computed.

What `context.configure` is given is taken from the offline branch of `env.py`. That branch is run
as `alembic upgrade --sql` would run it, but no revision is run, nothing is written, and no
connection may be opened. The online branch is run by `team_run` only.
"""

from __future__ import annotations

import io
import logging
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory
from alembic.script.revision import RevisionError, RevisionMap
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import Pool

from is_db_bootstrap.blueprint import AlembicEnvironment
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.file_digest import digest_of
from is_db_bootstrap.stores.postgres.guest_threads import GuestThreads
from is_db_bootstrap.stores.postgres.record_place import RecordPlace
from is_db_bootstrap.stores.postgres.revisions import TABLE, Chain

#: Options of Alembic's configuration that are one path.
_PATH = "script_location"
#: Options of Alembic's configuration that are several paths, by the function that splits them.
_PATHS = ("version_locations", "prepend_sys_path")
#: The option that has the address.
ADDRESS = "sqlalchemy.url"
#: An address where nobody listens.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
#: Options of `context.configure` that our own environment gives itself.
_OURS = {
    "as_sql",
    "literal_binds",
    "on_version_apply",
    "process_revision_directives",
    "starting_rev",
    "tag",
    "transaction_per_migration",
    "transactional_ddl",
    "version_table",
    "version_table_schema",
}
#: Options that are of no use where revisions are run.
_OF_COMPARISON = {
    "compare_server_default",
    "compare_type",
    "include_name",
    "include_object",
    "include_schemas",
    "render_item",
    "template_args",
}
_OFFLINE_HINT = (
    "Let env.py call context.configure in its offline branch with the options of its online "
    "branch, or name the table in the settings: version_table, and version_table_schema if it "
    "has one, beside alembic in [postgres]."
)
#: The online branch may not fail: it may need no argument, or take another way.
_FAILED_OFFLINE_HINT = (
    "If only `alembic upgrade --sql` fails so, give it the arguments that it needs: x, beside "
    "alembic in [postgres]. Or name version_table and version_table_schema there, and it is not "
    "asked."
)
#: How Flask begins what it raises where `current_app` is used without an application (globals.py).
_NO_APPLICATION = "outside of application context"
#: What an `env.py` of Flask-Migrate needs.
_FLASK_HINT = (
    "It asks Flask for the application, which only the command `flask` makes. Let env.py make it "
    "before it uses current_app: import your app and `has_app_context` of flask, then `if not "
    "has_app_context(): app.app_context().push()`. docs/how-to/existing-project.md has the lines."
)


@dataclass(frozen=True, slots=True)
class Captured:
    """What `context.configure` of an `env.py` was given.

    `version_table_schema` is None where the search path decides. `options` has every option by its
    name, such as `include_object`. `driver` is that of the address, empty when there is none.
    `arguments` are what `context.run_migrations` was given, which every revision gets.
    """

    version_table: str = TABLE
    version_table_schema: str | None = None
    transaction_per_migration: bool = False
    options: Mapping[str, Any] | None = None
    driver: str = ""
    arguments: Mapping[str, Any] | None = None

    @property
    def place(self) -> RecordPlace:
        """The version table, as Alembic makes it."""
        has_key = bool((self.options or {}).get("version_table_pk", True))
        return RecordPlace(self.version_table_schema, self.version_table, has_key)

    @property
    def running_options(self) -> Mapping[str, Any]:
        """The options that concern what a revision does, such as the naming of constraints."""
        options = self.comparing_options
        return {name: value for name, value in options.items() if name not in _OF_COMPARISON}

    @property
    def comparing_options(self) -> Mapping[str, Any]:
        """The options that concern what autogenerate compares and writes."""
        options = self.options or {}
        return {name: value for name, value in options.items() if name not in _OURS}


def driver_named(address: str | URL) -> str:
    """SQLAlchemy's name of the driver that an address of PostgreSQL asks for.

    An address without one gets that of this release of SQLAlchemy. Empty for what is no address of
    PostgreSQL, such as the example in a new `alembic.ini`.
    """
    try:
        found = make_url(address)
        if found.get_backend_name() != "postgresql":
            return ""
        return str(found.get_dialect().driver)
    except (ArgumentError, ImportError):
        return ""


class _OfflineOnlyError(BaseException):
    """An `env.py` opens a connection although it was asked for its offline branch.

    No `Exception`, because an `env.py` may catch those and go on.
    """


#: Each file of an environment, and when it was changed.
_Stamp = frozenset[tuple[Path, int]]


class TeamEnvironment:
    """What an `alembic.ini` leads to. Reading it runs the team's revisions' modules as guests.

    `known` is the environment of another run, whose files are the same. Only `x` differs, which
    concerns `env.py` and no revision. Raises `ConfigurationError`, with file and line, for what
    Alembic cannot read.
    """

    def __init__(self, declared: AlembicEnvironment, known: TeamEnvironment | None = None) -> None:
        self.declared = declared
        self.ini = declared.ini
        with self._reading():
            script = self._script()
        #: The folder of `env.py`, where a catalogue lies.
        self.folder = Path(script.dir)
        #: What `env.py` configures, or why that cannot be told. Who asks for the revisions only
        #: does not need it.
        self._captured: Captured | ConfigurationError
        try:
            self._captured = self._captured_in_settings() or self._captured_offline(script)
        except ConfigurationError as exc:
            self._captured = exc
        # Only now, because an env.py may have told `context.script` other folders.
        with self._reading():
            self._script()  # puts prepend_sys_path on the search path again
            self.scripts: tuple[Script, ...] = known.scripts if known else _loaded(script)
            #: The folders of the revisions.
            self.version_locations = folders_of(script)
        self.chain: Chain = known.chain if known else _chain_of(self.scripts, self.ini)
        if not self.scripts:
            raise self._no_revisions()

    # --- what Alembic's configuration says

    def config(self) -> Config:
        """The configuration as the command `alembic` would have it in the folder of the file."""
        found = Config(
            str(self.ini),
            toml_file=str(self.ini.with_name("pyproject.toml")),
            ini_section=self.declared.section,
            stdout=io.StringIO(),
            cmd_opts=Namespace(
                x=list(self.declared.x),
                name=self.declared.section,
                config=str(self.ini),
                raiseerr=True,
                verbose=False,
                quiet=False,
                autogenerate=True,  # hooks of an env.py ask whether they are to do something
            ),
        )
        if not found.file_config.has_section(self.declared.section):
            raise ConfigurationError(
                f"{self.ini} has no section [{self.declared.section}].",
                hint="Name the right one: section, beside alembic in [postgres].",
            )
        if not found.get_alembic_option(_PATH):
            raise self._no_script_location()
        self._make_absolute(found)
        return found

    def _no_script_location(self) -> ConfigurationError:
        place = "%(here)s" if (self.ini.parent / "env.py").is_file() else "the folder of env.py"
        return ConfigurationError(
            f"{self.ini} does not say where env.py is: it has no script_location.",
            hint=f"Write into its section [{self.declared.section}]: script_location = {place}. "
            "Flask-Migrate gives it in code only, so stock alembic misses it too: "
            "docs/how-to/existing-project.md has the lines that it needs.",
        )

    def _make_absolute(self, config: Config) -> None:
        """Let relative paths be relative to the ini file, whatever the working directory is.

        A path that is there in the working directory only is left as it is: teams name their file
        from the root of a repository too.
        """
        if where := config.get_alembic_option(_PATH):
            config.set_main_option(_PATH, _escaped(self._absolute(str(where))))
        for name in _PATHS:
            found = (
                config.get_version_locations_list()
                if name == "version_locations"
                else config.get_prepend_sys_paths_list()
            )
            if found:
                config.set_main_option(
                    name, "\n".join(_escaped(self._absolute(each)) for each in found)
                )
        # From now on all lists are separated as we have written them: a folder in a package has a
        # colon in it, which is the system's separator.
        config.set_main_option("path_separator", "newline")

    def _absolute(self, place: str) -> str:
        is_resource = ":" in place and not Path(place).drive
        beside = self.ini.parent / place
        if Path(place).is_absolute() or is_resource or not beside.exists():
            return place
        return str(beside.resolve())

    def _script(self) -> ScriptDirectory:
        return ScriptDirectory.from_config(self.config())

    def trial_config(self) -> Config:
        """The configuration with which our own environment runs these revisions.

        A revision that asks for an option or an argument gets what it gets from the command
        `alembic`, but for the address: `sqlalchemy.url` leads nowhere.
        """
        found = self.config()
        folders = map(_escaped, map(str, self.version_locations))
        found.set_main_option("version_locations", "\n".join(folders))
        found.set_main_option(ADDRESS, NOWHERE)
        captured = self.captured()
        place = (captured.version_table_schema, captured.version_table)
        found.attributes.update(
            place=place,
            options=captured.running_options,
            arguments=captured.arguments or {},
        )
        return found

    def with_draft(self, path: Path) -> TeamEnvironment:
        """The environment with one revision more, which lies in a folder that nobody else reads."""
        found = copy(self)
        with self._reading():
            script = self._script()
            draft = Script._from_path(script, path)  # noqa: SLF001 - as Alembic reads a folder
        if draft is None:
            raise ConfigurationError(f"{path} is no revision.")
        found.scripts = (*self.fresh_scripts(), draft)
        found.version_locations = [*self.version_locations, path.parent]
        found.chain = _chain_of(found.scripts, self.ini)
        return found

    def fresh_scripts(self) -> Iterator[Script]:
        """The revisions, which know nothing yet of those that go on from them.

        A map of revisions writes that into them, so two maps that differ need two sets.
        """
        for each in self.scripts:
            yield Script(each.module, each.revision, each.path)

    @property
    def driver(self) -> str:
        """SQLAlchemy's name of the driver that `env.py` uses, as far as it says so. Else empty."""
        if self.declared.driver:
            return self.declared.driver
        captured = "" if isinstance(self._captured, Exception) else self._captured.driver
        return captured or driver_named(self.config().get_main_option(ADDRESS) or "")

    def script(self, config: Config) -> ScriptDirectory:
        """The folder of scripts with the revisions that were read already."""
        found = ScriptDirectory.from_config(config)
        found.revision_map = RevisionMap(lambda: iter(self.scripts))
        return found

    def stamp(self) -> _Stamp:
        """The state of the files from which this was read."""
        files = [self.ini, self.ini.with_name("pyproject.toml"), self.folder / "env.py"]
        for place in self.version_locations:
            files += place.rglob("*.py")
        return frozenset((path, path.stat().st_mtime_ns) for path in files if path.is_file())

    # --- what env.py says

    def captured(self) -> Captured:
        """What `context.configure` is given, from the settings or from the offline branch.

        Raises `ConfigurationError` when neither says it.
        """
        if isinstance(self._captured, ConfigurationError):
            raise self._captured
        return self._captured

    def _captured_in_settings(self) -> Captured | None:
        table, schema = self.declared.version_table, self.declared.version_table_schema
        if not table and not schema:
            return None
        return Captured(table or TABLE, schema or None)

    def _captured_offline(self, script: ScriptDirectory) -> Captured:
        config = self.config()
        found: list[Captured] = []
        try:
            with (
                self._reading(),
                _no_connections(),
                _offline_environment(config, script, found),
            ):
                self._script()  # puts prepend_sys_path on the search path again
                script.run_env()
        except _NeedsConnectionError:
            if not found:
                raise self._no_offline("opens a connection in its offline branch") from None
        except ConfigurationError as exc:
            # Where `alembic upgrade --sql` fails, `alembic upgrade` may succeed.
            message = f"env.py fails in its offline branch, as in `alembic upgrade --sql`. {exc}"
            hint = _FLASK_HINT if _lacks_application(exc) else _FAILED_OFFLINE_HINT
            raise ConfigurationError(message, hint=hint) from exc
        if not found:
            raise self._no_offline("does not call context.configure in its offline branch")
        tables = {(each.version_table, each.version_table_schema) for each in found}
        if len(tables) > 1:
            named = ", ".join(sorted(".".join(filter(None, (s, t))) for t, s in tables))
            raise ConfigurationError(
                f"{self._env} configures several version tables: {named}.",
                hint="One run concerns one version table. Name one by a section or by x.",
            )
        return found[0]

    @property
    def _env(self) -> str:
        return f"{self.folder / 'env.py'}"

    def _no_offline(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"{self._env} {what}.", hint=_OFFLINE_HINT)

    def _no_revisions(self) -> ConfigurationError:
        looked = ", ".join(map(str, self.version_locations))
        return ConfigurationError(
            f"{self.ini} leads to no revision. Looked in {looked}.",
            hint="Name their folders in alembic.ini: version_locations. The first revision of a "
            "new application is made by alembic revision.",
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Run user code while something is read. Raises `ConfigurationError` for what it raises."""
        try:
            with running_alembic(), as_before(), strict_guest():
                yield
        except BootstrapError:
            raise
        except GuestFailed as exc:
            cause = exc.__cause__
            if isinstance(cause, _OfflineOnlyError):
                raise _NeedsConnectionError from exc
            if isinstance(cause, CommandError | RevisionError):
                said = str(cause).rstrip(".")
                raise ConfigurationError(f"{self.ini}: {said}.") from exc
            raise ConfigurationError(f"{self.ini}: {exc}.") from exc


def _lacks_application(failure: BaseException) -> bool:
    """Whether an `env.py` asks Flask for an application, which only the command `flask` makes."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, RuntimeError) and _NO_APPLICATION in str(cause):
            return True
        cause = cause.__cause__
    return False


class _NeedsConnectionError(Exception):
    """An `env.py` has tried to open a connection in its offline branch."""


#: The environments that were read in this process, each with the state of its files then.
_read: dict[AlembicEnvironment, tuple[TeamEnvironment, _Stamp]] = {}


#: The environment of a file, with a revision that counts as one of its own and lies elsewhere.
_DRAFTED: ContextVar[Mapping[Path, TeamEnvironment]] = ContextVar(
    "drafted", default=MappingProxyType({})
)


@contextmanager
def with_team_draft(declared: AlembicEnvironment, path: Path) -> Iterator[None]:
    """Let the revision `path` count as one of an environment, in whose folders nothing is written.

    The arguments of `declared` hold for every environment of its file meanwhile.
    """
    drafted = read_environment(declared).with_draft(path)
    token = _DRAFTED.set({**_DRAFTED.get(), declared.ini: drafted})
    try:
        yield
    finally:
        _DRAFTED.reset(token)


def read_environment(declared: AlembicEnvironment) -> TeamEnvironment:
    """The environment, read once in a process as long as none of its files changes."""
    known = _read.get(declared)
    drafted = _DRAFTED.get().get(declared.ini)
    if drafted is not None:
        return drafted
    if known is not None and known[0].stamp() == known[1]:
        return known[0]
    plain = replace(declared, x=())
    if declared == plain:
        found = TeamEnvironment(declared)
    else:
        found = TeamEnvironment(declared, read_environment(plain))
    _read[declared] = found, found.stamp()
    return found


# --- the revisions


def folders_of(script: ScriptDirectory) -> list[Path]:
    """The folders of the revisions, also those that an `env.py` has told `context.script`."""
    return [*script._version_locations]  # noqa: SLF001 - Alembic resolves them here only


def _loaded(script: ScriptDirectory) -> tuple[Script, ...]:
    """The revisions of all folders, each file run once."""
    return tuple(script._load_revisions())  # noqa: SLF001 - else every use would run them again


def _chain_of(scripts: tuple[Script, ...], ini: Path) -> Chain:
    """The revisions in the order in which Alembic applies them.

    `ConfigurationError` for an id that two files declare, and for a revision that goes on from one
    that is not there. Alembic warns of these, and fails later.
    """
    by_id: dict[str, Script] = {}
    for script in scripts:
        other = by_id.setdefault(script.revision, script)
        if other is not script:
            raise ConfigurationError(
                f"{ini}: {other.path} and {script.path} both declare revision {script.revision}."
            )
    for script in scripts:
        for before in script._versioned_down_revisions:  # noqa: SLF001 - always a tuple
            if before not in by_id:
                raise ConfigurationError(
                    f"{script.path}: revision {script.revision} goes on from {before}, which is "
                    "not there."
                )
    found = RevisionMap(lambda: iter(scripts))
    try:
        walked = list(found.iterate_revisions("heads", "base", inclusive=True))
    except RevisionError as exc:
        said = str(exc).rstrip(".")
        raise ConfigurationError(f"{ini}: {said}.") from exc
    parents = {each.revision: _all_parents(each) for each in walked}
    titles = {each.revision: str(getattr(each, "doc", "")) for each in walked}
    order = tuple(each.revision for each in reversed(walked))
    digests = {each.revision: digest_of(Path(by_id[each.revision].path)) for each in walked}
    return Chain(order, parents, titles, digests=digests)


def _all_parents(revision: Any) -> tuple[str, ...]:
    """What a revision goes on from, with what the labels of its `depends_on` stand for."""
    found = revision._all_down_revisions  # noqa: SLF001 - Alembic has no public name for it
    return tuple(dict.fromkeys(found))


# --- running env.py for its options


class _OptionsOnly:
    """Stands in for what an `env.py` calls on `alembic.context`, so that no revision runs.

    `found` gets what each `context.configure` is given.
    """

    def __init__(self, environment: EnvironmentContext, found: list[Captured]) -> None:
        self._configure = environment.configure
        self._context = environment.get_context
        self._found = found

    def configure(self, connection: Any = None, url: Any = None, **options: Any) -> None:
        """Note what is given, and configure a context that writes nowhere."""
        del connection
        dialect = options.get("dialect_name")
        driver = driver_named(url or (f"{dialect}://" if dialect else ""))
        for name in ("dialect_name", "dialect", "dialect_opts", "output_buffer"):
            options.pop(name, None)
        with _silenced(logging.getLogger("alembic.runtime.migration")):
            self._configure(dialect_name="postgresql", output_buffer=io.StringIO(), **options)
        context = self._context()
        self._found.append(
            Captured(
                context.version_table,
                context.version_table_schema,
                bool(options.get("transaction_per_migration")),
                {name: value for name, value in options.items() if value is not None},
                driver,
            )
        )

    def run_migrations(self, **arguments: Any) -> None:
        """Run nothing, and note what revisions get as arguments."""
        if self._found:
            self._found[-1] = replace(self._found[-1], arguments=arguments)

    def begin_transaction(self) -> Any:
        """Begin nothing."""
        return nullcontext()

    def execute(self, *_: Any, **__: Any) -> None:
        """Execute nothing."""


def _offline_environment(
    config: Config, script: ScriptDirectory, found: list[Captured]
) -> EnvironmentContext:
    """The environment of an `env.py` that is asked for its options."""
    environment = EnvironmentContext(
        config,
        script,
        fn=lambda *_: [],
        as_sql=True,
        starting_rev=None,
        destination_rev="heads",
    )
    replace_calls(environment, _OptionsOnly(environment, found))
    return environment


#: The functions of `alembic.context` that we answer ourselves.
_CALLS = ("configure", "run_migrations", "begin_transaction", "execute")


def replace_calls(environment: EnvironmentContext, by: object) -> None:
    """Let an `env.py` reach the functions of `by` through `alembic.context`.

    Alembic knows its own class only there, so a class of ours that goes on from it is not found.
    """
    vars(environment).update({name: getattr(by, name) for name in _CALLS if hasattr(by, name)})


@contextmanager
def _silenced(log: logging.Logger) -> Iterator[None]:
    """While inside, `log` says nothing: what it would say is not true of a run for options."""
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _no_connections() -> Iterator[None]:
    """While inside, user code that we call opens no connection through SQLAlchemy."""
    threads = GuestThreads()

    def refuse(*_: Any) -> None:
        if threads.is_here():
            raise _OfflineOnlyError

    # A pool that is given a function to connect with asks no dialect.
    watched: tuple[tuple[Any, str], ...] = ((Engine, "do_connect"), (Pool, "connect"))
    for target, name in watched:
        event.listen(target, name, refuse)
    try:
        yield
    finally:
        for target, name in watched:
            event.remove(target, name, refuse)


@contextmanager
def as_before() -> Iterator[None]:
    """Take back what an `env.py` and its configuration change for the whole process.

    That is the search path of modules, and which loggers there are and what they do: an `env.py`
    calls `fileConfig`, which is right for the command `alembic`.
    """
    path = list(sys.path)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    loggers = [
        (log, log.level, log.disabled, log.propagate, list(log.handlers))
        for log in logging.Logger.manager.loggerDict.values()
        if isinstance(log, logging.Logger)
    ]
    try:
        yield
    finally:
        sys.path[:] = path
        root.handlers[:], root.level = handlers, level
        for log, log_level, disabled, propagate, own in loggers:
            log.level, log.disabled, log.propagate = log_level, disabled, propagate
            log.handlers[:] = own


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
