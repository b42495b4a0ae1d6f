"""`is-db-bootstrap apply`."""

from pathlib import Path

import click

from is_db_bootstrap.cli._choices import WordChoice
from is_db_bootstrap.cli._fleet_options import FleetOptions, fleet_options
from is_db_bootstrap.cli._options import (
    ACCEPT_RESET,
    NO_AHEAD,
    SEED,
    Options,
    apply_options,
    is_given,
    typed_name,
)

_MODES = ("init", "job", "verify")
#: Where Kubernetes reads why a container ended.
_TERMINATION_LOG = Path("/dev/termination-log")
#: Parameters that are about changes, which `--mode verify` does not make.
_OF_CHANGES = ("seed", "accept_reset", "no_verify", "apply_timeout")


@click.command("apply")
@apply_options
@SEED
@NO_AHEAD
@ACCEPT_RESET
@click.option("--no-verify", is_flag=True, help="End with the last change.")
@click.option(
    "--retry",
    "retry_changes",
    metavar="CHANGE",
    multiple=True,
    help="Run this change again, which has begun and is not recorded. May be repeated.",
)
@click.option(
    "--mode",
    type=WordChoice(_MODES),
    help="In a container: one of many that start (init), the only one (job), or a check (verify).",
)
@fleet_options
def command(
    options: Options,
    fleet: FleetOptions,
    *,
    seed: bool,
    no_ahead: bool,
    accept_reset: tuple[str, ...],
    no_verify: bool,
    retry_changes: tuple[str, ...],
    mode: str | None,
) -> int:
    """Bring every store to its declared state and verify it.

    This is what happens without a command.
    """
    from is_db_bootstrap.results import Mode

    if retry_changes and (mode is not None or fleet.targets is not None):
        other = "--targets" if mode is None else "--mode"
        raise click.UsageError(f"--retry is for one database and one run, so not with {other}.")
    if accept_reset and fleet.targets is not None:
        raise click.UsageError(
            "--accept-reset is for one store and one run, so not with --targets."
        )
    is_in_container = mode is not None
    if is_in_container and options.termination_log is None and _TERMINATION_LOG.exists():
        options = options._replace(termination_log=_TERMINATION_LOG)
    _refuse_unread(mode)
    if mode == "verify":
        engine_mode = Mode.VERIFY
        run_options = options.run_options(allow_ahead=not no_ahead)
    else:
        engine_mode = Mode.APPLY
        run_options = options.run_options(
            allow_ahead=not no_ahead,
            seed=seed,
            verify=not no_verify,
            follow=mode == "init",
            retry_changes=retry_changes,
            accept_reset=accept_reset,
        )
    if fleet.targets is not None:
        from is_db_bootstrap.cli._fleet import run_fleet

        return run_fleet(options, fleet, engine_mode, run_options)
    from is_db_bootstrap.cli._run import run_mode

    return run_mode(options, engine_mode, run_options)


def _refuse_unread(mode: str | None) -> None:
    """Raise `click.UsageError` for options that the way in which this call works does not obey."""
    for name in _OF_CHANGES if mode == "verify" else ():
        if is_given(name):
            raise click.UsageError(f"{typed_name(name)} has no meaning beside --mode verify.")
