"""`is-db-bootstrap migrate stamp`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, agreed, exits, placed, tell


@click.command("stamp")
@exits
@placed
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("revision")
def command(where: Where, revision: str, yes: bool) -> int:
    """Record REVISION (an id, head or base) as applied.

    Writes the version only: no table is touched.
    """
    from is_db_bootstrap import migrate

    question = f"Record {revision} as the revision of {where.target}, and change nothing else?"
    answer = agreed(question, yes=yes)
    if answer is None:
        click.echo("Nothing was changed: there is no terminal to ask at. Say --yes.", err=True)
        return 2
    if not answer:
        click.echo("Nothing was changed.", err=True)
        return 1
    tell(
        migrate.stamp(where.blueprint, revision, **where.how),
        "recorded; no table was touched",
        "recorded already",
    )
    return 0
