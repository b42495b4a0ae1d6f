"""`is-db-bootstrap redis audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.redis._options import key_options

if TYPE_CHECKING:
    from is_db_bootstrap.stores.redis.keyspace import Keyspace

#: The exit code when a key breaks its pattern.
_NOT_AS_DECLARED = 3


@click.command("audit")
@key_options
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at no more than N keys, from a random place on. [default: all]",
)
@click.option("--no-memory", is_flag=True, help="Leave out MEMORY USAGE.")
def command(
    blueprint: str,
    target: str,
    keyspace: Keyspace,
    *,
    output: str,
    source: str,
    budget: int | None,
    no_memory: bool,
) -> int:
    """Print a table of all keys: by declared pattern, and by prefix where they fit none.

    Changes nothing. Exit 3 when a key breaks its pattern.
    """
    from is_db_bootstrap.render.keys import table_document, table_text

    with keyspace:
        table = keyspace.table(budget, memory=not no_memory)
    code = _NOT_AS_DECLARED if table.broken else 0
    if output == "json":
        print_text(table_document(blueprint, target, table, code, source))
    else:
        print_text(table_text(blueprint, target, table, code))
    return code
