"""`is-db-bootstrap migrate init`."""

import click

from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._options import SEED
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import (
    Database,
    database_options,
    migrate_exit_codes,
    print_revisions,
    run_revisions,
)


@click.command("init")
@migrate_exit_codes
@database_options()
@SEED
def command(database: Database, seed: bool) -> int:
    """Create database and schema if missing, and upgrade to head.

    Prints the revisions that were applied, or "already at head". A second call changes nothing.
    """
    from is_db_bootstrap import migrate

    applied = run_revisions(migrate.init, database, seed=seed)
    print_revisions(applied, "applied", "nothing to do")
    if not (applied.revisions or applied.baseline or answer().is_json):
        print_line("already at head")
    return 0
