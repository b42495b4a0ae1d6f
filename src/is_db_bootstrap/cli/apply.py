"""`is-db-bootstrap apply`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("apply")
@common
@click.option("--seed", is_flag=True, help="Add the blueprint's demo data where it is missing.")
@click.option("--no-ahead", is_flag=True, help="A store that a newer version has migrated is a conflict.")
def command(options: Options, seed: bool, no_ahead: bool) -> int:
    """Bring every store to its declared state and verify it.

    This is what happens without a command.
    """
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    return run(options, Mode.APPLY, seed=seed, allow_ahead=not no_ahead)
