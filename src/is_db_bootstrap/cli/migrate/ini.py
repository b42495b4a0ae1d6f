"""`is-db-bootstrap migrate ini`."""

import click


@click.command("ini")
def command() -> int:
    """Print the path of alembic.ini: alembic -c "$(is-db-bootstrap migrate ini)" -n novel_genesis current."""
    from is_db_bootstrap.files import root

    click.echo(root() / "migrations" / "alembic.ini")
    return 0
