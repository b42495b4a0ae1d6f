"""`is-db-bootstrap migrate init`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, exits, placed, tell


@click.command("init")
@exits
@placed
@click.option("--seed", is_flag=True, help="Add the blueprint's demo data where it is missing.")
def command(where: Where, seed: bool) -> int:
    """Create database and schema if missing, and upgrade to head.

    Prints the revisions that were applied, or "already at head". Again: nothing.
    """
    from is_db_bootstrap import migrate

    done = migrate.init(where.blueprint, seed=seed, **where.how)
    tell(done, "applied", "nothing to do")
    if not done.revisions:
        click.echo("already at head")
    return 0
