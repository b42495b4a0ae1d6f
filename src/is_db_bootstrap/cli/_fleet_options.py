"""The options that belong to `--targets`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple, cast

import click

from is_db_bootstrap.cli._options import F, add_options

_FLEET_OPTIONS = (
    click.option(
        "--targets",
        type=click.Path(allow_dash=True, readable=False),
        help="A file of many targets: TOML or JSON lines. - is stdin.",
    ),
    click.option(
        "--jobs", type=click.IntRange(min=1), help="Targets at a time. [default: one a processor]"
    ),
    click.option(
        "--continue-on-error", is_flag=True, help="Other targets go on when one fails or is broken."
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path, readable=False),
        help="Note outcomes in this file, and leave out targets that it says are done.",
    ),
    click.option(
        "--shard",
        metavar="INDEX/COUNT",
        help="This part of the targets. COUNT alone takes its index from JOB_COMPLETION_INDEX.",
    ),
)


class FleetOptions(NamedTuple):
    """The options that belong to `--targets`, as parsed."""

    targets: str | None
    jobs: int | None
    continue_on_error: bool
    resume: Path | None
    shard: str | None

    def refuse_without_targets(self) -> None:
        """Raise `click.UsageError` when one of these options is given without `--targets`."""
        if self.targets is not None:
            return
        given = [name for name, value in self._asdict().items() if value not in {None, False}]
        if given:
            options = [f"--{name.replace('_', '-')}" for name in given]
            raise click.UsageError(f"{' and '.join(options)} without --targets.")


def fleet_options(command: F) -> F:
    """Give `command` the options of a fleet.

    It receives them as one `FleetOptions`, called `fleet`.
    """

    @functools.wraps(command)
    def with_options(*args: Any, **parameters: Any) -> Any:
        values = {name: parameters.pop(name) for name in FleetOptions._fields}
        fleet = FleetOptions(**values)
        fleet.refuse_without_targets()
        return command(*args, fleet=fleet, **parameters)

    return add_options(cast("F", with_options), _FLEET_OPTIONS)
