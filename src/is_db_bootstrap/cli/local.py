"""`is-db-bootstrap local`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from is_db_bootstrap.cli._choices import WordChoice
from is_db_bootstrap.cli._commands import Group
from is_db_bootstrap.cli._endings import ENDING_SIGNALS, stdout_failure
from is_db_bootstrap.cli._local_stack import print_progress
from is_db_bootstrap.cli._options import DATA_DIR, OUTPUT
from is_db_bootstrap.cli._output import print_line, print_text
from is_db_bootstrap.names import STORE_ORDER, StoreName

if TYPE_CHECKING:
    from is_db_bootstrap.local import LocalStack

_ONLY = click.option(
    "--only",
    type=WordChoice(STORE_ORDER),
    multiple=True,
    help="Only this store. May be repeated.",
)


@click.group("local", cls=Group)
def command() -> None:
    """Run the four stores here, as child processes without Docker."""


@command.command("up")
@_ONLY
@DATA_DIR
@OUTPUT
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Address to listen on. Passwords are always set. "
    "[default: where the stack runs, else 127.0.0.1]",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="A new stack in the foreground, which is removed on Ctrl-C.",
)
def start_stack(
    only: tuple[str, ...],
    data_dir: Path | None,
    output: str,
    listen: str | None,
    ephemeral: bool,
) -> int:
    """Start the stack, or find the one that runs, and print its addresses as environment lines."""
    from is_db_bootstrap.client_imports import keep_out
    from is_db_bootstrap.local import up

    keep_out()
    if ephemeral:
        _refuse_beside_ephemeral(data_dir, listen)
        return _run_ephemeral(output, _chosen_stores(only))
    stack = up(data_dir, listen=listen, stores=_chosen_stores(only), progress=print_progress)
    _print_addresses(stack, output)
    if stdout_failure():
        print_progress(
            "The stack runs. `is-db-bootstrap local status` prints its addresses, "
            "`local down` stops it."
        )
    return 0


def _chosen_stores(only: tuple[str, ...]) -> tuple[StoreName, ...]:
    """The stores that `--only` names, in store order. All of them without it."""
    return tuple(store for store in STORE_ORDER if not only or store in only)


def _refuse_beside_ephemeral(data_dir: Path | None, listen: str | None) -> None:
    from is_db_bootstrap.errors import ConfigurationError

    if data_dir is not None or listen is not None:
        raise ConfigurationError(
            "--ephemeral takes neither --data-dir nor --listen.", hint="Leave them out."
        )


def _run_ephemeral(output: str, stores: tuple[StoreName, ...]) -> int:
    """Run a new stack until a signal comes, or remove it when nobody can read its addresses."""
    import threading

    from is_db_bootstrap.local import ephemeral_stack

    _end_on_signals()
    try:
        with ephemeral_stack(print_progress, stores=stores) as stack:
            _print_addresses(stack, output)
            if stdout_failure():
                print_progress("Nobody can read the addresses of the stack, so it is removed.")
                return 0
            threading.Event().wait()
    except KeyboardInterrupt:
        print_progress("removed")
    return 0


def _end_on_signals() -> None:
    """Raise the first signal as KeyboardInterrupt, and ignore those that come after it.

    A second signal would leave servers behind. An ignored signal stays ignored, but for SIGTERM: in
    the background job of a shell SIGINT is ignored, and something must end the stack.
    """
    import signal

    def raise_interrupt(*_: object) -> NoReturn:
        for number in ENDING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ENDING_SIGNALS:
        is_ignored = signal.getsignal(number) == signal.SIG_IGN
        if number == signal.SIGTERM or not is_ignored:
            signal.signal(number, raise_interrupt)


def _print_addresses(stack: LocalStack, output: str) -> None:
    import json
    import shlex

    if output == "json":
        print_text(f"{json.dumps(stack.to_json(), indent=2)}\n")
        return
    for name, value in stack.environ().items():
        print_line(f"{name}={shlex.quote(value)}")


@command.command("down")
@_ONLY
@DATA_DIR
def stop_stack(only: tuple[str, ...], data_dir: Path | None) -> int:
    """Stop what `up` started. Its data stays."""
    from is_db_bootstrap.local import down

    stores = _chosen_stores(only)
    stopped = down(data_dir, stores=stores, progress=print_progress)
    message = f"Stopped: {', '.join(stopped)}." if stopped else _nothing_stopped(data_dir, stores)
    click.echo(message, err=True)
    return 0


def _nothing_stopped(data_dir: Path | None, stores: tuple[StoreName, ...]) -> str:
    """What was found by a `down` that had nothing to stop."""
    from is_db_bootstrap.local import status
    from is_db_bootstrap.local.places import data_folder

    folder = data_folder(data_dir)
    stack = status(data_dir)
    if stack is None or not stack.servers:
        return f"No local stack is running in {folder}."
    return f"{', '.join(stores)}: not running. {_running_line(stack)}"


@command.command("status")
@DATA_DIR
@OUTPUT
def show_status(data_dir: Path | None, output: str) -> int:
    """Print the addresses of the running stack. Exit 4 when a server has died.

    The folder, and what has died, is said on stderr, and in the JSON document.
    """
    from is_db_bootstrap.errors import StoreUnavailable
    from is_db_bootstrap.local import LocalStack, status
    from is_db_bootstrap.local.places import data_folder

    folder = data_folder(data_dir)
    stack = status(data_dir)
    if stack is None:
        print_progress(f"No local stack is running in {folder}.")
        stack = LocalStack(folder, "", ())
    else:
        print_progress(_running_line(stack))
    for name in stack.dead_stores:
        log = folder / name / "server.log"
        print_progress(
            f"{name}: not running, its server has died (log: {log}); "
            "`is-db-bootstrap local up` starts it again"
        )
    _print_addresses(stack, output)
    return StoreUnavailable.exit_code if stack.dead_stores else 0


def _running_line(stack: LocalStack) -> str:
    running = ", ".join(server.store for server in stack.servers) or "nothing"
    return f"The stack in {stack.data_dir} listens on {stack.listen}. It runs {running}."


@command.command("reset")
@_ONLY
@DATA_DIR
@click.option("--yes", is_flag=True, help="Ask nothing.")
def reset_stack(only: tuple[str, ...], data_dir: Path | None, yes: bool) -> int:
    """Stop the stack and remove its data for good. Addresses and passwords stay.

    Nothing is removed but what a server of the stack has made.
    """
    from is_db_bootstrap.cli._question import ask_user
    from is_db_bootstrap.local import require_stack, reset

    folder = require_stack(data_dir)
    stores = _chosen_stores(only)
    question = f"Remove all data of {', '.join(stores)} in {folder}?"
    agrees = ask_user(question, yes=yes)
    if agrees is None:
        raise click.UsageError(f"{question} There is no terminal to ask at: say --yes.")
    if not agrees:
        raise click.ClickException("Nothing was removed.")
    removed = reset(data_dir, stores=stores, progress=print_progress)
    for path in removed.left:
        print_progress(f"left: {path}, which no server has made")
    names = ", ".join(removed.stores)
    whose = f" of {', '.join(only)}" if only else ""
    nothing = f"There was no data{whose} in {folder}."
    print_progress(f"Removed: {names}." if names else nothing)
    return 0
