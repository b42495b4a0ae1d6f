"""`is-db-bootstrap migrate upgrade`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, exits, placed, tell


@click.command("upgrade")
@exits
@placed
@click.argument("revision", default="head")
def command(where: Where, revision: str) -> int:
    """Upgrade an existing database to REVISION: head (the default), an id, or +N steps.

    Prints the revisions that were applied. A revision that was passed already changes nothing.
    """
    from is_db_bootstrap import migrate

    tell(migrate.upgrade(where.blueprint, revision, **where.how), "applied", "nothing to upgrade")
    return 0
