"""Who watches a run for the call: a live display, lines for a person, or records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import write_record
from is_db_bootstrap.cli._output import print_to_stderr
from is_db_bootstrap.render import progress

if TYPE_CHECKING:
    from is_db_bootstrap.cli._json_log import JsonProgress


def records_observer(*, verbose: bool, quiet: bool) -> JsonProgress | None:
    """The observer of a run whose events are records. None where stderr gets text."""
    log = answer().json_log
    if log is None:
        return None
    from is_db_bootstrap.cli._json_log import JsonProgress

    return JsonProgress(write_record, log.run_id, verbose=verbose, quiet=quiet)


@contextmanager
def run_observer(output: str, *, verbose: bool, quiet: bool) -> Iterator[Any]:
    """The observer of a run, as the call has asked. It has `verbose` and `addresses(settings)`."""
    records = records_observer(verbose=verbose, quiet=quiet)
    if records is not None:
        yield records
        return
    with progress(print_to_stderr, output, verbose=verbose, quiet=quiet) as observer:
        yield observer
