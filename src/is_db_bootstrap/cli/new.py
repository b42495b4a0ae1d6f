"""`is-db-bootstrap new`."""

import click

from is_db_bootstrap.names import STORE_ORDER


@click.command("new")
@click.argument("name")
@click.option(
    "--stores",
    default=",".join(STORE_ORDER),
    show_default=True,
    metavar="LIST",
    help="The stores that it uses.",
)
def command(name: str, stores: str) -> int:
    """Write a small, complete blueprint folder NAME, which passes its own test.

    Module, models, migrations, Cypher files, a test on a local stack, compose.yaml, a CI workflow.
    Nothing is overwritten.
    """
    from pathlib import Path

    from is_db_bootstrap.scaffold import create

    written = create(name, [store.strip() for store in stores.split(",") if store.strip()])
    for path in written:
        click.echo(path.relative_to(Path.cwd()))
    folder = written[0].relative_to(Path.cwd()).parts[0]
    click.echo(
        f"Next: is-db-bootstrap apply --blueprint {folder} --local --data-dir {folder}/.stack, and pytest {folder}",
        err=True,
    )
    return 0
