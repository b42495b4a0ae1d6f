"""`is-db-bootstrap migrate current`."""

import click

from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import Database, database_options, migrate_exit_codes


@click.command("current")
@migrate_exit_codes
@database_options()
def command(database: Database) -> int:
    """Print the revision of the database, or "(none)".

    The newest revision has "(head)" behind it.
    """
    from is_db_bootstrap import migrate

    current = migrate.current(database.blueprint, **database.arguments)
    mark = " (head)" if current.is_head else ""
    print_line(f"{current.revision or '(none)'}{mark}")
    return 0
