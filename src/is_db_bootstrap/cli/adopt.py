"""`is-db-bootstrap adopt`."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._options import Options, apply_options
from is_db_bootstrap.cli._question import refuse_unanswerable


@click.command("adopt")
@apply_options
@click.option(
    "--accept",
    "accepted",
    metavar="NAME",
    multiple=True,
    help="Record although this object differs. May be repeated.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(options: Options, accepted: tuple[str, ...], yes: bool) -> int:
    """Take over stores that were built by hand or by another tool.

    Every declared object is compared with the live one. When nothing differs, or --accept names
    each difference, the stores are recorded as converged. Nothing is changed but the records. Exit
    3 when something differs, and 6 for a blank store.
    """
    refuse_unanswerable(yes=yes)
    from is_db_bootstrap.cli._adopt import adopt

    return adopt(options, accepted, yes=yes)
