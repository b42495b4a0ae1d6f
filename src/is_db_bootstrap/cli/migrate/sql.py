"""`is-db-bootstrap migrate sql`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, exits, placed


@click.command("sql")
@exits
@placed
@click.argument("span", metavar="[FROM:TO]", default="head")
def command(where: Where, span: str) -> int:
    """Print the SQL that an upgrade would run, for a DBA who applies it. No server is asked.

    FROM:TO are revisions; TO alone begins with nothing. It records what it did, as our own runs do.
    """
    from is_db_bootstrap import migrate

    click.echo(migrate.sql(where.blueprint, span, settings=where.settings), nl=False)
    return 0
