"""Who watches a run for the call: a live display, lines for a person, or records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import write_record
from is_db_bootstrap.cli._output import print_to_stderr
from is_db_bootstrap.render import progress


@contextmanager
def run_observer(output: str, *, verbose: bool, quiet: bool) -> Iterator[Any]:
    """The observer of a run, as the call has asked. It has `verbose` and `addresses(settings)`."""
    log = answer().json_log
    if log is None:
        with progress(print_to_stderr, output, verbose=verbose, quiet=quiet) as observer:
            yield observer
        return
    from is_db_bootstrap.cli._json_log import JsonProgress

    yield JsonProgress(write_record, log.run_id, verbose=verbose, quiet=quiet)
