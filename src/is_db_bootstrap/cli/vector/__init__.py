"""`is-db-bootstrap vector`: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._commands import CommandPackage


class _VectorCommands(CommandPackage):
    """The commands of this package."""

    package = __name__


@click.group("vector", cls=_VectorCommands)
def command() -> None:
    """Bring the rows of a collection to its new version, and move the alias.

    Data goes to stdout, progress and messages to stderr.
    """
