"""`is-db-bootstrap status`."""

import click

from is_db_bootstrap.cli._options import Options, common_options


@click.command("status")
@common_options
def command(options: Options) -> int:
    """Print record, version, head and lock of each store.

    Looks once, does not wait, changes nothing.
    """
    from is_db_bootstrap.cli._run import run_mode
    from is_db_bootstrap.results import Mode

    return run_mode(options, Mode.STATUS, options.run_options())
