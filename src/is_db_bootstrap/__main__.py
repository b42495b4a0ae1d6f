"""`python -m is_db_bootstrap`, and the command `is-db-bootstrap`.

The import of the command takes a tenth of a second. A Ctrl-C in that time ends the process with the
exit code of every other one, and without a traceback. So this module imports nothing that takes
time before it has said so.
"""

from __future__ import annotations

# `_signal` is built in. `signal` imports `enum`, which takes longer than all the rest here.
import _signal  # type: ignore[import-not-found]  # typeshed has no stub of it
import os
import sys

TYPE_CHECKING = False  # as in the package itself
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def end_early(number: int, _: FrameType | None) -> NoReturn:
    """End the process: nothing was begun yet, so nothing is left to end."""
    os.write(2, b"is-db-bootstrap: interrupted before it began. Run again.\n")
    os._exit(128 + number)


#: A worker of a fleet imports the script of its parent, and has signals of its own.
_is_worker = "--multiprocessing-fork" in sys.orig_argv
if _signal.getsignal(_signal.SIGINT) == _signal.default_int_handler and not _is_worker:
    _signal.signal(_signal.SIGINT, end_early)


def main() -> NoReturn:
    """Run the command line, and exit with its code."""
    from is_db_bootstrap import cli

    cli.main(usual_handlers=(end_early,))


if __name__ == "__main__":
    main()
