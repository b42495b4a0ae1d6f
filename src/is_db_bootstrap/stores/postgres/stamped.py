"""What a stamp of revisions changes in their record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from is_db_bootstrap.results import RecordChange

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.revisions import Chain


def record_change(
    chain: Chain,
    applied: Sequence[str],
    recorded: Iterable[str],
    wanted: Iterable[str],
    marked: Iterable[str] = (),
) -> RecordChange:
    """What becomes of the revisions of `chain` that count as `applied`.

    `recorded` are the rows of the version table, and `wanted` those that replace them. A row that
    the chain does not know is taken away. `marked` are steps that have begun and not ended.
    """
    after = chain.until(wanted)
    unknown = tuple(sorted(row for row in recorded if row not in chain.parents))
    return RecordChange(
        added=tuple(revision for revision in after if revision not in applied),
        removed=tuple(revision for revision in applied if revision not in after),
        unknown=unknown,
        lifted=tuple(marked),
    )
