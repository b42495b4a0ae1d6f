"""The options that belong to `--targets`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import click

from is_db_bootstrap.cli._options import Decorator, F, add_options

#: What every command with targets takes.
_TARGET_OPTIONS = (
    click.option(
        "--targets",
        type=click.Path(allow_dash=True, readable=False),
        help="A file of many targets: TOML, JSON lines or a JSON array. - is stdin.",
    ),
    click.option(
        "--jobs", type=click.IntRange(min=1), help="Targets at a time. [default: one a processor]"
    ),
)
_SHARD_OPTION = click.option(
    "--shard",
    metavar="INDEX/COUNT",
    help="This part of the targets. COUNT alone takes its index from JOB_COMPLETION_INDEX.",
)
#: What only a command that changes targets takes.
_CHANGE_OPTIONS = (
    click.option(
        "--continue-on-error", is_flag=True, help="Other targets go on when one fails or is broken."
    ),
    click.option(
        "--resume",
        type=click.Path(path_type=Path, readable=False),
        help="Note outcomes in this file, and leave out targets that it says are done.",
    ),
)


class FleetOptions(NamedTuple):
    """The options that belong to `--targets`, as parsed.

    A command that changes nothing has neither `continue_on_error` nor `resume`.
    """

    targets: str | None = None
    jobs: int | None = None
    continue_on_error: bool = False
    resume: Path | None = None
    shard: str | None = None

    def refuse_without_targets(self) -> None:
        """Raise `click.UsageError` when one of these options is given without `--targets`."""
        if self.targets is not None:
            return
        given = [name for name, value in self._asdict().items() if value not in {None, False}]
        if given:
            options = [f"--{name.replace('_', '-')}" for name in given]
            raise click.UsageError(f"{' and '.join(options)} without --targets.")


def fleet_options(command: F) -> F:
    """Give `command`, which changes targets, the options of a fleet.

    It receives them as one `FleetOptions`, called `fleet`.
    """
    return _with_fleet(command, (*_TARGET_OPTIONS, *_CHANGE_OPTIONS, _SHARD_OPTION))


def fleet_look_options(command: F) -> F:
    """Give `command`, which only looks at targets, the options of a fleet.

    It receives them as `fleet_options` says. Nothing keeps a look at one target from the next one,
    and a look is no outcome to resume from.
    """
    return _with_fleet(command, (*_TARGET_OPTIONS, _SHARD_OPTION))


def _with_fleet(command: F, options: Sequence[Decorator]) -> F:
    @functools.wraps(command)
    def with_options(*args: Any, **parameters: Any) -> Any:
        names = [name for name in FleetOptions._fields if name in parameters]
        fleet = FleetOptions(**{name: parameters.pop(name) for name in names})
        fleet.refuse_without_targets()
        return command(*args, fleet=fleet, **parameters)

    return add_options(cast("F", with_options), options)
