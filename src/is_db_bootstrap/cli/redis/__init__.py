"""`is-db-bootstrap redis`: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._commands import CommandPackage


class _RedisCommands(CommandPackage):
    """The commands of this package."""

    package = __name__


@click.group("redis", cls=_RedisCommands)
def command() -> None:
    """Look at all keys of a Redis beside the declared patterns, and mend missing lifetimes."""
