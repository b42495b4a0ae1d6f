"""`is-db-bootstrap migrate stamp`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import (
    Database,
    ask_user,
    database_options,
    migrate_exit_codes,
)

if TYPE_CHECKING:
    from is_db_bootstrap.migrate import Migrated
    from is_db_bootstrap.results import RecordChange


@click.command("stamp")
@migrate_exit_codes
@database_options(with_cypher=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("revision")
def command(database: Database, revision: str, yes: bool) -> int:
    """Record REVISION (an id, head or base) as applied.

    Writes the record only: no table is touched. What comes to count as applied, and what not any
    more, is named before the question and afterwards. REVISION may be all that Alembic takes. With
    --cypher it is the name or the version of a Cypher file.
    """
    from is_db_bootstrap import migrate, migrate_cypher

    database.refuse_others()
    module = migrate_cypher if database.is_cypher else migrate
    if not yes:
        foreseen = module.foresee_stamp(database.blueprint, revision, **database.arguments)
        _tell(foreseen, "would count")
    question = f"Record {revision} as the revision of {database.target}, and change nothing else?"
    answer = ask_user(question, yes=yes)
    if answer is None:
        click.echo("Nothing was changed: there is no terminal to ask at. Say --yes.", err=True)
        return WRONG_USAGE
    if not answer:
        click.echo("Nothing was changed.", err=True)
        return FAILED
    stamped = module.stamp(database.blueprint, revision, **database.arguments)
    _tell(stamped.record, "count")
    for note in stamped.notes:
        click.echo(note, err=True)
    for name in stamped.revisions:
        print_line(name)
    click.echo(_total(stamped, is_cypher=database.is_cypher), err=True)
    return 0


def _total(stamped: Migrated, *, is_cypher: bool) -> str:
    if not stamped.revisions:
        return "recorded already"
    added = len(stamped.record.added)
    removed = len(stamped.record.removed) + len(stamped.record.unknown)
    untouched = "nothing else was touched" if is_cypher else "no table was touched"
    counts = f"{added} added to the record, {removed} taken out of it"
    return f"recorded: {', '.join(stamped.revisions)} ({counts}); {untouched}"


def _tell(change: RecordChange, verb: str) -> None:
    """Name on stderr what a stamp changes in the record."""
    parts = {
        f"{verb} as applied from now on": change.added,
        f"{verb} as applied with their text of now": change.renewed,
        f"{verb} as not applied any more, so the next apply runs them": change.removed,
        f"{verb} as unknown, and are taken out of the record": change.unknown,
        f"{verb} as not begun any more": change.lifted,
    }
    for words, names in parts.items():
        if names:
            click.echo(f"{words}: {', '.join(names)}", err=True)
