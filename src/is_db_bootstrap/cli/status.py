"""`is-db-bootstrap status`."""

import click

from is_db_bootstrap.cli._fleet_options import FleetOptions, fleet_look_options
from is_db_bootstrap.cli._options import Options, common_options


@click.command("status")
@common_options
@fleet_look_options
def command(options: Options, fleet: FleetOptions) -> int:
    """Print record, version, head and lock of each store.

    Looks once, does not wait, changes nothing.
    """
    from is_db_bootstrap.cli._look import look
    from is_db_bootstrap.results import Mode

    return look(options, fleet, Mode.STATUS, options.run_options())
