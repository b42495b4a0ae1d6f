"""`is-db-bootstrap migrate ini`."""

import click

from is_db_bootstrap.cli._answer import answer, print_document
from is_db_bootstrap.cli._options import NOTED_OUTPUT
from is_db_bootstrap.cli._output import print_line


@click.command("ini")
@NOTED_OUTPUT
def command() -> int:
    """Print the path of alembic.ini.

    For the stock command: alembic -c "$(is-db-bootstrap migrate ini)" -n novel_genesis current.
    """
    from is_db_bootstrap.files import root

    path = root() / "migrations" / "alembic.ini"
    if answer().is_json:
        print_document({**answer().document(0), "path": str(path)})
    else:
        print_line(path)
    return 0
