"""Demo data: five starter templates."""

from __future__ import annotations

from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedRow


def identifier(slug: str) -> UUID:
    """The fixed id of the starter template of that slug."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:agentic_projects:templates:{slug}")


def _template(  # noqa: PLR0917 - a row of the table of templates
    slug: str, name: str, category: str, complexity: str, minutes: int, tech_stack: str, tags: str, description: str
) -> SeedRow:
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
            "tech_stack": tech_stack.split(),
            "estimated_setup_time": minutes,
            "complexity": complexity,
            "tags": tags.split(),
        },
        unique=("name",),
    )


ROWS = (
    _template(
        "rest-api", "REST API", "api", "simple", 15, "python fastapi postgresql", "api rest backend",
        "HTTP API with a relational database.",
    ),
    _template(
        "web-app", "Web application", "web", "medium", 30, "python fastapi typescript react", "web fullstack",
        "Browser front end with an HTTP back end.",
    ),
    _template(
        "mobile-backend", "Mobile back end", "mobile", "medium", 30, "python fastapi redis", "mobile backend push",
        "Sign-in, profiles and push messages for a mobile app.",
    ),
    _template(
        "etl-pipeline", "Data pipeline", "data", "medium", 20, "python pandas postgresql", "data etl",
        "Extracts, transforms and loads tables on a schedule.",
    ),
    _template(
        "observable-microservice", "Observable microservice", "microservice", "complex", 45, "python grpc opentelemetry",
        "microservice observability", "Small service with metrics, traces and health checks.",
    ),
)  # fmt: skip
