"""What a call has asked to get: on stdout, on stderr, and in its termination log.

`--output`, `--quiet` and `--termination-log` mean the same for every command, so they are noted
here while they are read. A command prints its result, or returns, or raises. `Answer.end` sees to
what is missing then: a document on stdout, and the termination log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap.cli._endings import (
    code_after_output,
    result_stream,
    tell_failure,
)
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import click

    from is_db_bootstrap.cli._json_log import JsonLog
    from is_db_bootstrap.errors import BootstrapError

#: The outcome of a command that did what was asked and has no result of a run.
_DONE = "done"


class Answer:
    """What one call has asked to get, and what of that it has got so far."""

    def __init__(self) -> None:
        self.command = ""
        self.output = "text"
        self.is_quiet = False
        self.is_verbose = False
        self.log: Path | None = None
        #: The file for the document that `--output json` prints.
        self.result_file: Path | None = None
        #: Makes records of what stderr gets. None: stderr gets text.
        self.json_log: JsonLog | None = None
        #: Why the command failed, where a command has told that by itself.
        self.error: BootstrapError | None = None
        #: Whether the command has written the termination log.
        self.is_logged = False
        #: Whether the file of the result has been written, or cannot be written.
        self.is_filed = False
        #: The document of the command, where it has one besides how it ended.
        self.result_document: dict[str, object] | None = None
        self._run_id = ""
        self._has_result = False
        self._held: list[str] = []

    @property
    def run_id(self) -> str:
        """The id of this call, which its run, its events and its locks have."""
        if not self._run_id:
            from is_db_bootstrap.engine.context import new_run_id

            self._run_id = new_run_id()
        return self._run_id

    @property
    def is_json(self) -> bool:
        """Whether stdout gets one document, and nothing else."""
        return self.output == "json"

    def print_result(self, text: str) -> None:
        """Print a part of the result, colours included.

        With `--quiet` it is held back, and a command that succeeds does not print it at all.
        """
        self._has_result = True
        if self.is_quiet and not self.is_json:
            self._held.append(text)
        else:
            _echo(text)

    def end(
        self,
        code: int,
        error: BootstrapError | None,
        write_log: Callable[[Path, str], None],
        write_result: Callable[[str, int], int],
    ) -> int:
        """Give what the command has not given by itself, and return `code`.

        `write_log` writes a text into the termination log. The log comes first, because whoever
        reads stdout may never do so. `write_result` writes a text into the file of the result, and
        returns the exit code of the call.
        """
        error = error or self.error
        is_ours = not self.is_logged
        if is_ours:
            self._write_log(code, error, write_log)
        is_file_ours = self.result_file is not None and not self.is_filed
        if is_file_ours:
            code = write_result(self._text_of_file(code, error), code)
        if code and self._held:
            _echo("".join(self._held))
        if code and self.is_json and not self._has_result:
            _echo(_as_json(self.document(code, error)))
        final_code = code_after_output(code)
        if is_ours and final_code != code:
            self._write_log(final_code, error, write_log)
        if is_file_ours and final_code != code:
            write_result(self._text_of_file(final_code, error), final_code)
        return code

    def _text_of_file(self, code: int, error: BootstrapError | None) -> str:
        """The document for the file of the result."""
        given = self.result_document
        if given is None or (error is not None and "error" not in given):
            return _as_json(self.document(code, error))
        return _as_json({**given, "exit_code": code} if "exit_code" in given else given)

    def document(self, code: int, error: BootstrapError | None = None) -> dict[str, object]:
        """How the command ended, as a document for a call that has no result of a run."""
        from dataclasses import asdict

        from is_db_bootstrap.results import SCHEMA_VERSION, Outcome

        outcome = Outcome.FAILED if code else _DONE
        if error is not None and error.kind == "interrupted":
            outcome = Outcome.INTERRUPTED
        found: dict[str, object] = {
            "command": self.command,
            "outcome": outcome,
            "exit_code": code,
        }
        if self._run_id:
            found["run_id"] = self._run_id
        if error is not None:
            found["error"] = asdict(error.report())
        return {**found, "schema_version": SCHEMA_VERSION}

    def _write_log(
        self, code: int, error: BootstrapError | None, write_log: Callable[[Path, str], None]
    ) -> None:
        if self.log is None:
            return
        import json

        from is_db_bootstrap.render.summary import refusal

        of_error = refusal(error, exit_code=code) if error is not None else ""
        write_log(self.log, of_error or json.dumps(self.document(code)))


class _Here:
    """The answer of the call that runs."""

    answer = Answer()


def begin_answer() -> Answer:
    """Forget the call before, and return the answer of the next one."""
    _Here.answer = Answer()
    return _Here.answer


def answer() -> Answer:
    """The answer of the call that runs."""
    return _Here.answer


def note_option(ctx: click.Context, option: click.Parameter, value: object) -> object:
    """Note one of the options that this module is about. A callback of click."""
    if ctx.resilient_parsing:  # A shell asks what can be typed here.
        return value
    here = answer()
    here.command = ctx.command_path.partition(" ")[2]
    if option.name == "output":
        here.output = str(value)
    elif option.name == "quiet":
        here.is_quiet = bool(value)
    elif option.name == "verbose":
        here.is_verbose = bool(value)
    elif option.name == "termination_log":
        here.log = value  # type: ignore[assignment]  # a path, by the type of the option
    elif option.name == "result_file":
        here.result_file = value  # type: ignore[assignment]  # a path, by the type of the option
    elif option.name == "log_format" and value == "json":
        _log_as_json(here)
    return value


def _log_as_json(here: Answer) -> None:
    from is_db_bootstrap.cli._endings import log_as_json
    from is_db_bootstrap.cli._json_log import JsonLog

    here.json_log = JsonLog(here.run_id)
    log_as_json(here.json_log)


def print_note(line: str) -> None:
    """Print a line for a person to stderr. `--quiet` leaves it out."""
    if not answer().is_quiet:
        _echo_to_stderr(line)


def print_document(document: dict[str, object]) -> None:
    """Print the one document of a command that was asked for JSON."""
    answer().print_result(_as_json(document))


def give_document(document: dict[str, object]) -> bool:
    """Give the document of a command to its file, and to stdout where that is to have it.

    Returns whether stdout is to have it, and so nothing else.
    """
    answer().result_document = document
    if answer().is_json:
        print_document(document)
    return answer().is_json


def fail(code: int, message: str, *, hint: str = "") -> int:
    """Tell on stderr why the command fails, keep it for its document and log, and return `code`."""
    from is_db_bootstrap.errors import BootstrapError

    error = BootstrapError(message, hint=hint)
    answer().error = error
    tell_failure(visible(f"is-db-bootstrap: {error}"))
    return code


def _as_json(document: dict[str, object]) -> str:
    from is_db_bootstrap.render.document import as_json

    return as_json(document)


def _echo(text: str) -> None:
    import click

    click.echo(text, file=result_stream(), nl=False, color=True)


def _echo_to_stderr(line: str) -> None:
    import click

    click.echo(visible(line), err=True)
