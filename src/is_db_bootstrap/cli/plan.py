"""`is-db-bootstrap plan`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("plan")
@common
@click.option("--seed", is_flag=True, help="Plan the blueprint's demo data too.")
@click.option(
    "--no-ahead", is_flag=True, help="A store that a newer version has migrated is a conflict."
)
@click.option("--exit-code", is_flag=True, help="Exit 3 when changes are pending.")
def command(options: Options, seed: bool, no_ahead: bool, exit_code: bool) -> int:
    """Say what apply would change; changes nothing."""
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    run_options = options.run_options(seed=seed, allow_ahead=not no_ahead)
    return run(options, Mode.PLAN, run_options, pending_code=3 if exit_code else 0)
