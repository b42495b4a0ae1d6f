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
    """List the installed blueprints with their stores and counts, or show one."""
    if ctx.invoked_subcommand:
        if output != "text":
            raise click.UsageError("show takes --format json, and no --output.")
        return 0
    import json

    from is_db_bootstrap.blueprint.listing import installed_rows

    rows = installed_rows()
    if output == "json":
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        numbers = [f"{number} {kind}" for kind, number in row["counts"].items()]
        click.echo(f"{row['name']:<17} {', '.join(row['stores'])}".rstrip())
        for line in (", ".join(numbers), row["summary"], row.get("error", "")):
            if line:
                click.echo(f"{'':<17} {line}")
    return 0


@command.command("show")
@click.argument("name")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["tree", "json", "mermaid"]),
    default="tree",
    show_default=True,
    help="A tree for people, a document, or diagrams for a Markdown page.",
)
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
