"""Printing what renderers returned."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import result_stream

if TYPE_CHECKING:
    from is_db_bootstrap.render import Screen


def print_text(text: str) -> None:
    """Print what a renderer returned to stdout, its colours included."""
    answer().print_result(text)


def print_line(line: object, *, nl: bool = True) -> None:
    """Print a line of the result to stdout. Without `nl`, the line goes on."""
    end = "\n" if nl else ""
    answer().print_result(f"{line}{end}")


def print_to_stderr(line: str) -> None:
    """Print one line to stderr, its colours included."""
    click.echo(line, err=True, color=True)


def stdout_screen() -> Screen:
    """The screen that stdout is: that of a terminal, or a plain one."""
    from is_db_bootstrap.render import screen_of

    return screen_of(result_stream(), os.environ)
