"""`is-db-bootstrap migrate sql`."""

import click

from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.migrate._options import Database, database_options, migrate_exit_codes


@click.command("sql")
@migrate_exit_codes
@database_options()
@click.argument("span", metavar="[FROM:TO]", default="head")
def command(database: Database, span: str) -> int:
    """Print the SQL that an upgrade would run, for a DBA who applies it. No server is asked.

    FROM:TO are revisions. TO alone begins with an empty database. The SQL records what it did, as
    our own runs do.
    """
    from is_db_bootstrap import migrate

    sql = migrate.sql(database.blueprint, span, settings=database.settings)
    print_text(sql)
    return 0
