"""`is-db-bootstrap migrate current`."""

import click

from is_db_bootstrap.cli._answer import answer, give_document
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import Database, database_options, migrate_exit_codes


@click.command("current")
@migrate_exit_codes
@database_options(with_cypher=True)
def command(database: Database) -> int:
    """Print the revision of the database, or "(none)".

    The newest revision has "(head)" behind it.
    """
    from is_db_bootstrap import migrate, migrate_cypher

    read = migrate_cypher.current if database.is_cypher else migrate.current
    current = read(database.blueprint, **database.arguments)
    found = {"revision": current.revision or None, "is_head": current.is_head}
    if give_document({**answer().document(0), **found}):
        return 0
    mark = " (head)" if current.is_head else ""
    print_line(f"{current.revision or '(none)'}{mark}")
    return 0
