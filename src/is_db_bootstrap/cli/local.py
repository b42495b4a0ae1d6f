"""`is-db-bootstrap local`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from is_db_bootstrap.cli._commands import SuggestingGroup
from is_db_bootstrap.cli._endings import ENDING_SIGNALS, stdout_failure
from is_db_bootstrap.cli._local_stack import print_progress
from is_db_bootstrap.cli._options import DATA_DIR, OUTPUT
from is_db_bootstrap.cli._output import print_line

if TYPE_CHECKING:
    from is_db_bootstrap.local import LocalStack

_LOCALHOST = "127.0.0.1"


@click.group("local", cls=SuggestingGroup)
def command() -> None:
    """Run the four stores here, as child processes without Docker."""


@command.command("up")
@DATA_DIR
@OUTPUT
@click.option(
    "--listen",
    default=_LOCALHOST,
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Passwords are always set.",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="A new stack in the foreground, which is removed on Ctrl-C.",
)
def start_stack(data_dir: Path | None, output: str, listen: str, ephemeral: bool) -> int:
    """Start the stack, or find the one that runs, and print its addresses as environment lines."""
    from is_db_bootstrap.client_imports import keep_out
    from is_db_bootstrap.local import up

    keep_out()
    if ephemeral:
        _refuse_beside_ephemeral(data_dir, listen)
        return _run_ephemeral(output)
    stack = up(data_dir, listen=listen, progress=print_progress)
    _print_addresses(stack, output)
    if stdout_failure():
        print_progress(
            "The stack runs. `is-db-bootstrap local status` prints its addresses, "
            "`local down` stops it."
        )
    return 0


def _refuse_beside_ephemeral(data_dir: Path | None, listen: str) -> None:
    from is_db_bootstrap.errors import ConfigurationError

    if data_dir is not None or listen != _LOCALHOST:
        raise ConfigurationError(
            "--ephemeral takes neither --data-dir nor --listen.", hint="Leave them out."
        )


def _run_ephemeral(output: str) -> int:
    """Run a new stack until a signal comes, or remove it when nobody can read its addresses."""
    import threading

    from is_db_bootstrap.local import ephemeral_stack

    _end_on_signals()
    try:
        with ephemeral_stack(print_progress) as stack:
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


def _print_addresses(stack: LocalStack | None, output: str) -> None:
    import json
    import shlex

    if output == "json":
        document = stack.to_json() if stack else {"servers": []}
        print_line(json.dumps(document, indent=2))
    elif stack is None:
        click.echo("No local stack is running.", err=True)
    else:
        for name, value in stack.environ().items():
            print_line(f"{name}={shlex.quote(value)}")


@command.command("down")
@DATA_DIR
def stop_stack(data_dir: Path | None) -> int:
    """Stop what `up` started. Its data stays."""
    from is_db_bootstrap.local import down

    stopped = down(data_dir, progress=print_progress)
    message = f"Stopped: {', '.join(stopped)}." if stopped else "No local stack is running."
    click.echo(message, err=True)
    return 0


@command.command("status")
@DATA_DIR
@OUTPUT
def show_status(data_dir: Path | None, output: str) -> int:
    """Print the addresses of the running stack. Exit 4 when a part of it has died."""
    from is_db_bootstrap.errors import StoreUnavailable
    from is_db_bootstrap.local import status

    stack = status(data_dir)
    dead_stores = _dead_stores(stack)
    for name in dead_stores:
        print_progress(f"{name}: not running; `is-db-bootstrap local up` starts it again")
    _print_addresses(stack, output)
    return StoreUnavailable.exit_code if dead_stores else 0


def _dead_stores(stack: LocalStack | None) -> list[str]:
    """The stores that the stack should run and does not. Empty without a stack."""
    from is_db_bootstrap.names import STORE_ORDER

    if stack is None:
        return []
    running = {server.store for server in stack.servers}
    return [name for name in STORE_ORDER if name not in running]
