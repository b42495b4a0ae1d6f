"""What is wrong with a blueprint's declarations about PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from is_db_bootstrap.blueprint.declarations import Blueprint

#: How a function is named: by its module and its name there, such as
#: `app.models:Base.metadata.create_all`.
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def problems(blueprint: Blueprint) -> Iterator[str]:
    """Each thing that is wrong, with the field of the blueprint. No server is asked."""
    if blueprint.seed_rows and blueprint.migrations is None and blueprint.alembic is None:
        yield "seed_rows: there are no migrations that make their tables"
    if blueprint.migrations is not None and blueprint.alembic is not None:
        yield "migrations and alembic: one of them names the revisions"
    if blueprint.alembic is not None and blueprint.portable:
        yield "portable: revisions of an environment of their own run on PostgreSQL only"
    yield from _problems_of_baseline(blueprint)


def _problems_of_baseline(blueprint: Blueprint) -> Iterator[str]:
    baseline = blueprint.baseline
    if baseline is None:
        return
    if blueprint.migrations is None and blueprint.alembic is None:
        yield "baseline: there are no revisions of which one is recorded"
    if blueprint.portable:
        yield "baseline: it runs on PostgreSQL only, and the revisions are portable"
    if baseline.file is None and not _FUNCTION.fullmatch(baseline.source):
        yield (
            f"baseline {baseline.source!r}: neither module:function nor the path of a file whose "
            "name ends with .sql"
        )
    if baseline.file is not None and not baseline.revision:
        yield (
            "baseline_revision: an SQL file belongs to one revision, and none is named "
            "(Baseline(…, revision=…))"
        )
