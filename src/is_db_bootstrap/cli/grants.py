"""`is-db-bootstrap grants`."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._choices import WordChoice
from is_db_bootstrap.cli._options import Options, common_options

#: What a role can be for.
_PURPOSES = ("apply", "verify")


@click.command("grants")
@common_options
@click.option(
    "--for",
    "purposes",
    type=WordChoice(_PURPOSES),
    multiple=True,
    help="What the role is for. May be repeated. [default: a role for each]",
)
@click.option("--role", metavar="NAME", help="The role. [default: BLUEPRINT_apply, …_verify]")
@click.option(
    "--create-database", is_flag=True, help="The role for apply makes the database itself."
)
def command(
    options: Options, *, purposes: tuple[str, ...], role: str | None, create_database: bool
) -> int:
    """Print the smallest privileges of each store, as statements for an administrator.

    No server is asked, and no password is printed. With --only, stdout is what psql, cypher-shell,
    Python or redis-cli takes.
    """
    from is_db_bootstrap.cli._grants import print_grants

    chosen = purposes or _PURPOSES
    return print_grants(options, chosen, role or "", creates_database=create_database)
