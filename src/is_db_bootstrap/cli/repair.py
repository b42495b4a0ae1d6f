"""`is-db-bootstrap repair`."""

import click

from is_db_bootstrap.cli._options import Options, apply_options
from is_db_bootstrap.cli._question import refuse_unanswerable


@click.command("repair")
@apply_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(options: Options, *, yes: bool) -> int:
    """Mend what differs where nothing is lost by that: what is missing and holds no data.

    Shows its statements first, and asks. Exit 3 when something is left, with the reason.
    Nothing is dropped, and nothing that is pending is applied.
    """
    refuse_unanswerable(yes=yes)
    from is_db_bootstrap.cli._repair import run_repair

    return run_repair(options, yes=yes)
