"""`is-db-bootstrap new`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.cli._answer import answer, print_document, print_note
from is_db_bootstrap.cli._options import (
    ADDRESSES,
    ANSWER_OPTIONS,
    CONFIG,
    ENV_FILE,
    FILE,
    TIMEOUT,
    Options,
    add_options,
    is_given,
    typed_name,
)
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.names import STORE_ORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.scaffold.from_stores import Written

#: The file of a team's own environment, where a person expects it.
_USUAL_ENVIRONMENT = Path("alembic.ini")
#: The parameters that only `--from-stores` obeys.
_OF_FROM_STORES = (
    "alembic",
    "timeout",
    "config",
    "env_file",
    *(f"{store}_url" for store in STORE_ORDER),
)


def _addresses(command: Any) -> Any:
    return add_options(command, ADDRESSES)


def _answers(command: Any) -> Any:
    return add_options(command, ANSWER_OPTIONS)


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
@_answers
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
    _refuse_without_from_stores()
    written = create_folder(name, chosen)
    folder = _short_paths(written)[0].partition("/")[0]
    apply = f"is-db-bootstrap apply --blueprint {folder} --local --data-dir {folder}/.stack"
    _print_written(written, [f"{apply}, and pytest {folder}"])
    return 0


def _refuse_without_from_stores() -> None:
    """Raise `click.UsageError` for options that only `--from-stores` obeys."""
    for name in _OF_FROM_STORES:
        if is_given(name):
            raise click.UsageError(f"{typed_name(name)} without --from-stores.")


def _short_paths(paths: Sequence[Path]) -> list[str]:
    return [str(path.relative_to(Path.cwd())) for path in paths]


def _print_written(paths: Sequence[Path], steps: Sequence[str], **more: Any) -> None:
    """Print the files on stdout, and on stderr what to do next. `more` is for the document."""
    if answer().is_json:
        found = {"files": _short_paths(paths), "next": list(steps), **more}
        print_document({**answer().document(0), **found})
        return
    for path in _short_paths(paths):
        print_line(path)
    for step in steps:
        print_note(f"Next: {step}")


def _new_from_stores(name: str, stores: list[str], alembic: Path | None, options: Options) -> int:
    """Write a blueprint of what the stores hold, and tell what was guessed."""
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.errors import ConfigurationError
    from is_db_bootstrap.scaffold import check_stores, write_from_stores

    settings = options.load_settings(Blueprint(name.replace("-", "_"), "not written yet"))
    if stores:
        check_stores(stores)
    chosen = [store for store in STORE_ORDER if store in stores and _is_wanted(store, settings)]
    if alembic is None and _USUAL_ENVIRONMENT.is_file():
        alembic = _USUAL_ENVIRONMENT
    if alembic is not None and not alembic.is_file():
        raise ConfigurationError(f"--alembic {alembic}: there is no such file.")
    written = write_from_stores(name, settings, chosen, alembic and alembic.absolute())
    findings = {
        store: {
            "found": existing.found,
            "guesses": list(existing.guesses),
            "unread": list(existing.unread),
        }
        for store, existing in written.stores.items()
    }
    if not answer().is_json:
        _tell(written)
    _print_written(written.paths, written.next_steps, stores=findings)
    return 0


def _is_wanted(store: Any, settings: Any) -> bool:
    """Whether a store is read: it was named, or it has an address."""
    source = click.get_current_context().get_parameter_source("stores")
    is_named = source is not None and source.name != "DEFAULT"
    return is_named or store in settings.stores


def _tell(written: Written) -> None:
    """Print on stderr what was found, and what was guessed."""
    for store, existing in written.stores.items():
        print_note(f"{store}: {existing.found}")
        for sentence in existing.guesses:
            print_note(f"  guessed: {sentence}")
        for sentence in existing.unread:
            print_note(f"  not declared: {sentence}")
