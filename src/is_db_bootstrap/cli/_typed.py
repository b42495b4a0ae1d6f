"""What was typed on the command line, where it may hold a secret.

An address belongs behind an option whose name ends with `url`, and behind `--try`. An address in
any other place is a mistake. Such a call is refused before the value is used: a folder would get
its name, or a message would repeat it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

#: The option of a plan that takes the address of a server.
_TRY = "--try"
_SHORT_OPTION_LENGTH = len("-x")


def option_values(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each value of a command line with the option before it, which is empty for an argument."""
    option = ""
    for arg in args:
        if arg.startswith("--"):
            name, equals, value = arg.partition("=")
            if equals:
                yield name, value
            option = "" if equals else arg
        elif arg.startswith("-") and len(arg) > _SHORT_OPTION_LENGTH:
            name = arg[:_SHORT_OPTION_LENGTH]
            value = arg[_SHORT_OPTION_LENGTH:]
            yield name, value.removeprefix("=")
            option = ""
        elif arg.startswith("-"):
            option = arg
        else:
            yield option, arg
            option = ""


def refuse_misplaced_addresses(args: Sequence[str]) -> None:
    """Raise `click.UsageError` for an address with a secret in another value's place."""
    from is_db_bootstrap.settings.secrets import may_hold_secret, shown

    for option, value in option_values(args):
        is_expected = option.endswith("url") or option == _TRY
        if is_expected or not may_hold_secret(value):
            continue
        place = f"what stands behind {option}" if option else "an argument"
        raise click.UsageError(
            f"{shown(value)}: {place} is an address, and none belongs there. "
            "Addresses stand behind --postgres-url, --neo4j-url, --milvus-url and --redis-url."
        )


class Mask:
    """A function that takes each address of the command line out of a text.

    All text that leaves the process passes through it.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self._addresses = [value for _, value in option_values(args) if ":/" in value]

    def __call__(self, text: str) -> str:
        """`text` with each typed address cut down to its scheme."""
        if not self._addresses:  # Most command lines have none, and need no import.
            return text
        from is_db_bootstrap.settings.secrets import without_typed

        return without_typed(text, self._addresses)
