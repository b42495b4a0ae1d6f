"""A graph whose schema was made by hand or by neo4j-migrations, as an adoption finds it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from is_db_bootstrap.engine.store import RECORD
from is_db_bootstrap.results import Change, Drift, Nature
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.history import BASELINE, History
from is_db_bootstrap.wording import counted


def unverified(pending: Sequence[CypherFile], history: History) -> Iterator[Drift]:
    """Files that are not recorded, and whose effects cannot be seen in the schema."""
    for file in pending:
        if history.entry(file.version) is not None:
            message = "is recorded with another text: what it does now has not run"
            yield Drift(file.name, "cypher", message, reason="let `apply` run it again")
        elif file.unrecognised:
            what = counted(file.unrecognised, "statement")
            verb = "declares" if file.unrecognised == 1 else "declare"
            message = (
                f"is unverified: {what} of it {verb} no constraint or index, so whether it has "
                "run cannot be seen"
            )
            reason = "look at what it does. Accept it when that is there, or let `apply` run it"
            yield Drift(file.name, "cypher", message, reason=reason)


def records(
    pending: Sequence[CypherFile], history: History, blueprint: str, place: str
) -> Iterator[Change]:
    """What is to be recorded: each file, or else whose history it is."""
    for file in pending:
        yield Change(file.name, RECORD, f"recorded as applied in the history of {place}", _ATOMIC)
    if not pending and history.begun and not history.blueprint:
        yield Change(BASELINE, RECORD, f"the history is marked as that of {blueprint}", _ATOMIC)


def is_blank(history: History, drifts: Collection[Drift], count: int) -> bool:
    """Whether nothing is recorded, and all `count` declared objects are missing."""
    missing = [drift for drift in drifts if drift.actual is None and drift.message == "is missing"]
    return not history.entries and bool(count) and len(missing) == count


_ATOMIC = Nature.ATOMIC
