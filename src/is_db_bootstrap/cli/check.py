"""`is-db-bootstrap check`."""

from pathlib import Path
from typing import Any

import click

from is_db_bootstrap.cli._answer import answer, print_document
from is_db_bootstrap.cli._options import (
    ANSWER_OPTIONS,
    BLUEPRINT,
    ENV_FILE,
    FILE,
    Options,
    add_options,
)
from is_db_bootstrap.cli._output import print_line

#: The exit code when a generated file is not current.
_STALE = 3


def _answers(command: Any) -> Any:
    return add_options(command, ANSWER_OPTIONS)


@click.command("check")
@BLUEPRINT
@click.option("--config", type=FILE, help="A TOML file that names the blueprint.")
@ENV_FILE
@_answers
def command(blueprint: str | None, config: Path | None, env_file: Path | None) -> int:
    """See that a blueprint loads and that its generated files are current. Needs no server.

    Declarations, Cypher files and the chain of revisions are checked as for every run.
    catalogue.json and schema.sql must be those of the newest revision. Exit 3 when one is not. For
    a pre-commit hook.
    """
    from is_db_bootstrap import app, revision
    from is_db_bootstrap.blueprint.check import check
    from is_db_bootstrap.stores.neo4j import cypher_file

    options = Options(blueprint=blueprint, config=config, env_file=env_file)
    declared = options.load_blueprint()
    check(declared)
    app.chosen_stores(declared)
    if declared.cypher:
        cypher_file.load(declared.cypher)
    stale_files = revision.stale(declared)
    code = _STALE if stale_files else 0
    if answer().is_json:
        found = {"blueprint": declared.name, "stale": list(stale_files)}
        print_document({**answer().document(code), **found})
    if stale_files:
        for line in stale_files:
            click.echo(line, err=True)
        click.echo("is-db-bootstrap revision --refresh writes it.", err=True)
        return _STALE
    if not answer().is_json:
        print_line(f"{declared.name}: as its newest revision says")
    return code
