"""`is-db-bootstrap new`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.cli._options import (
    ADDRESSES,
    CONFIG,
    ENV_FILE,
    FILE,
    TIMEOUT,
    Options,
    add_options,
)
from is_db_bootstrap.cli._output import print_line, tell
from is_db_bootstrap.names import STORE_ORDER

if TYPE_CHECKING:
    from is_db_bootstrap.scaffold.from_stores import Written

#: The file of a team's own environment, where a person expects it.
_USUAL_ENVIRONMENT = Path("alembic.ini")


def _addresses(command: Any) -> Any:
    return add_options(command, ADDRESSES)


@click.command("new")
@click.argument("name")
@click.option(
    "--stores",
    default=",".join(STORE_ORDER),
    show_default=True,
    metavar="LIST",
    help="The stores that it uses.",
)
@click.option(
    "--from-stores",
    is_flag=True,
    help="Read the running stores, and declare what they hold. Nothing is changed there.",
)
@click.option(
    "--alembic",
    type=FILE,
    help="With --from-stores: the alembic.ini of the application. [default: ./alembic.ini]",
)
@_addresses
@TIMEOUT
@CONFIG
@ENV_FILE
def command(
    name: str,
    *,
    stores: str,
    from_stores: bool,
    alembic: Path | None,
    timeout: float | None,
    config: Path | None,
    env_file: Path | None,
    **urls: str | None,
) -> int:
    """Write a small, complete blueprint folder NAME, which passes its own test.

    Module, models, migrations, Cypher files, a test on a local stack, compose.yaml, a CI workflow.
    Nothing is overwritten.

    With --from-stores, the folder declares what the stores hold. Then the stores are those that
    have an address, unless --stores names them.
    """
    from is_db_bootstrap.scaffold import create_folder

    chosen = [store.strip() for store in stores.split(",") if store.strip()]
    if from_stores:
        options = Options(timeout=timeout, config=config, env_file=env_file, urls=urls)
        return _new_from_stores(name, chosen, alembic, options)
    written = create_folder(name, chosen)
    paths = [path.relative_to(Path.cwd()) for path in written]
    for path in paths:
        print_line(path)
    folder = paths[0].parts[0]
    click.echo(
        f"Next: is-db-bootstrap apply --blueprint {folder} --local --data-dir {folder}/.stack, "
        f"and pytest {folder}",
        err=True,
    )
    return 0


def _new_from_stores(name: str, stores: list[str], alembic: Path | None, options: Options) -> int:
    """Write a blueprint of what the stores hold, and tell what was guessed."""
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.errors import ConfigurationError
    from is_db_bootstrap.scaffold import write_from_stores

    settings = options.load_settings(Blueprint(name.replace("-", "_"), "not written yet"))
    unknown = [store for store in stores if store not in STORE_ORDER]
    if unknown:
        raise ConfigurationError(
            f"Stores are {', '.join(STORE_ORDER)}; given: {', '.join(unknown)}."
        )
    chosen = [store for store in STORE_ORDER if store in stores and _is_wanted(store, settings)]
    if alembic is None and _USUAL_ENVIRONMENT.is_file():
        alembic = _USUAL_ENVIRONMENT
    if alembic is not None and not alembic.is_file():
        raise ConfigurationError(f"--alembic {alembic}: there is no such file.")
    written = write_from_stores(name, settings, chosen, alembic and alembic.absolute())
    for path in written.paths:
        print_line(path.relative_to(Path.cwd()))
    _tell(written)
    return 0


def _is_wanted(store: Any, settings: Any) -> bool:
    """Whether a store is read: it was named, or it has an address."""
    source = click.get_current_context().get_parameter_source("stores")
    is_named = source is not None and source.name != "DEFAULT"
    return is_named or store in settings.stores


def _tell(written: Written) -> None:
    """Print on stderr what was found, what was guessed, and what to do next."""
    for store, existing in written.stores.items():
        tell(f"{store}: {existing.found}")
        for sentence in existing.guesses:
            tell(f"  guessed: {sentence}")
        for sentence in existing.unread:
            tell(f"  not declared: {sentence}")
    for step in written.next_steps:
        tell(f"Next: {step}")
