"""`is-db-bootstrap verify`."""

import click

from is_db_bootstrap.cli._fleet_options import FleetOptions, fleet_look_options
from is_db_bootstrap.cli._options import NO_AHEAD, Options, check_options


@click.command("verify")
@check_options
@click.option("--strict", is_flag=True, help="Undeclared objects and careless data are drift too.")
@NO_AHEAD
@fleet_look_options
def command(options: Options, fleet: FleetOptions, strict: bool, no_ahead: bool) -> int:
    """Compare every declared object with the live one.

    Exit 3 when they differ. Changes nothing.
    """
    from is_db_bootstrap.cli._look import look
    from is_db_bootstrap.results import Mode

    run_options = options.run_options(strict=strict, allow_ahead=not no_ahead)
    return look(options, fleet, Mode.VERIFY, run_options)
