"""`is-db-bootstrap new`."""

import click

from is_db_bootstrap.cli._output import print_line
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

    from is_db_bootstrap.scaffold import create_folder

    store_names = [store.strip() for store in stores.split(",") if store.strip()]
    written = create_folder(name, store_names)
    paths = [path.relative_to(Path.cwd()) for path in written]
    for path in paths:
        print_line(path)
    folder = paths[0].parts[0]
    click.echo(
        f"Next: is-db-bootstrap apply --blueprint {folder} --local --data-dir {folder}/.stack, "
        f"and pytest {folder}",
        err=True,
    )
    return 0
