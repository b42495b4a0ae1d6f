"""`is-db-bootstrap adopt`."""

from __future__ import annotations

import click

from is_db_bootstrap.cli._options import ACCEPT_RESET_AS_IT_IS, Options, apply_options
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
@ACCEPT_RESET_AS_IT_IS
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    options: Options, accepted: tuple[str, ...], accept_reset: tuple[str, ...], yes: bool
) -> int:
    """Take over stores that were built by hand or by another tool.

    Every declared object is compared with the live one. When nothing differs, or --accept names
    each difference, the stores are recorded as converged. Nothing is changed but the records. Exit
    3 when something differs, 6 for a blank store, and 8 for one that was converged and is lost.
    With --accept-reset such a store is taken as it is.
    """
    refuse_unanswerable(yes=yes)
    from is_db_bootstrap.cli._adopt import adopt

    run_options = options.run_options(accepted=accepted, accept_reset=accept_reset)
    return adopt(options, run_options, yes=yes)
