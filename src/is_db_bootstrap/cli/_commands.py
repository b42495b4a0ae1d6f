"""A click group whose commands are the modules of a package."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable

import click

from is_db_bootstrap.nearest import nearest

#: Longer than any first sentence of a command.
_WHOLE = 1000
Resolved = tuple[str | None, click.Command | None, list[str]]


class Group(click.Group):
    """A group that suggests the nearest command.

    Its list of commands has whole sentences, however narrow the terminal is.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List each command with the whole of its first sentence, in as many lines as it takes."""
        rows = []
        for name in self.list_commands(ctx):
            found = self.get_command(ctx, name)
            rows.append((name, found.get_short_help_str(_WHOLE) if found else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` name. One that does not exist is told with the nearest one."""
        return resolve_or_suggest(self, ctx, args, super().resolve_command)


class CommandPackage(Group):
    """A group that finds commands by the names of a package's modules.

    A module is imported when its command is used, and defines `command`. A module whose name begins
    with an underscore is no command. Within a name, an underscore is a hyphen of the command's.
    """

    #: The package that holds the commands. A subclass sets it.
    package: str = ""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names of the commands, in alphabetical order."""
        return list(_names_in(self.package))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None. Its module is imported here."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{self.package}.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command


@functools.cache
def _names_in(package: str) -> tuple[str, ...]:
    """The names of the commands in a package. Its folder is read once in a process."""
    path = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.iter_modules(path)]
    return tuple(sorted(name.replace("_", "-") for name in names if not name.startswith("_")))


def resolve_or_suggest(
    group: click.Group,
    ctx: click.Context,
    args: list[str],
    resolve: Callable[[click.Context, list[str]], Resolved],
) -> Resolved:
    """What `resolve` returns. Its refusal names the nearest command, and where that one is."""
    try:
        return resolve(ctx, args)
    except click.UsageError as exc:
        if ctx.resilient_parsing or not args:
            raise
        typed = args[0]
        refusal = f"No such command {typed!r}."
        raise click.UsageError(f"{refusal}{_suggestion(group, ctx, typed)}", ctx) from exc


def _suggestion(group: click.Group, ctx: click.Context, typed: str) -> str:
    """A question after the nearest command, or all commands where none is near."""
    path = ctx.command_path.partition(" ")[2]
    names = group.list_commands(ctx)
    near = nearest(typed, names)
    if near:
        return f" Did you mean {f'{path} {near}'.strip()!r}?"
    elsewhere = "" if path else _group_with(group, ctx, typed)
    if elsewhere:
        return f" Did you mean {elsewhere!r}?"
    return f" There are {', '.join(names)}."


def _group_with(group: click.Group, ctx: click.Context, typed: str) -> str:
    """The command that is called so inside of another one, such as `migrate upgrade`."""
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group) and typed in command.list_commands(ctx):
            return f"{name} {typed}"
    return ""
