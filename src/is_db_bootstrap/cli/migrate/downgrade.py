"""`is-db-bootstrap migrate downgrade`."""

import click

from is_db_bootstrap.cli._answer import answer, fail
from is_db_bootstrap.cli._endings import FAILED
from is_db_bootstrap.cli._question import ask_user, refuse_unasked
from is_db_bootstrap.cli.migrate._options import (
    Database,
    database_options,
    migrate_exit_codes,
    print_revisions,
    run_revisions,
)


@click.command("downgrade", context_settings={"ignore_unknown_options": True})
@migrate_exit_codes
@database_options()
@click.option("--yes", is_flag=True, help="Drop, delete and change rows without asking.")
@click.argument("target", default="-1", type=click.UNPROCESSED)
def command(database: Database, target: str, yes: bool) -> int:
    """Undo revisions down to TARGET: a number of steps (1 by default; 2 or -2), an id, or base.

    TARGET may also be what else Alembic takes, such as ae10-2.
    Digits are an id first, and a number of steps where no revision has that id.
    Prints the revisions that were undone. Before rows are dropped, deleted or changed, the command
    names their table and asks. It also asks when it cannot find out what a downgrade does to rows.
    """
    from is_db_bootstrap import migrate
    from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost

    is_unknown_option = target.startswith("-") and not target[1:].isdigit()
    if is_unknown_option:
        raise click.NoSuchOption(target)
    try:
        undone = run_revisions(migrate.downgrade, database, target, drop_rows=yes)
    except RowsWouldBeLost as exc:
        can_ask = answer().json_log is None
        agreed = ask_user(f"{exc.message} Go on?", yes=yes) if can_ask else None
        if agreed is None:
            return refuse_unasked(f"{exc.message} {exc.changed}")
        if not agreed:
            return fail(FAILED, exc.changed)
        rest = exc.to or target
        undone = run_revisions(migrate.downgrade, database, rest, drop_rows=True)
    print_revisions(undone, "undone", "nothing to undo")
    return 0
