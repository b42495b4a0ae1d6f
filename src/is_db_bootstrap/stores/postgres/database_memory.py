"""What a database remembers of the stores that were converged together with it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from is_db_bootstrap.engine.memory import Memory, Recall
from is_db_bootstrap.engine.memory_text import to_text
from is_db_bootstrap.errors import AccessDenied, StoreUnavailable
from is_db_bootstrap.stores.postgres import lineage_table, memory_table
from is_db_bootstrap.stores.postgres.errors import NAME, errors

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
    from is_db_bootstrap.stores.postgres.workplace import Workplace


def recall(sessions: RunSessions, place: Workplace, *, is_there_unrecorded: bool) -> Recall:
    """What this database is, and what the last plan has seen of its memory.

    `is_there_unrecorded` says that an adoption has found tables of the blueprint, whatever is
    recorded. Raises `StoreConflict` for a record that is broken.
    """
    # The search path of a new session may lead to another schema, so the reader comes first.
    reader = sessions.reader_if_there()
    name = f"database {sessions.url.database}, schema {place.schema}"
    made = f"schema {place.schema}"
    if reader is None:
        return Recall(name, is_blank=True, missing=(made,))
    rows = place.history.memory_rows(reader)
    seen = place.history.seen
    recalled = memory_table.read(rows, place.blueprint.name)
    is_there = seen.has_record_table or is_there_unrecorded
    return Recall(
        name,
        identity=seen.identity,
        is_blank=not is_there and not rows,
        holds=(made,) if is_there else (),
        missing=() if is_there else (made,),
        memories=recalled.memories,
        unable=seen.unable,
        is_unread=seen.may_read is False,
        newer_keys=recalled.newer_keys,
        remarks=(*recalled.remarks, *seen.remarks),
    )


def remember(sessions: RunSessions, place: Workplace, memory: Memory) -> str | None:
    """Write the record into the schema of our own, and read it back.

    A run that was killed after its last revision has left its plan beside the version table. It
    becomes what led there now. Returns a remark when the role may not write the record.
    """
    target = sessions.target
    # The plan of another role says as well what led to the recorded revisions.
    with suppress(AccessDenied), errors(target, lineage_table.PLACE):
        place.revision_steps.complete_left_lineage()
    try:
        with errors(target, memory_table.PLACE):
            if not memory_table.write(sessions.reader(), memory, place.schema):
                return place.history.seen.refusal
            found = memory_table.rows_of(sessions.reader(), memory.blueprint, place.schema)
    except AccessDenied:
        return place.history.seen.refusal
    if (memory.key, to_text(memory)) not in found:
        raise StoreUnavailable(
            NAME,
            f"{target} did not keep the record of what was converged.",
            hint="A fail-over may be going on. Run again.",
            subject=memory_table.PLACE,
        )
    return None
