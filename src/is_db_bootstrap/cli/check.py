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
from is_db_bootstrap.cli._output import print_line, print_to_stderr

#: The exit code when a file is wrong, and when a generated file is not current.
_WRONG, _STALE = 2, 3


def _answers(command: Any) -> Any:
    return add_options(command, ANSWER_OPTIONS)


@click.command("check")
@BLUEPRINT
@click.option("--config", type=FILE, help="A TOML file that names the blueprint.")
@ENV_FILE
@_answers
def command(blueprint: str | None, config: Path | None, env_file: Path | None) -> int:
    """See that a blueprint loads and that its files are right and current. Needs no server.

    Declarations and the chain of revisions are checked as for every run. Cypher files are looked
    through, and revisions are written down as SQL, which PostgreSQL's own parser reads. What is
    wrong is told with file and line (exit 2). catalogue.json and schema.sql must be those of the
    newest revision (exit 3 when one is not). What the newest revision and Cypher file drop or write
    anew is told too. For a pre-commit hook.
    """
    from is_db_bootstrap import app, file_check, revision
    from is_db_bootstrap.blueprint.check import check

    options = Options(blueprint=blueprint, config=config, env_file=env_file)
    declared = options.load_blueprint()
    check(declared)
    app.chosen_stores(declared)
    found = file_check.check_files(declared)
    stale_files = [] if found.problems else revision.stale(declared)
    code = _WRONG if found.problems else _STALE if stale_files else 0
    if answer().is_json:
        more = {"blueprint": declared.name, "stale": list(stale_files), **found.document()}
        print_document({**answer().document(code), **more})
    for line in (*map(str, found.problems), *stale_files):
        print_to_stderr(line)
    if stale_files:
        print_to_stderr("is-db-bootstrap revision --refresh writes it.")
    if not answer().is_json:
        for line in found.danger_lines():
            print_line(f"look at {line}")
        if not code:
            print_line(f"{declared.name}: as its newest revision says")
    return code
