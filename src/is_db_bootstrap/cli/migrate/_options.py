"""Options that every `migrate` command takes, and how its errors become exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from is_db_bootstrap.cli._options import Options
from is_db_bootstrap.cli._times import Seconds

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.migrate import Migrated
    from is_db_bootstrap.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)


class Where(NamedTuple):
    """The blueprint of a call and its database.

    The database is that of the settings, or `other`, the address of another engine.
    """

    blueprint: Blueprint
    settings: Settings
    other: str | None

    @property
    def how(self) -> dict[str, Any]:
        """What the functions of `migrate` take."""
        return {"url": self.other} if self.other else {"settings": self.settings}

    @property
    def target(self) -> str:
        """The address without its password."""
        if not self.other:
            return str(self.settings.need("postgres"))
        from is_db_bootstrap.stores.postgres.portable import PortableDatabase

        return PortableDatabase(self.blueprint, self.other).target

    def __repr__(self) -> str:
        """Without the address, which may have a password in it."""
        return f"Where({self.blueprint.name!r}, other={bool(self.other)})"


BLUEPRINT = click.option(
    "--blueprint",
    "-b",
    metavar="NAME",
    help="A built-in name, module:BLUEPRINT, or a folder. [default: novel_genesis]",
)
_PLACE = (
    BLUEPRINT,
    click.option("--url", "--postgres-url", "url", metavar="URL", help="Address of the database."),
    click.option(
        "--timeout",
        cls=Seconds,
        field="timeout",
        help="For waiting and locking.",
    ),
    click.option(
        "--config",
        type=_FILE,
        help="A TOML file. [default: is-db-bootstrap.toml, then pyproject.toml]",
    ),
    click.option(
        "--env-file", type=_FILE, help="Variables from a file, below the real environment."
    ),
    click.option(
        "--local", "use_local", is_flag=True, help="Start (or find) a local stack and use it."
    ),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the local stack keeps its data.",
    ),
)


def placed(command: F, *, may_have_no_files: bool = False) -> F:
    """Give `command` the options that name a blueprint and its database.

    The command receives a `Where`, first. `may_have_no_files` is that of `load_blueprint`.
    """

    @functools.wraps(command)
    def wrapped(
        *,
        blueprint: str | None,
        url: str | None,
        timeout: float | None,
        config: Path | None,
        env_file: Path | None,
        use_local: bool,
        data_dir: Path | None,
        **given: Any,
    ) -> Any:
        other = url if url and url.startswith(("sqlite:", "mysql", "mariadb")) else None
        options = Options(
            blueprint=blueprint,
            only=("postgres",),
            skip=(),
            timeout=timeout,
            apply_timeout=None,
            output="text",
            verbose=False,
            quiet=False,
            config=config,
            env_file=env_file,
            use_local=use_local,
            data_dir=data_dir,
            urls={"postgres_url": None if other else url},
        )
        declared = options.declared(may_have_no_files=may_have_no_files)
        return command(Where(declared, options.settings(declared), other), **given)

    found: Any = wrapped
    for option in reversed(_PLACE):
        found = option(found)
    return found  # type: ignore[no-any-return]  # click reads it by its attributes


def exits(command: F) -> F:
    """Make 0, 1 and 2 of every end: 2 for configuration, 1 for every other failure."""

    @functools.wraps(command)
    def wrapped(*args: Any, **given: Any) -> int:
        from is_db_bootstrap.errors import BootstrapError, ConfigurationError

        try:
            return int(command(*args, **given) or 0)
        except ConfigurationError as exc:
            click.echo(f"is-db-bootstrap: {exc}", err=True)
            return 2
        except BootstrapError as exc:
            click.echo(f"is-db-bootstrap: {exc}", err=True)
            return 1

    return wrapped  # type: ignore[return-value]


def tell(done: Migrated, word: str, nothing: str) -> None:
    """The revisions on stdout, one a line; what was done to them, and remarks, on stderr."""
    for note in done.notes:
        click.echo(note, err=True)
    for revision in done.revisions:
        click.echo(revision)
    if done.seeded:
        click.echo(f"{done.seeded} demo rows added", err=True)
    count = len(done.revisions)
    click.echo(
        f"{count} {'revision' if count == 1 else 'revisions'} {word}" if count else nothing,
        err=True,
    )


def agreed(question: str, *, yes: bool) -> bool | None:
    """Whether a person at the terminal, or `--yes`, says so; None without either."""
    if yes:
        return True
    if not sys.stdin.isatty():
        return None
    click.echo(f"{question} [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
