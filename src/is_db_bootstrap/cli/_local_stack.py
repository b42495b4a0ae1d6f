"""What `--local` does: the addresses of a local stack take the place of those in the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Settings


def print_progress(line: str) -> None:
    """Print one line of a stack's progress on stderr."""
    click.echo(line, err=True)


def local_environment(
    settings: Settings, data_dir: Path | None, stores: Sequence[StoreName], *, quiet: bool
) -> dict[str, str]:
    """The process's environment with the addresses of the local stack.

    The servers of `stores` are started when they do not run, and no others. The addresses of others
    that run are there too: such a store can lend this run its lock. Raises `ConfigurationError`
    when the settings have an address too, because only the user knows which of the two is meant.
    """
    _refuse_addresses(settings)
    from is_db_bootstrap.local import status, up

    progress = _print_nothing if quiet else print_progress
    started = up(data_dir, stores=stores, progress=progress)
    running = status(data_dir) or started
    return {**os.environ, **running.environ(), **started.environ()}


def _refuse_addresses(settings: Settings) -> None:
    from is_db_bootstrap.errors import ConfigurationError
    from is_db_bootstrap.settings import DEFAULT_SOURCE

    sources = {url.source for url in settings.stores.values()}
    given = sorted(sources - {DEFAULT_SOURCE})
    if given:
        raise ConfigurationError(
            f"--local and an address are both given: {', '.join(given)}.", hint="Keep one of them."
        )


def _print_nothing(_: str) -> None:
    pass
