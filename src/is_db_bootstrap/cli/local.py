"""`is-db-bootstrap local`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from is_db_bootstrap.cli._endings import ENDING, unwritten

if TYPE_CHECKING:
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.local import LocalStack
    from is_db_bootstrap.settings import Settings

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the stack keeps its data.",
)
_output = click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What stdout gets.",
)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def environment(options: Options, found: Settings) -> dict[str, str]:
    """The process's environment with the addresses of the local stack, which is started when it is not running.

    An address that is set as well is a `ConfigurationError`: which of the two is meant, only the user knows.
    """
    from is_db_bootstrap.errors import ConfigurationError

    taken = sorted({url.source for url in found.stores.values()} - {"default"})
    if taken:
        raise ConfigurationError(
            f"--local and an address are both given: {', '.join(taken)}.", hint="Keep one of them."
        )
    from is_db_bootstrap.local import up

    progress = (lambda _: None) if options.quiet else _progress
    return {**os.environ, **up(options.data_dir, progress=progress).environ()}


def _show(stack: LocalStack | None, output: str) -> int:
    import json
    import shlex

    if output == "json":
        click.echo(json.dumps(stack.to_json() if stack else {"servers": []}, indent=2))
    elif stack is None:
        click.echo("No local stack is running.", err=True)
    else:
        for name, value in stack.environ().items():
            click.echo(f"{name}={shlex.quote(value)}")
    return 0


@click.group("local")
def command() -> None:
    """Run the four stores here, as child processes without Docker."""


@command.command("up")
@_data_dir
@_output
@click.option(
    "--listen",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; passwords are always set.",
)
@click.option(
    "--ephemeral",
    is_flag=True,
    help="A new stack that is removed on Ctrl-C; stays in the foreground.",
)
def up_(data_dir: Path | None, output: str, listen: str, ephemeral: bool) -> int:
    """Start the stack, or find the one that runs, and print its addresses as environment lines."""
    from is_db_bootstrap.client_imports import keep_out
    from is_db_bootstrap.local import up

    keep_out()
    if ephemeral:
        return _until_interrupted(data_dir, output, listen)
    code = _show(up(data_dir, listen=listen, progress=_progress), output)
    if unwritten():
        _progress(
            "The stack runs. `is-db-bootstrap local status` prints its addresses, `local down` stops it."
        )
    return code


def _until_interrupted(data_dir: Path | None, output: str, listen: str) -> int:
    import signal
    import threading

    from is_db_bootstrap.errors import ConfigurationError
    from is_db_bootstrap.local import ephemeral_stack

    if data_dir is not None or listen != "127.0.0.1":
        raise ConfigurationError(
            "--ephemeral takes neither --data-dir nor --listen.", hint="Leave them out."
        )

    def end(*_: object) -> NoReturn:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # a second one would leave servers behind
        raise KeyboardInterrupt  # SIGINT itself is ignored in a shell's background job

    for number in ENDING:
        if number == signal.SIGTERM or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        with ephemeral_stack(_progress) as stack:
            _show(stack, output)
            if unwritten():
                _progress("Nobody can read the addresses of the stack, so it is removed.")
                return 0
            threading.Event().wait()
    except KeyboardInterrupt:
        _progress("removed")
    return 0


@command.command("down")
@_data_dir
def down_(data_dir: Path | None) -> int:
    """Stop what `up` started; data stays."""
    from is_db_bootstrap.local import down

    stopped = down(data_dir, progress=_progress)
    click.echo(
        f"Stopped: {', '.join(stopped)}." if stopped else "No local stack is running.", err=True
    )
    return 0


@command.command("status")
@_data_dir
@_output
def status_(data_dir: Path | None, output: str) -> int:
    """Print the addresses of the running stack; exit 4 when a part of it has died."""
    from is_db_bootstrap.errors import StoreUnavailable
    from is_db_bootstrap.local import status
    from is_db_bootstrap.names import STORE_ORDER

    stack = status(data_dir)
    died = [name for name in STORE_ORDER if stack and name not in {s.store for s in stack.servers}]
    for name in died:
        _progress(f"{name}: not running; `is-db-bootstrap local up` starts it again")
    return _show(stack, output) or (StoreUnavailable.exit_code if died else 0)
