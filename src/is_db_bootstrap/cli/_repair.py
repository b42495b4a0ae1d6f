"""From options to the printed result of a repair: look, show, ask, mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._log import run_observer
from is_db_bootstrap.cli._output import print_text, stdout_screen, tell
from is_db_bootstrap.cli._question import code_of_refusal
from is_db_bootstrap.cli._run import (
    abandon_unfinished_calls,
    deliver_result,
    prepare_clients,
    signals_end_run,
)
from is_db_bootstrap.cli._termination_log import log_refusals
from is_db_bootstrap.render import report
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.results import BootstrapResult
    from is_db_bootstrap.settings import Settings


#: Outcomes of a store that was not looked at to the end.
_UNSEEN = frozenset({Outcome.FAILED, Outcome.INTERRUPTED, Outcome.SKIPPED})


def run_repair(options: Options, *, yes: bool) -> int:
    """Look at the stores, show what would mend them, ask, and mend. Returns the exit code."""
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
    look = _run(options, blueprint, settings)
    number = _number_of_changes(look)
    if not number or _has_failed(look):
        return deliver_result(look, options, settings)
    _show(look, options, yes=yes)
    code = code_of_refusal(f"Make {counted(number, 'repair')} now?", yes=yes)
    if code is not None:
        return code
    result = _run(options, blueprint, settings, approved=look)
    return deliver_result(result, options, settings)


def _show(look: BootstrapResult, options: Options, *, yes: bool) -> None:
    """Show the statements before anybody is asked, on stderr where stdout is not for them."""
    if options.output == "text" and not options.quiet:
        print_text(report(look, stdout_screen(), verbose=options.verbose))
    elif not yes:
        for line in report(look).splitlines():
            tell(line)


def _run(
    options: Options,
    blueprint: Blueprint,
    settings: Settings,
    approved: BootstrapResult | None = None,
) -> BootstrapResult:
    """Look at the stores, or make the repairs that the look `approved` has shown."""
    with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
        if observer.verbose and approved is None:
            observer.addresses(settings)
        with log_refusals(options.termination_log):
            engine = app.orchestrator(
                blueprint,
                settings,
                options.with_choice(options.run_options()),
                observers=[observer],
            )
        with signals_end_run(engine):
            result = engine.run(Mode.REPAIR, approved=approved)
    abandon_unfinished_calls(engine)
    return result


def _number_of_changes(look: BootstrapResult) -> int:
    return sum(
        change.outcome is Outcome.PLANNED for store in look.stores for change in store.changes
    )


def _has_failed(look: BootstrapResult) -> bool:
    """Whether a store could not be looked at. Then nothing is repaired anywhere."""
    return any(store.outcome in _UNSEEN for store in look.stores)
