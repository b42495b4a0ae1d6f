"""`python -m is_db_bootstrap`, and the command `is-db-bootstrap`.

The import of the command takes a tenth of a second. A Ctrl-C in that time ends the process with the
exit code and the words of every other one. So this module imports nothing before it has said so.
"""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def end_early(number: int, _: FrameType | None) -> NoReturn:
    """End the process: nothing was begun yet, so nothing is left to end."""
    os.write(2, b"is-db-bootstrap: interrupted before it began. Run again.\n")
    os._exit(128 + number)


#: A worker of a fleet imports the script of its parent, and has signals of its own.
_is_worker = "--multiprocessing-fork" in sys.orig_argv
if signal.getsignal(signal.SIGINT) == signal.default_int_handler and not _is_worker:
    signal.signal(signal.SIGINT, end_early)


def main() -> NoReturn:
    """Run the command line, and exit with its code."""
    from is_db_bootstrap import cli

    cli.main(usual_handlers=(end_early,))


if __name__ == "__main__":
    main()
