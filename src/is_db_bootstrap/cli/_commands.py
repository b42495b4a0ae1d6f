"""A click group whose commands are the modules of a package."""

from __future__ import annotations

import importlib
import pkgutil

import click

#: Longer than any first sentence of a command.
_WHOLE = 1000


class Group(click.Group):
    """A group whose list of commands has whole sentences, however narrow the terminal is."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with the whole of its first sentence, in as many lines as it takes."""
        rows = []
        for name in self.list_commands(ctx):
            found = self.get_command(ctx, name)
            rows.append((name, found.get_short_help_str(_WHOLE) if found else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class CommandPackage(Group):
    """A group that finds commands by the names of a package's modules.

    A module is imported when its command is used, and defines `command`. A module whose name begins
    with an underscore is no command. Within a name, an underscore is a hyphen of the command's.
    """

    #: The package that holds the commands. A subclass sets it.
    package: str = ""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the commands, in alphabetical order."""
        path = importlib.import_module(self.package).__path__
        names = [module.name for module in pkgutil.iter_modules(path)]
        return sorted(name.replace("_", "-") for name in names if not name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None. Its module is imported here."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{self.package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command
