"""From options to the printed checks of a self-test."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._endings import code_after_output, stdout_failure, tell_failure
from is_db_bootstrap.cli._log import run_observer
from is_db_bootstrap.cli._output import print_text, stdout_screen
from is_db_bootstrap.cli._result_file import deliver
from is_db_bootstrap.cli._run import (
    abandon_unfinished_calls,
    deliver_result,
    mask_of,
    prepare_clients,
    signals_end_run,
)
from is_db_bootstrap.cli._termination_log import log_refusals, write_log
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.render import summary
from is_db_bootstrap.render.proofs import proof_line, proofs_document, proofs_total
from is_db_bootstrap.results import Mode, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.results import BootstrapResult, Proof
    from is_db_bootstrap.settings import Settings

#: The exit code when a check failed.
_CHECK_FAILED = 3


def run_selftest(options: Options, *, here: bool) -> int:
    """Verify the stores, then try one after the other. `here` is that of `RunOptions`.

    Returns 3 when a check failed, and the engine's exit code when a store is not as declared.
    """
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
        with run_observer(options.output, verbose=options.verbose, quiet=options.quiet) as observer:
            run_options = options.with_choice(options.run_options(here=here))
            engine = app.orchestrator(blueprint, settings, run_options, observers=[observer])
            with signals_end_run(engine):
                result = engine.run(Mode.SELFTEST)
        abandon_unfinished_calls(engine)
        if not result.ok:
            return deliver_result(result, options, settings)
        code = _try_everything(blueprint.name, engine, options, settings)
    has_failed = code == _CHECK_FAILED
    if has_failed and (options.output != "text" or stdout_failure()):
        tell_failure(
            f"is-db-bootstrap: {blueprint.name}: a check of the self-test failed. "
            "Run it with --output text."
        )
    _write_summary(result, code_after_output(code), options)
    return code


def _try_everything(
    blueprint: str, engine: BootstrapOrchestrator, options: Options, settings: Settings
) -> int:
    """Print each check of the self-test while they are made. Returns the exit code.

    Raises what ends the self-test in the middle, after a report that says so.

    The code is 3 when a check failed. It is 9 when none did and the result could not be filed or
    printed. The file of the result then says so too, if it can be written.
    """
    is_text = options.output == "text"
    screen = stdout_screen()
    proofs: list[tuple[StoreName, Proof]] = []
    try:
        for store, proof in engine.selftest():
            proofs.append((store.name, proof))
            is_shown = not (options.quiet and proof.ok)
            if is_text and is_shown:
                print_text(proof_line(store.name, proof, screen))
    except BootstrapError as exc:
        if options.output == "junit":
            print_text(_junit(blueprint, proofs, settings, exc))
        raise
    has_failed = any(proof.ok is False for _, proof in proofs)
    code = _CHECK_FAILED if has_failed else 0

    def text_of(code: int) -> str:
        return proofs_document(blueprint, proofs, code, options.choice().source)

    def show(code: int) -> None:
        if options.output == "junit":
            print_text(_junit(blueprint, proofs, settings))
        elif not is_text:
            print_text(text_of(code))
        elif not options.quiet:
            print_text(proofs_total(blueprint, [proof for _, proof in proofs], code, screen))

    return deliver(code, text_of=text_of, show=show)


def _junit(
    blueprint: str,
    proofs: Sequence[tuple[StoreName, Proof]],
    settings: Settings,
    ended_by: BootstrapError | None = None,
) -> str:
    from is_db_bootstrap.render.junit import junit_proofs

    return junit_proofs(blueprint, proofs, mask_of(settings.stores.values()), ended_by)


def _write_summary(result: BootstrapResult, code: int, options: Options) -> None:
    """Write the verified result, with the exit code of the self-test, to the termination log."""
    outcome = Outcome.FAILED if code else result.outcome
    final = replace(result, exit_code=code, outcome=outcome)
    write_log(options.termination_log, summary(final))
