"""From options to the printed page of `doctor`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._log import run_observer
from is_db_bootstrap.cli._run import (
    abandon_unfinished_calls,
    deliver_result,
    prepare_clients,
    signals_end_run,
)
from is_db_bootstrap.cli._termination_log import log_refusals
from is_db_bootstrap.machine import this_machine
from is_db_bootstrap.results import Mode

if TYPE_CHECKING:
    from is_db_bootstrap.cli._options import Options


def run_doctor(options: Options) -> int:
    """Look at every store, print the page, and return the exit code of the run."""
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
        run_options = options.with_choice(options.run_options(climbs=True))
        with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
            engine = app.orchestrator(blueprint, settings, run_options, observers=[observer])
            with signals_end_run(engine):
                result = engine.run(Mode.DOCTOR)
        machine = this_machine(settings, engine.stores)
    abandon_unfinished_calls(engine)
    return deliver_result(replace(result, machine=machine), options, settings)
