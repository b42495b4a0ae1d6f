"""Demo data of context_service: one agent, its three tools, and the keywords of these tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedReference, SeedRow

VERSION = "v1.0.0"


def identifier(name: str) -> UUID:
    """The fixed id of the demo row `name`. The id is the same on every machine."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:context_service:{name}")


def _tool_row(
    name: str,
    *,
    mode: str,
    description: str,
    arguments: Mapping[str, str],
    required: Sequence[str],
) -> SeedRow:
    """The row of a tool. `arguments` maps the name of an argument to its JSON Schema type."""
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return SeedRow(
        "tools",
        key={"id": identifier(f"tools:{name}@{VERSION}")},
        values={
            "name": name,
            "version": VERSION,
            "execution_mode": mode,
            "schema": schema,
            "description": description,
        },
        unique=("name", "version"),
    )


def _keyword_row(tool: str, keyword: str) -> SeedRow:
    tool_id = SeedReference("tools", {"name": tool, "version": VERSION})
    return SeedRow("tool_keywords", key={"tool_id": tool_id, "keyword": keyword})


_TOOLS = (
    _tool_row(
        "notification_service",
        mode="cloud",
        description="Sends urgent notifications.",
        arguments={"ticket_id": "string", "severity": "string"},
        required=["ticket_id", "severity"],
    ),
    _tool_row(
        "crm_query",
        mode="cloud",
        description="Queries the customer relationship management system.",
        arguments={"query": "string", "limit": "integer"},
        required=["query"],
    ),
    _tool_row(
        "local_file_reader",
        mode="local",
        description="Reads a file from the local disk.",
        arguments={"file_path": "string"},
        required=["file_path"],
    ),
)

_KEYWORDS = (
    _keyword_row("notification_service", "notification"),
    _keyword_row("notification_service", "alert"),
    _keyword_row("notification_service", "urgent"),
    _keyword_row("crm_query", "crm"),
    _keyword_row("crm_query", "customer"),
    _keyword_row("crm_query", "query"),
    _keyword_row("local_file_reader", "file"),
    _keyword_row("local_file_reader", "read"),
    _keyword_row("local_file_reader", "local"),
)

_AGENT = SeedRow(
    "agents",
    key={"id": identifier("agents:test_agent")},
    values={
        "name": "test_agent",
        "status": "active",
        "description": "Test agent for exercising the context service.",
        "base_prompt": (
            "You are a test agent. You are used to check that the context service works."
        ),
        "allowed_tool_ids": [tool.key["id"] for tool in _TOOLS],
    },
    unique=("name",),
)

ROWS = (*_TOOLS, *_KEYWORDS, _AGENT)
