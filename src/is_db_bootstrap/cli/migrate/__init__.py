"""`is-db-bootstrap migrate`: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import importlib
import pkgutil

import click


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return sorted(
            m.name.removesuffix("_")
            for m in pkgutil.iter_modules(__path__)
            if not m.name.startswith("_")
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


@click.group("migrate", cls=_Commands)
def command() -> None:
    """Work on the Alembic revisions of a blueprint.

    Data goes to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
    """
