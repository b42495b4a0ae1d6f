"""`is-db-bootstrap migrate ini`."""

import click

from is_db_bootstrap.cli._output import print_line


@click.command("ini")
def command() -> int:
    """Print the path of alembic.ini.

    For the stock command: alembic -c "$(is-db-bootstrap migrate ini)" -n novel_genesis current.
    """
    from is_db_bootstrap.files import root

    path = root() / "migrations" / "alembic.ini"
    print_line(path)
    return 0
