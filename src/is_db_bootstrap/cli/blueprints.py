"""`is-db-bootstrap blueprints`."""

from __future__ import annotations

from typing import Any

import click

from is_db_bootstrap.cli._choices import Choice
from is_db_bootstrap.cli._commands import SuggestingGroup
from is_db_bootstrap.cli._options import OUTPUT
from is_db_bootstrap.cli._output import print_line


@click.group("blueprints", cls=SuggestingGroup, invoke_without_command=True)
@OUTPUT
@click.pass_context
def command(ctx: click.Context, output: str) -> int:
    """List the installed blueprints with their stores and counts, or show one."""
    if ctx.invoked_subcommand:
        if output != "text":
            raise click.UsageError("show takes --format json, and no --output.")
        return 0
    import json

    from is_db_bootstrap.blueprint.listing import installed_rows

    rows = installed_rows()
    if output == "json":
        print_line(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        _print_row(row)
    return 0


def _print_row(row: dict[str, Any]) -> None:
    """Print name and stores of a blueprint, and below them counts, summary and error."""
    heading = f"{row['name']:<17} {', '.join(row['stores'])}"
    print_line(heading.rstrip())
    counts = ", ".join(f"{number} {kind}" for kind, number in row["counts"].items())
    for line in (counts, row["summary"], row.get("error", "")):
        if line:
            print_line(f"{'':<17} {line}")


@command.command("show")
@click.argument("name")
@click.option(
    "--format",
    "-f",
    "form",
    type=Choice(["tree", "json", "mermaid"]),
    default="tree",
    show_default=True,
    help="A tree for people, a document, or diagrams for a Markdown page.",
)
def show_blueprint(name: str, form: str) -> int:
    """Print everything that a blueprint declares. No store is asked.

    NAME is what --blueprint takes: an installed one, module:BLUEPRINT, or a folder.
    """
    from is_db_bootstrap.blueprint.describe import describe, diagrams, outline
    from is_db_bootstrap.blueprint.load import load_blueprint
    from is_db_bootstrap.cli._output import print_text, stdout_screen
    from is_db_bootstrap.render.document import as_json
    from is_db_bootstrap.render.mermaid import mermaid
    from is_db_bootstrap.render.tree import tree

    description = describe(load_blueprint(name))
    if form == "tree":
        text = tree(outline(description), stdout_screen())
    elif form == "json":
        text = as_json(description)
    else:
        text = mermaid(diagrams(description))
    print_text(text)
    return 0
