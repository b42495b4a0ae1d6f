"""Demo data: one agent, the three tools that it may use, and the words that they are found by."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import NAMESPACE_URL, UUID, uuid5

from is_db_bootstrap.blueprint import SeedReference, SeedRow

VERSION = "v1.0.0"


def identifier(name: str) -> UUID:
    """The fixed id of the demo row of that name."""
    return uuid5(NAMESPACE_URL, f"urn:is-db-bootstrap:context_service:{name}")


def _tool(name: str, mode: str, description: str, required: Iterable[str], /, **properties: str) -> SeedRow:
    schema = {
        "type": "object",
        "properties": {argument: {"type": kind} for argument, kind in properties.items()},
        "required": list(required),
    }
    return SeedRow(
        "tools",
        key={"id": identifier(f"tools:{name}@{VERSION}")},
        values={"name": name, "version": VERSION, "execution_mode": mode, "schema": schema, "description": description},
        unique=("name", "version"),
    )


_TOOLS = (
    _tool(
        "notification_service", "cloud", "Sends urgent notifications.", ["ticket_id", "severity"],
        ticket_id="string", severity="string",
    ),
    _tool(
        "crm_query", "cloud", "Queries the customer relationship management system.", ["query"],
        query="string", limit="integer",
    ),
    _tool("local_file_reader", "local", "Reads a file from the local disk.", ["file_path"], file_path="string"),
)  # fmt: skip
_KEYWORDS = {
    "notification_service": ("notification", "alert", "urgent"),
    "crm_query": ("crm", "customer", "query"),
    "local_file_reader": ("file", "read", "local"),
}

ROWS = (
    *_TOOLS,
    *(
        SeedRow(
            "tool_keywords",
            key={"tool_id": SeedReference("tools", {"name": tool, "version": VERSION}), "keyword": keyword},
        )
        for tool, keywords in _KEYWORDS.items()
        for keyword in keywords
    ),
    SeedRow(
        "agents",
        key={"id": identifier("agents:test_agent")},
        values={
            "name": "test_agent",
            "status": "active",
            "description": "Test agent for exercising the context service.",
            "base_prompt": "You are a test agent. You are used to check that the context service works.",
            "allowed_tool_ids": [tool.key["id"] for tool in _TOOLS],
        },
        unique=("name",),
    ),
)
