"""The command line: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import io
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import click

from is_db_bootstrap.cli import _endings, _typed
from is_db_bootstrap.cli._commands import CommandPackage
from is_db_bootstrap.guests import end_process

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Commands(CommandPackage):
    """The commands of this package. `is-db-bootstrap` alone applies."""

    package = __name__

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:  # a shell asks what can be typed here
            return super().parse_args(ctx, args)
        asks_about_us = args and args[0] in {"--help", "-h", "--version"}
        if not asks_about_us and (not args or args[0].startswith("-")):
            args.insert(0, "apply")
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and the options of `apply`, which need no command before them."""
        default = self.get_command(ctx, "apply") if incomplete.startswith("-") else None
        return [
            *super().shell_complete(ctx, incomplete),
            *(default.shell_complete(ctx, incomplete) if default else []),
        ]


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from is_db_bootstrap import __version__

        click.echo(f"is-db-bootstrap {__version__}")
        ctx.exit()


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version.",
)
def group() -> None:
    """Bring every datastore of a blueprint to its declared state, prove it, and say what was done.

    Without a command: apply. Every command has its own --help.

    \b
    Exit codes: 0 as declared, 1 a change failed, 2 configuration, 3 not as declared, 4 unavailable,
    5 access denied, 6 conflict, 7 lock timeout, 8 store was reset, 9 the output could not be
    written, 129 hung up, 130 interrupted, 143 terminated.
    """  # noqa: D301 - the escape is click's mark for lines that stay as they are


def _order(args: list[str]) -> str:
    """What to say when an option stands before a command, where it was taken for one of `apply`."""
    command = next((a for a in args if group.get_command(click.Context(group), a)), None)
    before = (
        command is not None
        and args[0].startswith("-")
        and args[0] not in {"-h", "--help", "--version"}
    )
    return f"Options come after the command: is-db-bootstrap {command} …\n" if before else ""


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    given = sys.argv[1:] if args is None else args
    with _endings.streams(_typed.Mask(given)) as (out, err), _endings.signals():
        code = _endings.finish(_called(given), out, err)
        if _endings.ending.signal or _endings.ending.abandoned or _endings.is_a_call_left_behind():
            _endings.end_children()
            end_process(code)  # nothing that was left behind can be joined
    sys.exit(code)


def _called(args: list[str]) -> int:
    try:
        if any(":/" in arg for arg in args):
            _typed.refuse_misplaced(args)
        code: Any = group.main(list(args), prog_name="is-db-bootstrap", standalone_mode=False)
    except click.exceptions.Abort:
        code = _endings.ending.code
    except click.ClickException as exc:
        from is_db_bootstrap.settings.secrets import without_addresses

        told = io.StringIO()
        exc.show(told)
        # It repeats what was typed, which may be an address in an option's place.
        click.echo(without_addresses(_endings.masked(told.getvalue())), err=True, nl=False)
        click.echo(_order(args), err=True, nl=False)
        code = exc.exit_code
    except Exception as exc:  # noqa: BLE001 - a bug is shown, as Python would, but masked
        from is_db_bootstrap.errors import BootstrapError

        if isinstance(exc, BootstrapError):
            click.echo(f"is-db-bootstrap: {exc}", err=True)
            code = exc.exit_code
        else:
            click.echo(traceback.format_exc(), err=True, nl=False)
            code = 1
    return code if isinstance(code, int) else 0
