"""Demo data of agentic_projects: five starter templates."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedRow


def identifier(slug: str) -> UUID:
    """The fixed id of the starter template `slug`. The id is the same on every machine."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:agentic_projects:templates:{slug}")


def _template_row(
    slug: str,
    *,
    name: str,
    description: str,
    category: str,
    complexity: str,
    minutes: int,
    tech_stack: Sequence[str],
    tags: Sequence[str],
) -> SeedRow:
    """The row of one starter template. `minutes` is the estimated time to set a project up."""
    return SeedRow(
        "templates",
        key={"id": identifier(slug)},
        values={
            "name": name,
            "description": description,
            "category": category,
            "files": {"README.md": "# {{ project_name }}\n"},
            "required_vars": ["project_name"],
            "optional_vars": ["author"],
            "tech_stack": list(tech_stack),
            "estimated_setup_time": minutes,
            "complexity": complexity,
            "tags": list(tags),
        },
        unique=("name",),
    )


ROWS = (
    _template_row(
        "rest-api",
        name="REST API",
        description="HTTP API with a relational database.",
        category="api",
        complexity="simple",
        minutes=15,
        tech_stack=("python", "fastapi", "postgresql"),
        tags=("api", "rest", "backend"),
    ),
    _template_row(
        "web-app",
        name="Web application",
        description="Browser front end with an HTTP back end.",
        category="web",
        complexity="medium",
        minutes=30,
        tech_stack=("python", "fastapi", "typescript", "react"),
        tags=("web", "fullstack"),
    ),
    _template_row(
        "mobile-backend",
        name="Mobile back end",
        description="Sign-in, profiles and push messages for a mobile app.",
        category="mobile",
        complexity="medium",
        minutes=30,
        tech_stack=("python", "fastapi", "redis"),
        tags=("mobile", "backend", "push"),
    ),
    _template_row(
        "etl-pipeline",
        name="Data pipeline",
        description="Extracts, transforms and loads tables on a schedule.",
        category="data",
        complexity="medium",
        minutes=20,
        tech_stack=("python", "pandas", "postgresql"),
        tags=("data", "etl"),
    ),
    _template_row(
        "observable-microservice",
        name="Observable microservice",
        description="Small service with metrics, traces and health checks.",
        category="microservice",
        complexity="complex",
        minutes=45,
        tech_stack=("python", "grpc", "opentelemetry"),
        tags=("microservice", "observability"),
    ),
)
