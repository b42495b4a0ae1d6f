"""`is-db-bootstrap migrate history`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._options import BLUEPRINT, Options
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import CYPHER, is_about_cypher, migrate_exit_codes

if TYPE_CHECKING:
    from is_db_bootstrap.migrate import Revision


@click.command("history")
@migrate_exit_codes
@BLUEPRINT
@CYPHER
def command(blueprint: str | None, cypher: bool) -> int:
    """List the revisions, newest first: id, "(head)" or "(base)", title. Needs no server."""
    from is_db_bootstrap import migrate, migrate_cypher

    declared = Options(blueprint=blueprint).load_blueprint()
    is_cypher = is_about_cypher(declared, is_asked=cypher)
    read = migrate_cypher.history if is_cypher else migrate.history
    for revision in read(declared):
        print_line(_revision_line(revision))
    return 0


def _revision_line(revision: Revision) -> str:
    head = " (head)" if revision.is_head else ""
    base = " (base)" if revision.is_base else ""
    return f"{revision.id}{head}{base}  {revision.title}".rstrip()
