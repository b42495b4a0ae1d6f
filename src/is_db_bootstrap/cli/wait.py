"""`is-db-bootstrap wait`."""

import click

from is_db_bootstrap.cli._options import Options, wait_options


@click.command("wait")
@wait_options
def command(options: Options) -> int:
    """Wait until every store is usable, and change nothing."""
    from is_db_bootstrap.cli._run import run_mode
    from is_db_bootstrap.results import Mode

    return run_mode(options, Mode.WAIT, options.run_options(climbs=True))
