"""What was typed on the command line, where it may hold a secret.

An address belongs behind an option whose name ends with `url`. Everywhere else it was put by
mistake. Such a call is refused before anything is done with the value: a path of it would be made,
a message would repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click


def pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each value of a command line, and the option that stands before it (empty: none does)."""
    before = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if arg.startswith("--"):
            if equals:
                yield name, value
            before = "" if equals else arg
        elif arg.startswith("-") and len(arg) > len("-x"):
            yield arg[:2], arg[2:].removeprefix("=")
            before = ""
        elif arg.startswith("-"):
            before = arg
        else:
            yield before, arg
            before = ""


def refuse_misplaced(args: Sequence[str]) -> None:
    """Raise `click.UsageError` for an address with a secret that stands in another value's place."""
    from is_db_bootstrap.settings.secrets import may_hold_secret, shown

    for option, value in pairs(args):
        if option.endswith("url") or not may_hold_secret(value):
            continue
        where = f"what stands behind {option}" if option else "an argument"
        raise click.UsageError(
            f"{shown(value)}: {where} is an address, and none belongs there. "
            "Addresses stand behind --postgres-url, --neo4j-url, --milvus-url and --redis-url."
        )


class Mask:
    """Makes text that leaves the process, without any address of the command line."""

    def __init__(self, args: Sequence[str]) -> None:
        # No import for a command line without addresses, which most are.
        self._typed = [value for _, value in pairs(args) if ":/" in value]

    def __call__(self, text: str) -> str:
        """`text` with each typed address as its scheme only."""
        if not self._typed:
            return text
        from is_db_bootstrap.settings.secrets import without_typed

        return without_typed(text, self._typed)
