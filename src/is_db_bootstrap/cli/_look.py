"""What plan, verify and status share: a look at one place, or at every target of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.cli._fleet_options import FleetOptions
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.results import Mode
    from is_db_bootstrap.settings import RunOptions


def look(
    options: Options,
    fleet: FleetOptions,
    mode: Mode,
    run_options: RunOptions,
    *,
    pending_code: int = 0,
) -> int:
    """Look at the stores of this call, or at those of each target. Returns the exit code.

    A look at a target that failed does not keep the others from theirs. `pending_code` is the exit
    code when changes are planned and nothing has failed.
    """
    if fleet.targets is None:
        from is_db_bootstrap.cli._run import run_mode

        return run_mode(options, mode, run_options, pending_code=pending_code)
    from is_db_bootstrap.cli._fleet import run_fleet

    every = fleet._replace(continue_on_error=True)
    return run_fleet(options, every, mode, run_options, pending_code=pending_code)
