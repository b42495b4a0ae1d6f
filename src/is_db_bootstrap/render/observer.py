"""Who watches a run for the command: a live display on a terminal, lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from is_db_bootstrap.render.progress import Progress


@contextmanager
def progress(
    write: Callable[[str], object], output: str, *, verbose: bool, quiet: bool
) -> Iterator[Progress]:
    """An observer. Only when stderr is a terminal and stdout gets text, the observer draws live.

    `write` takes a line for stderr. A live display writes its lines itself, above what it redraws.
    """
    is_live = not quiet and output == "text" and sys.stderr.isatty()
    if not is_live:
        yield Progress(write, verbose=verbose, quiet=quiet)
        return
    from is_db_bootstrap.render.live import live_progress

    with live_progress(verbose=verbose) as observer:
        yield observer
