"""`is-db-bootstrap status`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("status")
@common
def command(options: Options) -> int:
    """Print record, version, head and lock of each store.

    Looks once, does not wait, changes nothing.
    """
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    return run(options, Mode.STATUS, options.run_options())
