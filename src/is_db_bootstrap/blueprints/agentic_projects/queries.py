"""Queries whose condition a GIN index serves. Values are bound; an empty argument is a `ValueError`, because it would match all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Select, cast, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from is_db_bootstrap.blueprints.agentic_projects.tables import modifications, project_contexts, templates


def projects_with_file(name: str) -> Select[Any]:
    """Projects whose code base has a file of that name; `idx_project_contexts_codebase`."""
    return select(project_contexts).where(project_contexts.c.codebase.has_key(_given(name)))


def projects_with_environment(subset: Mapping[str, Any]) -> Select[Any]:
    """Projects whose environment contains every pair of `subset`; `idx_project_contexts_environment_vars`."""
    return select(project_contexts).where(project_contexts.c.environment_vars.contains(_given(subset)))


def modifications_with_impact(subset: Mapping[str, Any]) -> Select[Any]:
    """Modifications whose analysis contains `subset`; `idx_modifications_impact_analysis`."""
    return select(modifications).where(modifications.c.impact_analysis.contains(_given(subset)))


def modifications_with_test_results(subset: Mapping[str, Any]) -> Select[Any]:
    """Modifications whose test results contain `subset`; `idx_modifications_test_results`."""
    return select(modifications).where(modifications.c.test_results.contains(_given(subset)))


def templates_with_file(name: str) -> Select[Any]:
    """Templates that have a file of that name; `idx_templates_files`."""
    return select(templates).where(templates.c.files.has_key(_given(name)))


def templates_with_tech(names: Collection[str]) -> Select[Any]:
    """Templates whose stack has all of `names`; `idx_templates_tech_stack`."""
    return select(templates).where(_column("tech_stack").contains(_texts(names)))


def templates_with_tags(names: Collection[str], *, match_any: bool = False) -> Select[Any]:
    """Templates that bear all of `names`, or any of them with `match_any`; `idx_templates_tags`."""
    tags = _column("tags")
    return select(templates).where(tags.overlap(_texts(names)) if match_any else tags.contains(_texts(names)))


def _column(name: str) -> Any:
    return cast(templates.c[name], ARRAY(Text))


def _texts(names: Collection[str]) -> Any:
    if isinstance(names, str):
        raise TypeError(f"{names!r} is one name; give a collection of them.")
    return cast(list(_given(names)), ARRAY(Text))


def _given(value: Any) -> Any:
    if not value:
        raise ValueError("An empty argument would match everything.")
    return dict(value) if isinstance(value, Mapping) else value
