"""`is-db-bootstrap revision`."""

from pathlib import Path

import click

from is_db_bootstrap.cli.migrate._options import Where, placed


@click.command("revision")
@placed
@click.option("--message", "-m", default="", help="What it does, such as 'add orders'.")
@click.option("--cypher", is_flag=True, help="The next Cypher file instead.")
@click.option("--empty", is_flag=True, help="Nothing but its frame; needs no server.")
@click.option("--refresh", is_flag=True, help="Only catalogue.json and schema.sql again, after a revision was written by hand.")
def command(where: Where, message: str, cypher: bool, empty: bool, refresh: bool) -> int:
    """Write the next revision of a blueprint: what its models have and its revisions lack, or an empty one.

    It is found by comparing the models with a scratch database at head, on the server of --url or --local. The files that
    were written are printed.
    """
    from is_db_bootstrap import revision

    if refresh:
        written = revision.refresh(where.blueprint, where.settings)
    elif cypher:
        written = [revision.cypher(where.blueprint, message)]
    else:
        written = revision.postgres(where.blueprint, message, None if empty or not where.blueprint.models else where.settings)
    for path in written:
        click.echo(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
    if not written:
        click.echo("The models and the revisions do not differ; nothing was written.", err=True)
    elif not refresh and not cypher and len(written) == 1:
        click.echo("Write it, then run the same with --refresh, so that verify knows what it makes.", err=True)
    return 0
