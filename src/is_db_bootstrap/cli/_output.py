"""Printing what renderers returned."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import log_message, result_stream
from is_db_bootstrap.wording import visible, visible_lines

if TYPE_CHECKING:
    from is_db_bootstrap.render import Screen


def print_text(text: str) -> None:
    """Print what a renderer returned to stdout, its colours included."""
    answer().print_result(text)


def print_line(line: object, *, nl: bool = True) -> None:
    """Print a line of the result to stdout. Without `nl`, the line goes on."""
    end = "\n" if nl else ""
    answer().print_result(f"{visible(str(line))}{end}")


def print_to_stderr(line: str) -> None:
    """Print one line to stderr, its colours included."""
    click.echo(line, err=True, color=True)


def tell(line: object, *, nl: bool = True) -> None:
    """Print one line about what is done to stderr. What a store has in it cannot break it."""
    click.echo(visible(str(line)), err=True, nl=nl)


def tell_error(error: object) -> None:
    """Print what went wrong to stderr: object, cause and next step.

    Further lines, such as the end of a server's log, begin in such a way that nobody takes them for
    lines of this tool.
    """
    if log_message(visible_lines(str(error)), "error"):
        return
    is_of_store = hasattr(error, "store")
    if is_of_store:
        tell(f"is-db-bootstrap: {error}")
        return
    first, *others = visible_lines(f"is-db-bootstrap: {error}").split("\n")
    click.echo("\n".join([first, *(f"  | {line}" for line in others)]), err=True)


def stdout_screen() -> Screen:
    """The screen that stdout is: that of a terminal, or a plain one."""
    from is_db_bootstrap.render import screen_of

    return screen_of(result_stream(), os.environ)
