"""`is-db-bootstrap migrate sql`."""

from __future__ import annotations

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
from is_db_bootstrap.cli.migrate._options import migrate_exit_codes

if TYPE_CHECKING:
    from pathlib import Path


@click.command("sql")
@migrate_exit_codes
@BLUEPRINT
@CONFIG
@ENV_FILE
@NOTED_OUTPUT
@NOTED_TERMINATION_LOG
@click.argument("span", metavar="[FROM:TO]", default="head")
def command(blueprint: str | None, config: Path | None, env_file: Path | None, *, span: str) -> int:
    """Print the SQL that an upgrade would run, for a DBA who applies it. No server is asked.

    FROM:TO are revisions. TO alone begins with an empty database. The SQL records what it did, as
    our own runs do.
    """
    from is_db_bootstrap import migrate

    options = Options(blueprint=blueprint, config=config, env_file=env_file)
    declared = options.load_blueprint()
    sql = migrate.sql(declared, span, settings=options.load_settings(declared))
    if answer().is_json:
        print_document({**answer().document(0), "sql": sql})
    else:
        print_line(sql, nl=False)
    return 0
