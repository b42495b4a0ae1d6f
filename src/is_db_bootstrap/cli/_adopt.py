"""From options to adopted stores: what would be recorded, the question, and the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._log import run_observer
from is_db_bootstrap.cli._output import tell
from is_db_bootstrap.cli._question import code_of_refusal
from is_db_bootstrap.cli._run import (
    abandon_unfinished_calls,
    deliver_result,
    prepare_clients,
    signals_end_run,
)
from is_db_bootstrap.cli._termination_log import log_refusals
from is_db_bootstrap.leftovers import Guests
from is_db_bootstrap.render import report
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.results import BootstrapResult
    from is_db_bootstrap.settings import RunOptions, Settings


def adopt(options: Options, run_options: RunOptions, *, yes: bool) -> int:
    """Look, show what would be recorded, ask unless `yes`, and record. Returns the exit code."""
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
    guests = Guests()
    with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        if observer.verbose:
            observer.addresses(settings)
        with log_refusals(options.termination_log):
            run_options = options.with_choice(run_options)
            engine = app.orchestrator(
                blueprint, settings, run_options, observers=[observer, guests]
            )
        foreseen = _run(engine, guests, settings, foresees=not yes)
    records = _planned(foreseen)
    if yes or not foreseen.ok or not records:
        return deliver_result(foreseen, options, settings)
    code = _code_of_refusal(foreseen, records)
    if code is not None:
        return code
    with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        engine = app.orchestrator(blueprint, settings, run_options, observers=[observer, guests])
        result = _run(engine, guests, settings)
    return deliver_result(result, options, settings)


def _run(
    engine: BootstrapOrchestrator, guests: Guests, settings: Settings, *, foresees: bool = False
) -> BootstrapResult:
    with signals_end_run(engine):
        result = engine.run(Mode.ADOPT, foresees=foresees)
        result = guests.end_after(result, engine.stores, settings)
    abandon_unfinished_calls(engine)
    return result


def _code_of_refusal(foreseen: BootstrapResult, records: int) -> int | None:
    """Show what would be recorded, and ask. None when somebody agrees, else the exit code."""
    for line in report(foreseen).splitlines():
        tell(line)
    question = f"Write {counted(records, 'record')}, and change nothing else?"
    return code_of_refusal(question, yes=False, undone="Nothing was recorded.")


def _planned(result: BootstrapResult) -> int:
    """How many records are to be written."""
    changes = [change for store in result.stores for change in store.changes]
    return sum(change.outcome is Outcome.PLANNED for change in changes)
