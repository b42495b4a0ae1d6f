"""`is-db-bootstrap migrate stamp`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import answer, give_document, print_note
from is_db_bootstrap.cli._output import print_line, tell
from is_db_bootstrap.cli._question import code_of_refusal, refuse_unanswerable
from is_db_bootstrap.cli.migrate._options import (
    Database,
    database_options,
    migrate_exit_codes,
    watch_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    refuse_unanswerable(yes=yes)
    database.refuse_others()
    module = migrate_cypher if database.is_cypher else migrate
    if not yes:
        foreseen = module.foresee_stamp(database.blueprint, revision, **database.arguments)
        for line in _lines_of(foreseen, "would count"):
            tell(line)
    question = f"Record {revision} as the revision of {database.target}, and change nothing else?"
    code = code_of_refusal(question, yes=yes)
    if code is not None:
        return code
    stamped = module.stamp(database.blueprint, revision, **database.arguments, **watch_arguments())
    for line in _lines_of(stamped.record, "count"):
        print_note(line)
    for note in stamped.notes:
        print_note(note)
    if not give_document(_stamped_document(stamped)):
        for name in stamped.revisions:
            print_line(name)
    print_note(_total(stamped, is_cypher=database.is_cypher))
    return 0


def _stamped_document(stamped: Migrated) -> dict[str, object]:
    """The record after a stamp, and what came into it and went out of it."""
    return {
        **answer().document(0),
        "outcome": "changed" if stamped.revisions else "unchanged",
        "revisions": list(stamped.revisions),
        "record": {name: list(names) for name, names in asdict(stamped.record).items()},
        "notes": list(stamped.notes),
    }


def _total(stamped: Migrated, *, is_cypher: bool) -> str:
    if not stamped.revisions:
        return "recorded already"
    added = len(stamped.record.added)
    removed = len(stamped.record.removed) + len(stamped.record.unknown)
    untouched = "nothing else was touched" if is_cypher else "no table was touched"
    counts = f"{added} added to the record, {removed} taken out of it"
    return f"recorded: {', '.join(stamped.revisions)} ({counts}); {untouched}"


def _lines_of(change: RecordChange, verb: str) -> Iterator[str]:
    """What a stamp changes in the record, one line for each kind of change."""
    parts = {
        f"{verb} as applied from now on": change.added,
        f"{verb} as applied with their text of now": change.renewed,
        f"{verb} as not applied any more, so the next apply runs them": change.removed,
        f"{verb} as unknown, and are taken out of the record": change.unknown,
        f"{verb} as not begun any more": change.lifted,
    }
    for words, names in parts.items():
        if names:
            yield f"{words}: {', '.join(names)}"
