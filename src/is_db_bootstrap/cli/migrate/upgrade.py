"""`is-db-bootstrap migrate upgrade`."""

import click

from is_db_bootstrap.cli.migrate._options import (
    Database,
    database_options,
    migrate_exit_codes,
    print_revisions,
    run_revisions,
)


@click.command("upgrade")
@migrate_exit_codes
@database_options()
@click.argument("revision", default="head")
def command(database: Database, revision: str) -> int:
    """Upgrade an existing database to REVISION: head (the default), an id, or +N steps.

    REVISION may be all that Alembic takes, such as billing@head or ae10+2.
    Prints the revisions that were applied. A revision that was passed already changes nothing.
    """
    from is_db_bootstrap import migrate

    applied = run_revisions(migrate.upgrade, database, revision)
    print_revisions(applied, "applied", "nothing to upgrade")
    return 0
