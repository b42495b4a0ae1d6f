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

import click

from is_db_bootstrap.cli._endings import (
    BY_SIGNAL,
    ENDING,
    end_children,
    ending,
    judged,
    masked,
    say,
    unwritten,
)
from is_db_bootstrap.client_imports import keep_out
from is_db_bootstrap.guests import end_process
from is_db_bootstrap.results import BootstrapResult, Mode, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.fleet import Fleet
    from is_db_bootstrap.render import Screen
    from is_db_bootstrap.settings import RunOptions


def run(options: Options, mode: Mode, run_options: RunOptions, *, pending_code: int = 0) -> int:
    """Run `mode`, print the report, return the exit code.

    `pending_code` is that of a plan with changes.
    """
    keep_out()
    os.environ.setdefault(
        "GRPC_VERBOSITY", "NONE"
    )  # pymilvus's transport writes to stderr what is raised as well
    from is_db_bootstrap.app import orchestrator
    from is_db_bootstrap.leftovers import Guests
    from is_db_bootstrap.render import progress

    with refusals(options.termination_log):
        blueprint = options.declared()
        settings = options.settings(blueprint)
    guests = Guests()
    with progress(
        to_stderr, options.output, verbose=options.verbose, quiet=options.quiet
    ) as observer:
        if observer.verbose:
            observer.addresses(settings)
        with refusals(options.termination_log):
            engine = orchestrator(blueprint, settings, run_options, observers=[observer, guests])
        with signals(engine):
            result = engine.run(mode)
            if engine.ended_early:
                result = guests.end(result, engine.stores, settings)
    if (
        pending_code
        and result.exit_code == 0
        and any(c.outcome == "planned" for s in result.stores for c in s.changes)
    ):
        result = replace(result, exit_code=pending_code)
    leave_behind(engine)
    return deliver(result, options)


def print_text(text: str) -> None:
    """Print what a renderer returned to stdout, its colours included."""
    click.echo(text, nl=False, color=True)


def to_stderr(line: str) -> None:
    """Print one line to stderr, as it is."""
    click.echo(line, err=True, color=True)


def stdout_screen() -> Screen:
    """What stdout is: a terminal or not."""
    from is_db_bootstrap.render import screen_of

    return screen_of(sys.stdout, os.environ)


@contextmanager
def refusals(termination_log: Path | None) -> Iterator[None]:
    """An error or a signal outside of a run stands in the termination log too."""
    from is_db_bootstrap.errors import BootstrapError, Interrupted
    from is_db_bootstrap.render import refusal

    try:
        yield
    except BootstrapError as exc:
        if termination_log:
            leave(termination_log, refusal(exc))
        raise
    except KeyboardInterrupt:
        if termination_log:
            interrupted = Interrupted("The command was interrupted.", hint="Run again.")
            leave(termination_log, refusal(interrupted, exit_code=ending.code))
        raise


def leave(path: Path, text: str) -> None:
    """Write a termination log; that it cannot be written is said, and changes nothing."""
    from is_db_bootstrap.private_files import open_private

    try:
        with open_private(path, "w") as file:
            file.write(masked(text))
    except OSError as exc:
        click.echo(
            f"is-db-bootstrap: the termination log {path} cannot be written: {exc.strerror or exc}",
            err=True,
        )


def _print(result: BootstrapResult, options: Options) -> None:
    from is_db_bootstrap.render import document, report

    if options.output == "json":
        print_text(document(result))
    elif not options.quiet or result.exit_code:
        print_text(report(result, stdout_screen(), verbose=options.verbose))


def deliver(result: BootstrapResult, options: Options) -> int:
    """Leave the termination log, print the report, and return the exit code.

    The log comes first: whoever reads stdout may never do so. What failed is also told on stderr
    when stdout has a document, or cannot be written.
    """
    from is_db_bootstrap.render import summary

    if options.termination_log:
        leave(options.termination_log, summary(result))
    _print(result, options)
    if options.output == "json" or unwritten():
        tell_failures(result)
    code = judged(result.exit_code)
    if options.termination_log and code != result.exit_code:
        leave(options.termination_log, summary(replace(result, exit_code=code)))
    if result.outcome == "interrupted":
        ending.abandoned = True
    return code


def tell_failures(result: BootstrapResult) -> None:
    """One line on stderr for each store that failed: object, cause, next step."""
    for store in result.stores:
        if store.error:
            message = store.error.message.removeprefix(f"{store.store}: ")
            line = " ".join(f"{store.store}: {message} {store.error.hint}".split())
            click.echo(f"is-db-bootstrap: {line}", err=True)


def leave_behind(engine: BootstrapOrchestrator) -> None:
    """Let the process end without its threads, and its children with it, when a call of the run did not come back."""
    if engine.unfinished:
        ending.abandoned = True
        end_children()


@contextmanager
def signals(engine: BootstrapOrchestrator | Fleet) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP ends the run cleanly, the second the process.

    An ignored SIGHUP stays ignored.
    """
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if seen:
            if sys.stderr.isatty():
                say(b"\x1b[?25h")  # the live progress has hidden the cursor
            engine.kill()
            end_process(BY_SIGNAL + number)
        seen.append(number)
        say(
            b"is-db-bootstrap: ending the run; what runs gets a few seconds, a second signal ends at once\n"
        )
        engine.interrupt(BY_SIGNAL + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def selftest(options: Options) -> int:
    """Wait for the stores, then try one after the other.

    3 when a check failed, the engine's code when a store is not usable.
    """
    keep_out()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from is_db_bootstrap.app import orchestrator
    from is_db_bootstrap.render import progress, summary

    with refusals(options.termination_log):
        blueprint = options.declared()
        settings = options.settings(blueprint)
        with progress(
            to_stderr, options.output, verbose=options.verbose, quiet=options.quiet
        ) as observer:
            engine = orchestrator(blueprint, settings, options.run_options(), observers=[observer])
            with signals(engine):
                result = engine.run(Mode.VERIFY)
        leave_behind(engine)
        if not result.ok:
            return deliver(result, options)
        code = _try_everything(blueprint.name, engine, options)
    if code and (options.output == "json" or unwritten()):
        click.echo(
            f"is-db-bootstrap: {blueprint.name}: a check of the self-test failed. Run it with --output text.",
            err=True,
        )
    code = judged(code)
    if options.termination_log:
        outcome = Outcome.FAILED if code else result.outcome
        leave(options.termination_log, summary(replace(result, exit_code=code, outcome=outcome)))
    return code


def _try_everything(blueprint: str, engine: BootstrapOrchestrator, options: Options) -> int:
    """Print each check of the self-test while they are made; 3 when one failed, else 0."""
    from is_db_bootstrap.render.proofs import proof_line, proofs_document, proofs_total

    screen = stdout_screen()
    proofs = []
    for store, proof in engine.selftest():
        proofs.append((store.name, proof))
        if options.output == "text" and not (options.quiet and proof.ok):
            print_text(proof_line(store.name, proof, screen))
    code = 3 if any(proof.ok is False for _, proof in proofs) else 0
    if options.output == "json":
        print_text(proofs_document(blueprint, proofs, code))
    elif not options.quiet:
        print_text(proofs_total(blueprint, [proof for _, proof in proofs], code, screen))
    return code
