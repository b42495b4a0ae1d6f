"""What is said of a schema whose lineage and a blueprint's revisions do not contain each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from is_db_bootstrap.engine.lineage import Comparison
from is_db_bootstrap.stores.postgres.revisions import Chain, Record

#: How many revisions a sentence names.
_NAMED = 5


def differences(record: Record, found: Comparison, chain: Chain, blueprint: str) -> str:
    """What each side has and the other one lacks, as it follows on the name of the schema."""
    return ", and ".join(_differences(record, found, chain, blueprint))


def ways_out(record: Record, found: Comparison, chain: Chain) -> str:
    """What a person can do."""
    return " ".join(_ways_out(record, found, chain))


def _differences(record: Record, found: Comparison, chain: Chain, blueprint: str) -> Iterator[str]:
    if found.beyond:
        yield f"records {_listed(found.beyond)}, which {blueprint} does not know"
    for name in found.skipped[:_NAMED]:
        follower = _next_recorded(name, record, chain)
        yield (
            f"never had {name} applied, which stands before {follower} in {blueprint}, and "
            f"{follower} is applied"
        )
    if found.moved:
        yield (
            f"had {_listed(found.moved)} applied before revisions from which that goes on in "
            f"{blueprint}"
        )
    late = [name for name in found.pending if name not in found.skipped]
    if found.beyond and late:
        yield f"lacks {_listed(late)}"


def _ways_out(record: Record, found: Comparison, chain: Chain) -> Iterator[str]:
    if found.skipped:
        first = found.skipped[0]
        yield (
            f"To have {first} applied, let it go on from the last revision, with down_revision = "
            f"{chain.head!r} in its file, and let what follows it now go on from what it follows."
        )
    if any(revision not in chain.parents for revision in record.revisions):
        yield (
            "Bring both lines together in one folder: add the revisions that are missing there, "
            "and let ours go on from theirs (down_revision). Or run the version that was here."
        )
        return
    if found.between:
        yield f"Bring {_listed(found.between)} back into the folder."
    yield (
        "If the schema has everything up to there, record just that: `is-db-bootstrap migrate "
        f"stamp {_reached(record, chain)}`."
    )


def _next_recorded(name: str, record: Record, chain: Chain) -> str:
    """The first recorded revision that goes on from `name`."""
    return next(r for r in chain.order if r in record.lineage and name in chain.until([r]))


def _reached(record: Record, chain: Chain) -> str:
    """The last declared revision that is recorded, or a word for it when there are several."""
    done = chain.until([name for name in record.lineage if name in chain.parents])
    heads = chain.heads(done)
    return heads[0] if len(heads) == 1 else "REVISION"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
