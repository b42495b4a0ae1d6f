"""The termination log: a summary of the call in a file, where Kubernetes looks for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import ending, masked_text, tell_failure
from is_db_bootstrap.errors import BootstrapError, Interrupted
from is_db_bootstrap.private_files import open_private
from is_db_bootstrap.render import refusal
from is_db_bootstrap.sentences import encodable
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def write_log(path: Path | None, text: str) -> None:
    """Write the termination log, if there is to be one.

    A log that cannot be written is told on stderr, and changes nothing else.
    """
    if path is None:
        return
    answer().is_logged = True
    try:
        with open_private(path, "w") as file:
            file.write(encodable(masked_text(text)))
    except OSError as exc:
        reason = exc.strerror or exc
        tell_failure(
            visible(f"is-db-bootstrap: the termination log {path} cannot be written: {reason}")
        )


@contextmanager
def log_refusals(path: Path | None) -> Iterator[None]:
    """Write an error or a signal outside of a run to the termination log, and let it pass."""
    try:
        yield
    except BootstrapError as exc:
        write_log(path, refusal(exc))
        raise
    except KeyboardInterrupt:
        interrupted = Interrupted("The command was interrupted.", hint="Run again.")
        write_log(path, refusal(interrupted, exit_code=ending.code))
        raise
