"""`is-db-bootstrap migrate`: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._commands import CommandPackage


class _MigrateCommands(CommandPackage):
    """The commands of this package."""

    package = __name__


@click.group("migrate", cls=_MigrateCommands)
def command() -> None:
    """Work on the Alembic revisions of a blueprint.

    Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or
    configuration.
    """
