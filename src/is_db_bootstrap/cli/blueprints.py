"""`is-db-bootstrap blueprints`."""

import click


@click.group("blueprints", invoke_without_command=True)
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What stdout gets.",
)
@click.pass_context
def command(ctx: click.Context, output: str) -> int:
    """List the built-in blueprints with their stores and counts, or show one."""
    if ctx.invoked_subcommand:
        return 0
    import json
    from pathlib import Path

    # The file is read here, not through `description`, which would import every blueprint to answer this.
    text = (Path(__file__).parent.parent / "blueprints" / "index.json").read_text(encoding="utf-8")
    if output == "json":
        click.echo(text, nl=False)
        return 0
    for row in json.loads(text):
        click.echo(f"{row['name']:<17} {', '.join(row['stores'])}")
        click.echo(
            f"{'':<17} {', '.join(f'{number} {kind}' for kind, number in row['counts'].items())}"
        )
        click.echo(f"{'':<17} {row['summary']}")
    return 0


@command.command("show")
@click.argument("name")
@click.option("--format", "-f", "form", type=click.Choice(["tree", "json", "mermaid"]), default="tree", show_default=True,
              help="A tree for people, a document, or diagrams for a Markdown page.")  # fmt: skip
def show(name: str, form: str) -> int:
    """Print everything that a blueprint declares; no store is asked.

    NAME is what --blueprint takes: a built-in name, module:BLUEPRINT, or a folder.
    """
    from is_db_bootstrap.blueprint.describe import describe, diagrams, outline
    from is_db_bootstrap.blueprint.load import load_blueprint
    from is_db_bootstrap.cli._run import print_text, stdout_screen
    from is_db_bootstrap.render.document import as_json
    from is_db_bootstrap.render.mermaid import mermaid
    from is_db_bootstrap.render.tree import tree

    document = describe(load_blueprint(name))
    if form == "tree":
        print_text(tree(outline(document), stdout_screen()))
    elif form == "json":
        print_text(as_json(document))
    else:
        print_text(mermaid(diagrams(document)))
    return 0
