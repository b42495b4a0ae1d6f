"""`is-db-bootstrap migrate accept`."""

from __future__ import annotations

import click

from is_db_bootstrap.cli.migrate._options import (
    Database,
    database_options,
    migrate_exit_codes,
    print_revisions,
    watch_arguments,
)


@click.command("accept")
@migrate_exit_codes
@database_options()
@click.option("--all", "is_all", is_flag=True, help="Every applied revision.")
@click.argument("revisions", nargs=-1, metavar="[REVISION]...")
def command(database: Database, revisions: tuple[str, ...], *, is_all: bool) -> int:
    """Take the files of applied revisions for reviewed.

    An applied revision does not run again, so plan and verify name one whose file was edited since.
    This records the files as they are now, and changes nothing else.
    """
    from is_db_bootstrap import migrate

    if is_all == bool(revisions):
        raise click.UsageError("Name the revisions, or give --all.")
    database.refuse_others()
    accepted = migrate.accept(
        database.blueprint, *revisions, **database.arguments, **watch_arguments()
    )
    print_revisions(accepted, "accepted", "nothing to accept")
    return 0
