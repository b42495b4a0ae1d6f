"""What the files of applied revisions said when they were applied, and which were edited since.

The SHA-256 of each file stands beside the lineage (`lineage_table`), under the revision's id. So a
file that was renamed is the same, and one that was deleted or squashed is compared with nothing.
Line ends do not count, because git changes them (`core.autocrlf`). Everything else does, comments
too: what is harmless, a person says with `migrate accept`.

A revision that was applied by other means, or by an earlier version, has no digest. Nothing is
known of its file then, which a plan with nothing to do says. The next run that writes our row
takes the file of that moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from is_db_bootstrap.results import Drift
from is_db_bootstrap.wording import counted, noun

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.revisions import Chain, Record

#: The command by which a person takes a file for reviewed.
_ACCEPT = "is-db-bootstrap migrate accept"
#: How many revisions a note names.
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Edited:
    """An applied revision whose file has another digest now than the recorded one."""

    revision: str
    recorded: str
    present: str

    @property
    def drift(self) -> Drift:
        """The difference, which another command than `apply` mends."""
        return Drift(
            self.revision,
            "revision",
            "was edited after it was applied",
            expected=f"sha256 {self.present}",
            actual=f"sha256 {self.recorded}",
            fix=f"{_ACCEPT} {self.revision}",
            reason="An applied revision does not run again. If the edit changes what the revision "
            "does, write another revision, or take the edit back.",
            is_awaited=True,
        )


def applied(record: Record, chain: Chain) -> tuple[str, ...]:
    """The revisions of the folder that count as applied and whose files may be compared, in order.

    None while the recorded revisions are not all known, because an older release has older files.
    """
    if not record.revisions or any(name not in chain.parents for name in record.revisions):
        return ()
    replaced = squashed(record, chain)
    return tuple(name for name in chain.until(record.revisions) if name not in replaced)


def squashed(record: Record, chain: Chain) -> frozenset[str]:
    """The first revision of a folder whose older ones were squashed into it: another file now."""
    known = [name in chain.parents for name in record.lineage]
    if not any(known) or known[0]:
        return frozenset()
    first = record.lineage[known.index(True)]
    return frozenset() if chain.parents[first] else frozenset((first,))


def edited(record: Record, chain: Chain) -> tuple[Edited, ...]:
    """The applied revisions whose files were edited, in their order."""
    return tuple(
        Edited(name, recorded, present)
        for name in applied(record, chain)
        if (recorded := record.digests.get(name))
        and (present := chain.digests.get(name))
        and recorded != present
    )


def unknown(record: Record, chain: Chain) -> tuple[str, ...]:
    """The applied revisions of whose files nothing is recorded, or nothing can be read."""
    return tuple(
        name
        for name in applied(record, chain)
        if name not in record.digests or not chain.digests.get(name)
    )


def notes_of_unknown(record: Record, chain: Chain) -> Iterator[str]:
    """A note that says of how many revisions no edit could be noticed."""
    count = len(unknown(record, chain))
    if count:
        yield (
            f"Of {counted(count, 'applied revision')} no digest is recorded, so an edit of "
            f"{'its file' if count == 1 else 'their files'} is not noticed. To record the files "
            f"as they are now: {_ACCEPT} --all"
        )


def notes(record: Record, chain: Chain) -> Iterator[str]:
    """A note that names the edited revisions."""
    names = [each.revision for each in edited(record, chain)]
    if not names:
        return
    shown = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        shown += f" and {len(names) - _SHOWN} more"
    was = "was" if len(names) == 1 else "were"
    yield (
        f"{noun(len(names), 'Revision')} {shown} {was} edited after being applied, and "
        f"{'does' if len(names) == 1 else 'do'} not run again. After a review: "
        f"{_ACCEPT} {names[0] if len(names) == 1 else '--all'}"
    )
