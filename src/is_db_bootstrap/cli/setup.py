"""`is-db-bootstrap setup`."""

import click

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._options import SEED, Options, apply_options


@click.command("setup")
@apply_options
@SEED
@click.option("--yes", is_flag=True, help="Answer every question with yes.")
def command(options: Options, seed: bool, yes: bool) -> int:
    """Set up every store in four guided steps: configuration, connection, migration, verification.

    Only "y" or "yes" goes on. Without a terminal nothing is asked: a question ends the command with
    exit 2. The first failure ends it with exit 1 and names the step. A second call finds everything
    in place and changes nothing.
    """
    if answer().json_log is not None and not yes:
        raise click.UsageError("A log of records cannot ask: --log-format json needs --yes here.")
    from is_db_bootstrap.cli._setup import Setup

    return Setup(options, seed=seed, yes=yes).run()
