"""The command line: one command a file, found by name and imported when it is used."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

import click

from is_db_bootstrap.cli import _endings, _typed
from is_db_bootstrap.cli._answer import begin_answer
from is_db_bootstrap.cli._commands import CommandPackage
from is_db_bootstrap.cli._output import print_text, tell_error
from is_db_bootstrap.guests import end_process, settle_code
from is_db_bootstrap.wording import visible_lines

if TYPE_CHECKING:
    from pathlib import Path

    from click.shell_completion import CompletionItem

    from is_db_bootstrap.errors import BootstrapError

#: The command that runs when none is named.
_DEFAULT_COMMAND = "apply"
#: The options that belong to the group itself, and to no command.
_GROUP_OPTIONS = {"--help", "-h", "--version"}

#: The variable in which a shell asks what can be typed here.
_COMPLETION = "_IS_DB_BOOTSTRAP_COMPLETE"
_NAME = "is-db-bootstrap"


class _Commands(CommandPackage):
    """The commands of this package. `is-db-bootstrap` alone applies."""

    package = __name__

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_completing = ctx.resilient_parsing  # A shell asks what can be typed here.
        if not args:
            names_no_command = not is_completing
        else:
            names_no_command = args[0].startswith("-") and args[0] not in _GROUP_OPTIONS
        if names_no_command:
            args.insert(0, _DEFAULT_COMMAND)
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, and the options of `apply`, which need no command before them."""
        items = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return items
        default = self.get_command(ctx, _DEFAULT_COMMAND)
        options = default.shell_complete(ctx, incomplete) if default else []
        return [*items, *options]


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
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
    callback=_print_version,
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


def main(
    args: list[str] | None = None, *, usual_handlers: Sequence[Callable[..., object]] = ()
) -> NoReturn:
    """Run the command line and exit with its code.

    Without `args`, the process is the command's own: no program goes on after it.
    `usual_handlers` are handlers of SIGINT that the command may replace, beside Python's own.
    """
    _endings.know_handlers(usual_handlers)
    if args is None:
        words = sys.argv[1:]
        streams = _endings.own_streams(_typed.Mask(words))
        code = _run_to_end(words, *streams)
        settle_code(code)
    else:
        with _endings.guarded_streams(_typed.Mask(args)) as streams:
            code = _run_to_end(args, *streams)
    sys.exit(code)


def _run_to_end(args: list[str], out: _endings.Stream, err: _endings.Stream) -> int:
    """Run the command that `args` name, write what it printed, and return the exit code."""
    with _endings.signals_as_interrupts():
        code = _run_command(args)
        code = _endings.finish_output(code, out, err)
        ending = _endings.ending
        if ending.signal or ending.abandoned or _endings.has_stuck_call():
            _endings.end_children()
            end_process(code)  # A call that was left behind cannot be joined.
    return code


def _run_command(args: list[str]) -> int:
    """Run the command that `args` name, print what it raises, and return the exit code."""
    answer = begin_answer()
    error: BootstrapError | None = None
    try:
        if any(":/" in arg for arg in args):
            _typed.refuse_misplaced_addresses(args)
        if _COMPLETION in os.environ:
            return _answer_shell(os.environ[_COMPLETION])
        returned: Any = group.main(list(args), prog_name=_NAME, standalone_mode=False)
        code = returned if isinstance(returned, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        error = _interruption()
        code = _endings.ending.code
    except click.ClickException as exc:
        _print_usage_error(exc, args)
        error = _usage_error(exc)
        code = exc.exit_code
    except BaseException as exc:  # noqa: BLE001 - a bug is shown as by Python, but masked
        error = _print_error(exc)
        code = error.exit_code
    return answer.end(code, error, _write_log, _write_result)


def _interruption() -> BootstrapError:
    from is_db_bootstrap.errors import Interrupted

    return Interrupted("The command was interrupted.", hint="Run again.")


def _usage_error(error: click.ClickException) -> BootstrapError:
    """What click says of a wrong call, for a document."""
    from is_db_bootstrap.errors import ConfigurationError
    from is_db_bootstrap.settings.secrets import without_addresses

    return ConfigurationError(without_addresses(error.format_message()))


def _write_log(path: Path, text: str) -> None:
    """Write the termination log. What writes it is imported for a call that has one."""
    from is_db_bootstrap.cli._termination_log import write_log

    write_log(path, text)


def _write_result(text: str, code: int) -> int:
    """Write the file of the result. What writes it is imported for a call that has one."""
    from is_db_bootstrap.cli._result_file import write_result

    return write_result(text, code)


def _answer_shell(question: str) -> int:
    """Print what a shell asks: its script, or what can be typed. Returns the exit code.

    This is `click.shell_completion.shell_complete`, but the answer leaves through our stream.
    """
    from click.shell_completion import get_completion_class

    shell, _, what = question.partition("_")
    found = get_completion_class(shell)
    if found is None or what not in {"source", "complete"}:
        return 1
    completion = found(group, {}, _NAME, _COMPLETION)
    answer = completion.source() if what == "source" else completion.complete()
    print_text(f"{answer}\n")
    return 0


def _print_usage_error(error: click.ClickException, args: list[str]) -> None:
    """Print what click says of a wrong call.

    It repeats what was typed, which may be an address in an option's place.
    """
    from is_db_bootstrap.settings.secrets import without_addresses

    told = without_addresses(_endings.masked_text(error.format_message()))
    if _endings.log_message(visible_lines(told), "error"):
        return
    text = io.StringIO()
    error.show(text)
    masked = _endings.masked_text(text.getvalue())
    click.echo(without_addresses(masked), err=True, nl=False)
    click.echo(_order_advice(args), err=True, nl=False)


def _order_advice(args: list[str]) -> str:
    """What to say when an option stands before a command. Empty for any other call.

    Such an option was taken for one of `apply`.
    """
    context = click.Context(group)
    default = group.get_command(context, _DEFAULT_COMMAND)
    options = default.params if default else []
    with_value = {
        name for each in options if not getattr(each, "is_flag", False) for name in each.opts
    }
    # A value is no command: --only redis names a store.
    words = [arg for before, arg in pairwise(["", *args]) if before not in with_value]
    commands = (arg for arg in words if group.get_command(context, arg) is not None)
    command = next(commands, None)
    if command is None:
        return ""
    begins_with_option = args[0].startswith("-") and args[0] not in _GROUP_OPTIONS
    if not begins_with_option:
        return ""
    return f"Options come after the command: is-db-bootstrap {command} …\n"


def _print_error(error: BaseException) -> BootstrapError:
    """Print an error, or the traceback of a bug. Returns it as an error of ours."""
    from is_db_bootstrap.cli._surroundings import refusal_of_machine
    from is_db_bootstrap.errors import BootstrapError

    known = error if isinstance(error, BootstrapError) else refusal_of_machine(error)
    if known is not None:
        tell_error(known)
    if known is None or (known is not error and sys.flags.dev_mode):
        import traceback  # takes a while, and is needed for a bug only

        bug = "".join(traceback.format_exception(error))
        if not _endings.log_message(visible_lines(bug), "critical"):
            click.echo(visible_lines(bug), err=True, nl=False)
    if known is not None:
        return known
    return BootstrapError(
        f"A bug of is-db-bootstrap: {type(error).__name__}.",
        hint="Its traceback is on stderr. Please report it.",
    )
