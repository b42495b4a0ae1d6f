"""From options to a printed result: what apply, plan, verify, wait and status share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._endings import (
    BY_SIGNAL,
    ENDING_SIGNALS,
    end_children,
    ending,
    stdout_failure,
    tell_failure,
    write_from_handler,
)
from is_db_bootstrap.cli._log import run_observer
from is_db_bootstrap.cli._output import print_text, stdout_screen
from is_db_bootstrap.cli._result_file import deliver
from is_db_bootstrap.cli._surroundings import refuse_few_files
from is_db_bootstrap.cli._termination_log import log_refusals, write_log
from is_db_bootstrap.client_imports import keep_out
from is_db_bootstrap.guests import end_process
from is_db_bootstrap.leftovers import Guests
from is_db_bootstrap.render import document, report, summary
from is_db_bootstrap.results import BootstrapResult, Mode, Outcome
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.fleet import Fleet
    from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl

#: Makes a terminal's cursor visible, which the live progress has hidden.
_SHOW_CURSOR = b"\x1b[?25h"


def prepare_clients() -> None:
    """Prepare for the import of the clients: without pandas, and without messages of their own."""
    refuse_few_files()
    keep_out()
    # pymilvus raises what goes wrong. Its transport would also write it to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def run_mode(
    options: Options, mode: Mode, run_options: RunOptions, *, pending_code: int = 0
) -> int:
    """Run `mode`, print the report, and return the exit code.

    `pending_code` is the exit code of a plan with changes.
    """
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
    guests = Guests()
    with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        if observer.verbose:
            observer.addresses(settings)
        with log_refusals(options.termination_log):
            engine = app.orchestrator(
                blueprint, settings, options.with_choice(run_options), observers=[observer, guests]
            )
        with signals_end_run(engine):
            result = engine.run(mode)
            result = guests.end_after(result, engine.stores, settings)
    if pending_code and result.exit_code == 0 and _has_planned_changes(result):
        result = replace(result, exit_code=pending_code)
    abandon_unfinished_calls(engine)
    return deliver_result(result, options, settings)


def _has_planned_changes(result: BootstrapResult) -> bool:
    changes = [change for store in result.stores for change in store.changes]
    return any(change.outcome == Outcome.PLANNED for change in changes)


def deliver_result(
    result: BootstrapResult, options: Options, settings: Settings | None = None
) -> int:
    """Write the termination log, print the report, and return the exit code of the run.

    A comment for a pull request is printed without the secrets of `settings`. Failures are also
    told on stderr when stdout gets a document, or cannot be written.
    """

    def show(code: int) -> None:
        _print_result(replace(result, exit_code=code), options, settings)
        if options.output != "text" or stdout_failure():
            _print_failures(result)

    code = deliver(
        result.exit_code,
        text_of=lambda code: document(replace(result, exit_code=code)),
        show=show,
        note=lambda code: write_log(
            options.termination_log, summary(replace(result, exit_code=code))
        ),
    )
    if result.outcome == Outcome.INTERRUPTED:
        ending.abandoned = True
    return code


def _print_result(result: BootstrapResult, options: Options, settings: Settings | None) -> None:
    has_failed = result.exit_code != 0
    if options.output == "json":
        print_text(document(result))
    elif options.output == "markdown":
        from is_db_bootstrap.render.plan_comment import plan_comment

        mask = mask_of(settings.stores.values() if settings else ())
        print_text(plan_comment(result.to_dict(), mask))
    elif result.machine is not None:
        from is_db_bootstrap.render.doctor import doctor_page

        mask = mask_of(settings.stores.values() if settings else ())
        print_text(mask(doctor_page(result)))
    elif options.output == "junit":
        from is_db_bootstrap.render.junit import junit_run

        mask = mask_of(settings.stores.values() if settings else ())
        print_text(junit_run(result.to_dict(), mask))
    elif has_failed or not options.quiet:
        print_text(report(result, stdout_screen(), verbose=options.verbose))


def mask_of(urls: Iterable[StoreUrl]) -> Callable[[str], str]:
    """What takes the secrets of these addresses out of a text."""
    # Many targets have one password.
    different = {(url.store, url.username, url.password, url.query): url for url in urls}

    def mask(text: str) -> str:
        for url in different.values():
            text = url.masked(text)
        return text

    return mask


def _print_failures(result: BootstrapResult) -> None:
    """Print one line on stderr for each store that failed: object, cause, next step.

    The line is for a person, so it has the detail that the JSON document does not have.
    """
    for store in result.stores:
        if store.error is None:
            continue
        message = store.error.message.removeprefix(f"{store.store}: ")
        detail = getattr(store.exception, "detail", "")
        words = f"{store.store}: {message} {detail} {store.error.hint}".split()
        tell_failure(visible(f"is-db-bootstrap: {' '.join(words)}"))


def abandon_unfinished_calls(engine: BootstrapOrchestrator) -> None:
    """Let the process end without a call of the run that did not come back.

    The process then waits for none of its threads, and its children end with it.
    """
    if engine.unfinished:
        ending.abandoned = True
        end_children()


@contextmanager
def signals_end_run(engine: BootstrapOrchestrator | Fleet) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the run cleanly, and the second the process.

    An ignored SIGHUP stays ignored.
    """
    received: list[int] = []

    def handle_signal(number: int, _: FrameType | None) -> None:
        if received:
            if sys.stderr.isatty():
                write_from_handler(_SHOW_CURSOR)
            engine.kill()
            end_process(BY_SIGNAL + number)
        received.append(number)
        write_from_handler(
            b"is-db-bootstrap: ending the run; "
            b"what runs gets a few seconds, a second signal ends at once\n"
        )
        engine.interrupt(BY_SIGNAL + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in ENDING_SIGNALS if not _is_ignored_hangup(number)]
    before = {number: signal.signal(number, handle_signal) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ignored_hangup(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
