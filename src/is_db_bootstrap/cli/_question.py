"""A question to the person at the terminal, before a command does what nobody may expect."""

from __future__ import annotations

import sys

import click

from is_db_bootstrap.cli._answer import answer, fail
from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE
from is_db_bootstrap.cli._output import tell


def refuse_unanswerable(*, yes: bool) -> None:
    """Raise `click.UsageError` where stderr gets records: no person answers a question there.

    A command that asks calls this before it looks at any store. `migrate downgrade` asks only where
    rows would be lost, and refuses then.
    """
    if answer().json_log is not None and not yes:
        raise click.UsageError("A log of records cannot ask: --log-format json needs --yes here.")


def ask_user(question: str, *, yes: bool) -> bool | None:
    """Whether a person at the terminal, or `--yes`, agrees. None without either.

    Raises what `refuse_unanswerable` raises.
    """
    if yes:
        return True
    refuse_unanswerable(yes=yes)
    if not sys.stdin.isatty():
        return None
    tell(f"{question} [y/N] ", nl=False)
    reply = sys.stdin.readline().strip().lower()
    return reply in {"y", "yes"}


def refuse_unasked(said: str) -> int:
    """Tell that a question could be asked of nobody. `said` is a sentence on what was not done.

    Returns the exit code.
    """
    return fail(WRONG_USAGE, f"{said} There is no terminal to ask at.", hint="Say --yes.")


def code_of_refusal(
    question: str, *, yes: bool, undone: str = "Nothing was changed."
) -> int | None:
    """Ask. None when somebody agrees, else the exit code of the command.

    `undone` says what the command has not done then. This is told on stderr. Raises what
    `refuse_unanswerable` raises.
    """
    agreed = ask_user(question, yes=yes)
    if agreed is None:
        return refuse_unasked(undone)
    return None if agreed else fail(FAILED, undone)
