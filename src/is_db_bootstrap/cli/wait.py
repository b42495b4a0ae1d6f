"""`is-db-bootstrap wait`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("wait")
@common
def command(options: Options) -> int:
    """Wait until every store is usable; changes nothing."""
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    return run(options, Mode.WAIT, options.run_options())
