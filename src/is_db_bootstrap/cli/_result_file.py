"""The file of `--result-file`: the document of a call, whole or not at all."""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import UNWRITTEN, code_after_output, masked_text, tell_failure
from is_db_bootstrap.private_files import open_private, write_private
from is_db_bootstrap.sentences import encodable
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that the reader of a pipe gets to make room for more.
_PATIENCE_S = 10.0


def write_result(text: str, code: int) -> int:
    """Leave the document of the call that runs, if it is to leave one. Returns the exit code.

    A reader finds the document before it or this one, and never a part. A file that cannot be
    written is told on stderr, and costs a call that succeeded its exit code 0.
    """
    path = answer().result_file
    if path is None:
        return code
    answer().is_filed = True
    try:
        _replace(path, encodable(masked_text(text)))
    except OSError as exc:
        reason = exc.strerror or exc
        tell_failure(
            visible(
                f"is-db-bootstrap: the result file {path} cannot be written: {reason}. "
                f"The work itself ended with {code}."
            )
        )
        return code or UNWRITTEN
    return code


def deliver(
    code: int,
    *,
    text_of: Callable[[int], str],
    show: Callable[[int], None],
    note: Callable[[int], None] = lambda _: None,
) -> int:
    """File, note and show the result of a call that ended with `code`. Returns its exit code.

    `text_of` makes the document for an exit code. `show` prints it, and `note` writes it into the
    termination log, which comes first because whoever reads stdout may never do so. Where stdout
    was lost, file and log say so afterwards.
    """
    code = write_result(text_of(code), code)
    note(code)
    show(code)
    final_code = code_after_output(code)
    if final_code != code:
        note(final_code)
        write_result(text_of(final_code), final_code)
    return code


def _replace(path: Path, text: str) -> None:
    """Put a whole file in the place of `path`.

    A pipe or a device gets the text as it is. So does a file that is a mount of its own, because
    nothing can take its place.
    """
    if path.exists() and not path.is_file():
        _hand_over(path, text)
        return
    import tempfile  # takes a while, and is needed by a call that leaves a file only

    place = path.resolve()
    number, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
    os.close(number)
    beside = Path(name)
    try:
        write_private(beside, text)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(place)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        _hand_over(place, text)
    finally:
        with suppress(OSError):
            beside.unlink()


def _hand_over(path: Path, text: str) -> None:
    """Write the text into what is there. A reader that does not keep up raises `OSError`."""
    with open_private(path, "w") as file:
        writable = select.poll()
        writable.register(file, select.POLLOUT)
        left = memoryview(text.encode())
        while left:
            if not writable.poll(_PATIENCE_S * 1000):
                raise OSError(errno.EAGAIN, f"nobody has read from it for {_PATIENCE_S:g} s")
            left = left[os.write(file.fileno(), left) :]
