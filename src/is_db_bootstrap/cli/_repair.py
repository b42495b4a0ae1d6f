"""From options to the printed result of a repair: look, show, ask, mend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._answer import fail
from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE
from is_db_bootstrap.cli._output import print_text, print_to_stderr, stdout_screen
from is_db_bootstrap.cli._run import (
    abandon_unfinished_calls,
    deliver_result,
    prepare_clients,
    signals_end_run,
)
from is_db_bootstrap.cli._termination_log import log_refusals
from is_db_bootstrap.cli.migrate._options import ask_user
from is_db_bootstrap.render import progress, report
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
    if options.output == "text" and not options.quiet:
        print_text(report(look, stdout_screen(), verbose=options.verbose))
    answer = ask_user(f"Make {counted(number, 'repair')} now?", yes=yes)
    if answer is None:
        return fail(
            WRONG_USAGE,
            f"{counted(number, 'repair')} can be made. Nothing was changed, because there is no"
            " terminal to ask at.",
            hint="Say --yes.",
        )
    if not answer:
        return fail(FAILED, "Nothing was changed.")
    result = _run(options, blueprint, settings, approved=look)
    return deliver_result(result, options, settings)


def _run(
    options: Options,
    blueprint: Blueprint,
    settings: Settings,
    approved: BootstrapResult | None = None,
) -> BootstrapResult:
    """Look at the stores, or make the repairs that the look `approved` has shown."""
    with progress(
        print_to_stderr, options.output, verbose=options.verbose, quiet=options.quiet
    ) as observer:
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
