"""`is-db-bootstrap migrate history`."""

import click

from is_db_bootstrap.cli.migrate._options import BLUEPRINT, exits


@click.command("history")
@exits
@BLUEPRINT
def command(blueprint: str | None) -> int:
    """List the revisions, newest first: id, "(head)" or "(base)", title. Needs no server."""
    from is_db_bootstrap import migrate
    from is_db_bootstrap.blueprints import DEFAULT
    from is_db_bootstrap.settings import blueprint_name

    for found in migrate.history(blueprint or blueprint_name() or DEFAULT):
        marks = "".join(
            mark
            for mark, holds in ((" (head)", found.is_head), (" (base)", found.is_base))
            if holds
        )
        click.echo(f"{found.id}{marks}  {found.title}".rstrip())
    return 0
