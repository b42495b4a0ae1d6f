"""Queries whose condition is served by a GIN index.

Each docstring names the index. All values are bound as parameters. Every function raises
`ValueError` for an empty argument, because an empty condition would match every row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Select, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from is_db_bootstrap.blueprints.agentic_projects.tables import (
    modifications,
    project_contexts,
    templates,
)


def projects_with_file(name: str) -> Select[Any]:
    """Projects whose code base has a file called `name`.

    The query uses `idx_project_contexts_codebase`.
    """
    _refuse_empty(name)
    return select(project_contexts).where(project_contexts.c.codebase.has_key(name))


def projects_with_environment(subset: Mapping[str, Any]) -> Select[Any]:
    """Projects whose environment contains every pair of `subset`.

    The query uses `idx_project_contexts_environment_vars`.
    """
    _refuse_empty(subset)
    environment = project_contexts.c.environment_vars
    return select(project_contexts).where(environment.contains(dict(subset)))


def modifications_with_impact(subset: Mapping[str, Any]) -> Select[Any]:
    """Modifications whose impact analysis contains `subset`.

    The query uses `idx_modifications_impact_analysis`.
    """
    _refuse_empty(subset)
    analysis = modifications.c.impact_analysis
    return select(modifications).where(analysis.contains(dict(subset)))


def modifications_with_test_results(subset: Mapping[str, Any]) -> Select[Any]:
    """Modifications whose test results contain `subset`.

    The query uses `idx_modifications_test_results`.
    """
    _refuse_empty(subset)
    results = modifications.c.test_results
    return select(modifications).where(results.contains(dict(subset)))


def templates_with_file(name: str) -> Select[Any]:
    """Templates that have a file called `name`. The query uses `idx_templates_files`."""
    _refuse_empty(name)
    return select(templates).where(templates.c.files.has_key(name))


def templates_with_tech(names: Collection[str]) -> Select[Any]:
    """Templates whose technology stack has all of `names`.

    The query uses `idx_templates_tech_stack`. Raises `TypeError` when `names` is a single string.
    """
    wanted = _text_array(names)
    return select(templates).where(_array_column("tech_stack").contains(wanted))


def templates_with_tags(names: Collection[str], *, match_any: bool = False) -> Select[Any]:
    """Templates that bear all of `names`, or with `match_any` at least one name.

    The query uses `idx_templates_tags`. Raises `TypeError` when `names` is a single string.
    """
    tags = _array_column("tags")
    wanted = _text_array(names)
    condition = tags.overlap(wanted) if match_any else tags.contains(wanted)
    return select(templates).where(condition)


def _array_column(name: str) -> Any:
    """A column of `templates`, with the operators of PostgreSQL arrays."""
    return cast(templates.c[name], ARRAY(Text))


def _text_array(names: Collection[str]) -> Any:
    if isinstance(names, str):
        raise TypeError(f"{names!r} is one name. Give a collection of names.")
    _refuse_empty(names)
    return cast(list(names), ARRAY(Text))


def _refuse_empty(value: Collection[Any]) -> None:
    if not value:
        raise ValueError("An empty argument would match everything.")
