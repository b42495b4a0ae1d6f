"""The tables of `docs/reference/verify.md`, made from the list of what is compared.

`python tests/support/coverage_page.py` writes them into the page.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIST = ROOT / "src" / "is_db_bootstrap" / "stores" / "postgres" / "catalogue.toml"
PAGE = ROOT / "docs" / "reference" / "verify.md"
BEGIN = "<!-- made from catalogue.toml: begin -->\n"
END = "<!-- made from catalogue.toml: end -->\n"


def coverage() -> dict[str, dict[str, Any]]:
    """The list, by the server's tables."""
    with LIST.open("rb") as file:
        return tomllib.load(file)


def tables() -> str:
    """What is compared and what is not, as two tables in Markdown."""
    return "\n".join([*_compared(), "", *_not_compared(), ""])


def _compared() -> Iterator[str]:
    yield "| kind of object | what tells it in the server's catalogue |"
    yield "|---|---|"
    by_kind: dict[str, list[str]] = {}
    for table, columns in coverage().items():
        for column, kinds in columns.get("compared", {}).items():
            for kind in kinds:
                by_kind.setdefault(kind, []).append(f"{table}.{column}")
    for kind in sorted(by_kind):
        yield f"| {kind} | {_grouped(by_kind[kind])} |"


def _not_compared() -> Iterator[str]:
    yield "| not compared | because |"
    yield "|---|---|"
    for table, columns in coverage().items():
        reasons = columns.get("not_compared", {})
        if isinstance(reasons, str):
            yield f"| `{table}` | {reasons} |"
            continue
        for reason, names in reasons.items():
            if reason not in {"a number of this database", "follows from what is compared"}:
                yield f"| `{table}`: {', '.join(names)} | {reason} |"


def _grouped(names: list[str]) -> str:
    """The columns of each table, the table named once."""
    by_table: dict[str, list[str]] = {}
    for name in names:
        table, _, column = name.partition(".")
        by_table.setdefault(table, []).append(column)
    return "; ".join(f"`{table}`: {', '.join(each)}" for table, each in by_table.items())


def page_with_tables(page: str) -> str:
    """The page with the tables of today between its two marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + tables() + END + after


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
