"""What `--local` does: the addresses of a local stack take the place of those in the settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from is_db_bootstrap.settings import Settings


def print_progress(line: str) -> None:
    """Print one line of a stack's progress on stderr."""
    click.echo(line, err=True)


def local_environment(found: Settings, data_dir: Path | None, *, quiet: bool) -> dict[str, str]:
    """The process's environment with the addresses of the local stack, which is started when it is not running.

    Raises `ConfigurationError` when an address is set as well. Only the user knows which of the two is meant.
    """
    from is_db_bootstrap.errors import ConfigurationError

    taken = sorted({url.source for url in found.stores.values()} - {"default"})
    if taken:
        raise ConfigurationError(
            f"--local and an address are both given: {', '.join(taken)}.", hint="Keep one of them."
        )
    from is_db_bootstrap.local import up

    progress = (lambda _: None) if quiet else print_progress
    return {**os.environ, **up(data_dir, progress=progress).environ()}
