"""`is-db-bootstrap setup`."""

import click

from is_db_bootstrap.cli._options import SEED, Options, apply_options
from is_db_bootstrap.cli._question import refuse_unanswerable


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
    refuse_unanswerable(yes=yes)
    from is_db_bootstrap.cli._setup import Setup

    return Setup(options, seed=seed, yes=yes).run()
