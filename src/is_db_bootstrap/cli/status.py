"""`is-db-bootstrap status`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("status")
@common
def command(options: Options) -> int:
    """Print record, version, head and lock of each store, in one look; changes nothing."""
    from is_db_bootstrap.cli._run import Mode, run

    return run(options, Mode.STATUS)
