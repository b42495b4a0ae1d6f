"""The file of `--result-file`: the document of a call, whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import UNWRITTEN, masked_text
from is_db_bootstrap.cli._output import tell
from is_db_bootstrap.private_files import write_private
from is_db_bootstrap.sentences import encodable


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
        tell(
            f"is-db-bootstrap: the result file {path} cannot be written: {exc.strerror or exc}. "
            f"The work itself ended with {code}."
        )
        return code or UNWRITTEN
    return code


def _replace(path: Path, text: str) -> None:
    """Put a whole file in the place of `path`. A pipe or a device gets the text as it is."""
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
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
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
