"""`is-db-bootstrap blueprints`."""

import click


@click.command("blueprints")
@click.option(
    "--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True, help="What stdout gets."
)
def command(output: str) -> int:
    """List the built-in blueprints with their stores."""
    import json

    from is_db_bootstrap.blueprints import load, names

    rows = [{"name": b.name, "stores": b.stores, "summary": b.summary} for b in map(load, names())]
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        click.echo(f"{row['name']:<18} {', '.join(row['stores']):<32} {row['summary']}")
    return 0
