"""`is-db-bootstrap migrate downgrade`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, agreed, exits, placed, tell


@click.command("downgrade", context_settings={"ignore_unknown_options": True})
@exits
@placed
@click.option("--yes", is_flag=True, help="Drop, delete and change rows without asking.")
@click.argument("target", default="1", type=click.UNPROCESSED)
def command(where: Where, target: str, yes: bool) -> int:
    """Undo revisions down to TARGET: a number of steps (1 by default; 2 or -2), an id, or base.

    Prints the revisions that were undone. Before rows are dropped, deleted or changed, their table
    is named and asked about; so is a downgrade of which that cannot be found out.
    """
    from is_db_bootstrap import migrate
    from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost

    if target.startswith("-") and not target[1:].isdigit():
        raise click.NoSuchOption(target)
    try:
        done = migrate.downgrade(where.blueprint, target, drop_rows=yes, **where.how)
    except RowsWouldBeLost as exc:
        answer = agreed(f"{exc.message} Go on?", yes=yes)
        if answer is None:
            click.echo(
                f"{exc.message} {exc.changed} There is no terminal to ask at. Say --yes.",
                err=True,
            )
            return 2
        if not answer:
            click.echo(exc.changed, err=True)
            return 1
        done = migrate.downgrade(where.blueprint, exc.to or target, drop_rows=True, **where.how)
    tell(done, "undone", "nothing to undo")
    return 0
