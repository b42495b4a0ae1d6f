"""Options that every `migrate` command takes, and how its errors become exit codes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from is_db_bootstrap.cli._answer import answer, give_document, print_note
from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE
from is_db_bootstrap.cli._options import (
    BLUEPRINT,
    CONFIG,
    DATA_DIR,
    ENV_FILE,
    LOCAL,
    TIMEOUT,
    WORK_ANSWER_OPTIONS,
    F,
    Options,
    add_options,
    refuse_missing_folder,
)
from is_db_bootstrap.cli._output import print_line, tell, tell_error
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.migrate import Migrated
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Settings

#: How the addresses of other engines than PostgreSQL begin.
_OTHER_ENGINES = ("sqlite:", "mysql", "mariadb")

_DATABASE_OPTIONS = (
    BLUEPRINT,
    click.option("--url", "--postgres-url", "url", metavar="URL", help="Address of the database."),
    TIMEOUT,
    CONFIG,
    ENV_FILE,
    LOCAL,
    DATA_DIR,
    *WORK_ANSWER_OPTIONS,
)
#: Those of them whose value goes into `Options` as it is.
_PLAIN_PARAMETERS = ("blueprint", "timeout", "config", "env_file", "use_local", "data_dir")


class Database(NamedTuple):
    """The database of a call, and the blueprint that it gets.

    The database is that of the settings, unless `other_url` is the address of another engine.
    """

    blueprint: Blueprint
    settings: Settings
    other_url: str | None
    #: Whether the command is about the Cypher files of the blueprint.
    is_cypher: bool = False
    #: Whether nobody has named the blueprint.
    is_default_blueprint: bool = False

    def refuse_others(self) -> None:
        """Raise `StoreConflict` when nobody named the blueprint and others only are there."""
        from is_db_bootstrap.app import refuse_other_blueprints

        if self.is_default_blueprint and not self.other_url:
            store: StoreName = "neo4j" if self.is_cypher else "postgres"
            refuse_other_blueprints(self.blueprint, self.settings, (store,))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by which the functions of `migrate` find this database."""
        other = {"url": self.other_url} if self.other_url else {}
        return {**other, "settings": self.settings}

    @property
    def target(self) -> str:
        """The address without its password."""
        if not self.other_url:
            return str(self.settings.need("neo4j" if self.is_cypher else "postgres"))
        from is_db_bootstrap.stores.postgres.portable import PortableDatabase

        return PortableDatabase(self.blueprint, self.other_url).target

    def __repr__(self) -> str:
        """Without the address, which may have a password in it."""
        return f"Database({self.blueprint.name!r}, other_url={bool(self.other_url)})"


#: Chooses the Cypher files of a blueprint.
CYPHER = click.option("--cypher", is_flag=True, help="The Cypher files instead, on Neo4j.")


def is_about_cypher(blueprint: Blueprint, *, is_asked: bool) -> bool:
    """Whether a command is about Cypher files: when it is told so, and when there is no more."""
    has_revisions = blueprint.migrations is not None or blueprint.alembic is not None
    return is_asked or (not has_revisions and blueprint.cypher is not None)


def database_options(
    *, may_have_no_files: bool = False, with_cypher: bool = False
) -> Callable[[F], F]:
    """A decorator that gives a command the options that name a blueprint and its database.

    The command receives them as a `Database`, first. `load_blueprint` explains `may_have_no_files`.
    `with_cypher` gives it `--cypher` too.
    """

    def add_to_command(command: F) -> F:
        @functools.wraps(command)
        def with_database(*, url: str | None, **parameters: Any) -> Any:
            refuse_missing_folder(answer().result_file)
            is_other = url is not None and url.startswith(_OTHER_ENGINES)
            values = {name: parameters.pop(name) for name in _PLAIN_PARAMETERS}
            postgres_url = None if is_other else url
            options = Options(only=("postgres",), urls={"postgres_url": postgres_url}, **values)
            blueprint = options.load_blueprint(may_have_no_files=may_have_no_files)
            is_default = options.choice().is_default
            # Another command may have an option of that name.
            is_asked = with_cypher and parameters.pop("cypher")
            if with_cypher and is_about_cypher(blueprint, is_asked=is_asked):
                options = Options(only=("neo4j",), urls={"neo4j_url": url}, **values)
                settings = options.load_settings(blueprint)
                return command(
                    Database(
                        blueprint, settings, None, is_cypher=True, is_default_blueprint=is_default
                    ),
                    **parameters,
                )
            # A flag wins over the environment, so what that says of an address does not matter.
            without: tuple[StoreName, ...] = ("postgres",) if is_other else ()
            settings = options.load_settings(blueprint, without=without)
            other_url = url if is_other else None
            database = Database(blueprint, settings, other_url, is_default_blueprint=is_default)
            return command(database, **parameters)

        chosen = (*_DATABASE_OPTIONS, CYPHER) if with_cypher else _DATABASE_OPTIONS
        return add_options(cast("F", with_database), chosen)

    return add_to_command


def migrate_exit_codes(command: F) -> F:
    """Let `command` end with 0, 2 for a wrong configuration, 8 for a store that was lost, or 1."""

    @functools.wraps(command)
    def with_exit_codes(*args: Any, **parameters: Any) -> int:
        from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreReset

        try:
            return int(command(*args, **parameters) or 0)
        except BootstrapError as exc:
            tell_error(exc)
            answer().error = exc
            if isinstance(exc, ConfigurationError):
                return WRONG_USAGE
            return exc.exit_code if isinstance(exc, StoreReset) else FAILED

    return cast("F", with_exit_codes)


def run_revisions(
    function: Callable[..., Migrated], database: Database, *args: Any, **parameters: Any
) -> Migrated:
    """Call a function of `migrate` that runs revisions on `database`.

    If it fails or is interrupted, what the revisions have begun beside it is ended. What may go on
    all the same is told on stderr.
    """
    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.leftovers import Guests

    database.refuse_others()
    guests = Guests()
    watched = watch_arguments()
    observers = [guests, *watched.pop("observers")]
    parameters |= {**database.arguments, **watched, "observers": observers}
    try:
        return function(database.blueprint, *args, **parameters)
    except (BootstrapError, KeyboardInterrupt):
        for note in guests.end(("postgres",), database.settings):
            tell(note)
        raise


def watch_arguments() -> dict[str, Any]:
    """The arguments by which a run of `migrate` has the id of this call, and its records."""
    from is_db_bootstrap.cli._log import records_observer

    records = records_observer(verbose=False, quiet=answer().is_quiet)
    return {"run_id": answer().run_id, "observers": [] if records is None else [records]}


def print_revisions(migrated: Migrated, verb: str, nothing: str) -> None:
    """Print the revisions on stdout, one a line. What was done to them, and notes, go to stderr.

    `verb` says what was done. `nothing` is the line for a call that did nothing. With `--output
    json` stdout gets one document with all of it.
    """
    for note in migrated.notes:
        print_note(note)
    if migrated.baseline:
        print_note(f"filled by the baseline {migrated.baseline}")
    if migrated.seeded:
        print_note(f"{counted(migrated.seeded, 'demo row')} added")
    count = len(migrated.revisions)
    has_done = bool(count or migrated.baseline)
    total = f"{counted(count, 'revision')} {verb}" if has_done else nothing
    if give_document(_migrated_document(migrated, has_done=has_done)):
        return
    for revision in migrated.revisions:
        print_line(revision)
    print_note(total)


def _migrated_document(migrated: Migrated, *, has_done: bool) -> dict[str, object]:
    """What a command has done to the revisions of a database."""
    return {
        **answer().document(0),
        "outcome": "changed" if has_done or migrated.seeded else "unchanged",
        "revisions": list(migrated.revisions),
        "baseline": migrated.baseline or None,
        "seeded": migrated.seeded,
        "notes": list(migrated.notes),
    }
