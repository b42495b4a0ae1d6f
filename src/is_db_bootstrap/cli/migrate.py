"""`is-db-bootstrap migrate`."""

import click


@click.group("migrate")
def command() -> None:
    """Work on the Alembic revisions of a blueprint."""


@command.command("ini")
def ini() -> int:
    """Print the path of alembic.ini: alembic -c "$(is-db-bootstrap migrate ini)" -n novel_genesis current."""
    from is_db_bootstrap.files import root

    click.echo(root() / "migrations" / "alembic.ini")
    return 0
