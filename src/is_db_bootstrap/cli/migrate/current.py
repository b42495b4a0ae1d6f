"""`is-db-bootstrap migrate current`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, exits, placed


@click.command("current")
@exits
@placed
def command(where: Where) -> int:
    """Print the revision of the database, "(head)" if it is; "(none)" without one."""
    from is_db_bootstrap import migrate

    found = migrate.current(where.blueprint, **where.how)
    click.echo(f"{found.revision or '(none)'}{' (head)' if found.is_head else ''}")
    return 0
