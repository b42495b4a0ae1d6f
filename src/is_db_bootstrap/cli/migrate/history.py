"""`is-db-bootstrap migrate history`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import answer, print_document
from is_db_bootstrap.cli._options import (
    BLUEPRINT,
    CONFIG,
    ENV_FILE,
    NOTED_OUTPUT,
    NOTED_TERMINATION_LOG,
    Options,
)
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import CYPHER, is_about_cypher, migrate_exit_codes

if TYPE_CHECKING:
    from pathlib import Path

    from is_db_bootstrap.migrate import Revision


@click.command("history")
@migrate_exit_codes
@BLUEPRINT
@CONFIG
@ENV_FILE
@CYPHER
@NOTED_OUTPUT
@NOTED_TERMINATION_LOG
def command(
    blueprint: str | None, config: Path | None, env_file: Path | None, *, cypher: bool
) -> int:
    """List the revisions, newest first: id, "(head)" or "(base)", title. Needs no server."""
    from is_db_bootstrap import migrate, migrate_cypher

    declared = Options(blueprint=blueprint, config=config, env_file=env_file).load_blueprint()
    is_cypher = is_about_cypher(declared, is_asked=cypher)
    read = migrate_cypher.history if is_cypher else migrate.history
    revisions = read(declared)
    if answer().is_json:
        rows = [asdict(revision) for revision in revisions]
        print_document({**answer().document(0), "revisions": rows})
        return 0
    for revision in revisions:
        print_line(_revision_line(revision))
    return 0


def _revision_line(revision: Revision) -> str:
    head = " (head)" if revision.is_head else ""
    base = " (base)" if revision.is_base else ""
    return f"{revision.id}{head}{base}  {revision.title}".rstrip()
