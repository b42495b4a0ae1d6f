"""`is-db-bootstrap plan`."""

import click

from is_db_bootstrap.cli._fleet_options import FleetOptions, fleet_look_options
from is_db_bootstrap.cli._options import ACCEPT_RESET, NO_AHEAD, Options, plan_options

#: The exit code of `--exit-code` when changes are pending.
_PENDING = 3


@click.command("plan")
@plan_options
@click.option("--seed", is_flag=True, help="Plan the blueprint's demo data too.")
@NO_AHEAD
@ACCEPT_RESET
@click.option(
    "--try",
    "try_url",
    metavar="URL",
    help="Run revisions that run Python in a scratch database on this server.",
)
@click.option("--exit-code", is_flag=True, help="Exit 3 when changes are pending.")
@fleet_look_options
def command(
    options: Options,
    fleet: FleetOptions,
    *,
    seed: bool,
    no_ahead: bool,
    accept_reset: tuple[str, ...],
    try_url: str | None,
    exit_code: bool,
) -> int:
    """Say what apply would change and what it would send, and change nothing."""
    from is_db_bootstrap.cli._look import look
    from is_db_bootstrap.results import Mode

    if accept_reset and fleet.targets is not None:
        raise click.UsageError(
            "--accept-reset is for one store and one run, so not with --targets."
        )
    run_options = options.run_options(
        seed=seed,
        allow_ahead=not no_ahead,
        try_url=(try_url or "").strip(),
        accept_reset=accept_reset,
    )
    pending_code = _PENDING if exit_code else 0
    return look(options, fleet, Mode.PLAN, run_options, pending_code=pending_code)
