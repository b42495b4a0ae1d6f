"""Options that every `vector` command takes, and how progress is shown."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from is_db_bootstrap.cli._answer import print_note
from is_db_bootstrap.cli._options import (
    BLUEPRINT,
    CONFIG,
    DATA_DIR,
    ENV_FILE,
    LOCAL,
    NOTED_QUIET,
    NOTED_TERMINATION_LOG,
    OUTPUT,
    F,
    Options,
    add_options,
)
from is_db_bootstrap.cli._run import prepare_clients

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings
    from is_db_bootstrap.vector_results import CopyProgress

_VECTOR_OPTIONS = (
    BLUEPRINT,
    click.option("--milvus-url", "url", metavar="URL", help="Address of milvus."),
    OUTPUT,
    NOTED_QUIET,
    NOTED_TERMINATION_LOG,
    CONFIG,
    ENV_FILE,
    LOCAL,
    DATA_DIR,
)
_PLAIN_PARAMETERS = ("blueprint", "output", "config", "env_file", "use_local", "data_dir")
#: Seconds between two lines of progress.
_TELL_S = 2.0


class Vectors(NamedTuple):
    """The blueprint of a call, its settings, and what stdout gets."""

    blueprint: Blueprint
    settings: Settings
    output: str


def vector_options(command: F) -> F:
    """Give a command the options that name a blueprint and its vector store.

    The command receives them as a `Vectors`, first.
    """

    @functools.wraps(command)
    def with_vectors(*, url: str | None, **parameters: Any) -> Any:
        prepare_clients()
        values = {name: parameters.pop(name) for name in _PLAIN_PARAMETERS}
        options = Options(urls={"milvus_url": url}, **values)
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
        return command(Vectors(blueprint, settings, options.output), **parameters)

    return add_options(cast("F", with_vectors), _VECTOR_OPTIONS)


COLLECTION = click.argument("collection", default="")


def tell(note: str) -> None:
    """Print a note to stderr. `--quiet` leaves it out."""
    print_note(f"is-db-bootstrap: {note}")


def progress_teller() -> Callable[[CopyProgress], None]:
    """A function that prints progress to stderr, every few seconds and at the end."""
    from is_db_bootstrap.render.vectors import progress_line

    told_at = time.monotonic()

    def tell_progress(progress: CopyProgress) -> None:
        nonlocal told_at
        is_last = progress.done >= progress.total
        if is_last or time.monotonic() - told_at > _TELL_S:
            told_at = time.monotonic()
            print_note(progress_line(progress))

    return tell_progress
