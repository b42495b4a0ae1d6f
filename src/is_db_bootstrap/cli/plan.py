"""`is-db-bootstrap plan`."""

import click

from is_db_bootstrap.cli._options import NO_AHEAD, Options, common_options

#: The exit code of `--exit-code` when changes are pending.
_PENDING = 3


@click.command("plan")
@common_options
@click.option("--seed", is_flag=True, help="Plan the blueprint's demo data too.")
@NO_AHEAD
@click.option(
    "--try",
    "try_url",
    metavar="URL",
    help="Run revisions that run Python in a scratch database on this server.",
)
@click.option("--exit-code", is_flag=True, help="Exit 3 when changes are pending.")
def command(
    options: Options, seed: bool, no_ahead: bool, try_url: str | None, exit_code: bool
) -> int:
    """Say what apply would change and what it would send, and change nothing."""
    from is_db_bootstrap.cli._run import run_mode
    from is_db_bootstrap.results import Mode

    run_options = options.run_options(
        seed=seed, allow_ahead=not no_ahead, try_url=(try_url or "").strip()
    )
    pending_code = _PENDING if exit_code else 0
    return run_mode(options, Mode.PLAN, run_options, pending_code=pending_code)
