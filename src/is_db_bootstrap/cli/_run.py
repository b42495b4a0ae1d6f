"""From options to a printed result: what apply, plan, verify, wait and status share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.client_imports import keep_out
from is_db_bootstrap.results import BootstrapResult, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.fleet import Fleet
    from is_db_bootstrap.orchestrator import BootstrapOrchestrator


def run(options: Options, mode: Mode, *, pending_code: int = 0, **extra: Any) -> int:
    """Run `mode`, print the report, return the exit code; `pending_code` is that of a plan with changes."""
    keep_out()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # pymilvus's transport writes to stderr what is raised as well
    from is_db_bootstrap.app import orchestrator
    from is_db_bootstrap.render import document, progress, report, summary

    with refusals(options.termination_log):
        blueprint = options.declared()
        settings = options.settings(blueprint)
    with progress(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        if observer.verbose:
            observer.addresses(settings)
        with refusals(options.termination_log):
            engine = orchestrator(blueprint, settings, only=options.only, skip=options.skip, observers=[observer], **extra)
        with signals(engine):
            result = engine.run(mode)
    if pending_code and result.exit_code == 0 and any(c.outcome == "planned" for s in result.stores for c in s.changes):
        result = replace(result, exit_code=pending_code)
    _print(result, options, document if options.output == "json" else report)
    if options.termination_log:
        leave(options.termination_log, summary(result))
    return _finish(result)


@contextmanager
def refusals(termination_log: Path | None) -> Iterator[None]:
    """An error before the run begins stands in the termination log too."""
    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.render import refusal

    try:
        yield
    except BootstrapError as exc:
        if termination_log:
            leave(termination_log, refusal(exc))
        raise


def leave(path: Path, text: str) -> None:
    """Write a termination log; that it cannot be written is said, and changes nothing."""
    from is_db_bootstrap.private_files import open_private

    try:
        with open_private(path, "w") as file:
            file.write(text)
    except OSError as exc:
        click.echo(f"is-db-bootstrap: the termination log {path} cannot be written: {exc.strerror or exc}", err=True)


def _print(result: BootstrapResult, options: Options, render: Any) -> None:
    if options.quiet and options.output == "text" and result.exit_code == 0:
        return
    render(result, verbose=options.verbose)


def _finish(result: BootstrapResult) -> int:
    """The exit code; a run that left a thread in a statement ends the process here, because nothing can be joined."""
    sys.stdout.flush()
    sys.stderr.flush()
    if result.outcome == "interrupted":
        os._exit(result.exit_code)
    return result.exit_code


@contextmanager
def signals(engine: BootstrapOrchestrator | Fleet) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the run cleanly, the second the process."""
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        if seen:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the live progress has hidden the cursor
                sys.stderr.flush()
            os._exit(128 + number)
        seen.append(number)
        os.write(2, b"is-db-bootstrap: ending the run; what runs gets a few seconds, a second signal ends at once\n")
        engine.interrupt(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def selftest(options: Options) -> int:
    """Wait for the stores, then try one after the other; 3 when a check failed, the engine's code when a store is not usable."""
    keep_out()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from is_db_bootstrap.app import orchestrator
    from is_db_bootstrap.render import document, progress, proofs, report

    blueprint = options.declared()
    settings = options.settings(blueprint)
    with progress(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        engine = orchestrator(blueprint, settings, only=options.only, skip=options.skip, observers=[observer])
        with signals(engine):
            result = engine.run(Mode.VERIFY)
    if not result.ok:
        (document if options.output == "json" else report)(result, verbose=options.verbose)
        return _finish(result)
    return proofs(blueprint.name, engine.selftest(), options.output, quiet=options.quiet)
