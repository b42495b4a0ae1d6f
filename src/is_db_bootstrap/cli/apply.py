"""`is-db-bootstrap apply`."""

from pathlib import Path

import click

from is_db_bootstrap.cli._fleet import FleetOptions, fleet_options
from is_db_bootstrap.cli._options import Options, common

_MODES = ("init", "job", "verify")
#: Where Kubernetes reads why a container ended.
_TERMINATION_LOG = Path("/dev/termination-log")


@click.command("apply")
@common
@click.option("--seed", is_flag=True, help="Add the blueprint's demo data where it is missing.")
@click.option(
    "--no-ahead", is_flag=True, help="A store that a newer version has migrated is a conflict."
)
@click.option("--no-verify", is_flag=True, help="End with the last change.")
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    help="In a container: one of many that start (init), the only one (job), or a check (verify).",
)
@fleet_options
def command(
    options: Options,
    fleet: FleetOptions,
    *,
    seed: bool,
    no_ahead: bool,
    no_verify: bool,
    mode: str | None,
) -> int:
    """Bring every store to its declared state and verify it.

    This is what happens without a command.
    """
    from is_db_bootstrap.cli._fleet import run as run_fleet
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    if mode and options.termination_log is None and _TERMINATION_LOG.exists():
        options = options._replace(termination_log=_TERMINATION_LOG)
    flags: dict[str, bool] = {"allow_ahead": not no_ahead}
    if mode != "verify":
        flags |= {"seed": seed, "verify": not no_verify, "follow": mode == "init"}
    what = Mode.VERIFY if mode == "verify" else Mode.APPLY
    run_options = options.run_options(**flags)
    if fleet.targets is not None:
        return run_fleet(options, fleet, what, run_options)
    return run(options, what, run_options)
