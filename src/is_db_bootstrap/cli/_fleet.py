"""`--targets`: from options to a printed report of many runs."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.fleet import FleetResult, Target, TargetResult
    from is_db_bootstrap.results import Mode
    from is_db_bootstrap.settings import RunOptions

F = TypeVar("F", bound="Callable[..., Any]")


class FleetOptions(NamedTuple):
    """The options that belong to `--targets`, as parsed."""

    targets: str | None
    jobs: int | None
    continue_on_error: bool
    resume: Path | None
    shard: str | None

    def check(self) -> None:
        """A `UsageError` when one is given without targets."""
        given = [
            f"--{name.replace('_', '-')}"
            for name in self._fields[1:]
            if getattr(self, name) not in {None, False}
        ]
        if self.targets is None and given:
            raise click.UsageError(f"{' and '.join(given)} without --targets.")


_OPTIONS = (
    click.option(
        "--targets",
        type=click.Path(allow_dash=True, readable=False),
        help="Many targets: TOML or JSON lines; - is stdin.",
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
        help="Note outcomes there; leave out what it says is done.",
    ),
    click.option(
        "--shard",
        metavar="INDEX/COUNT",
        help="This part of the targets; COUNT alone: JOB_COMPLETION_INDEX.",
    ),
)


def fleet_options(command: F) -> F:
    """Give `command` the options of a fleet.

    It receives them as one `FleetOptions`, called `fleet`.
    """

    def wrapped(*args: Any, **given: Any) -> Any:
        fleet = FleetOptions(**{name: given.pop(name) for name in FleetOptions._fields})
        fleet.check()
        return command(*args, fleet=fleet, **given)

    wrapped.__doc__ = command.__doc__
    wrapped.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]  # click's own place
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]  # click reads it by its attributes


def run(options: Options, fleet: FleetOptions, mode: Mode, run_options: RunOptions) -> int:
    """Run `mode` on every target of this shard, print a line for each that matters, return the exit code."""
    from is_db_bootstrap.cli._endings import judged
    from is_db_bootstrap.cli._run import leave, refusals, signals
    from is_db_bootstrap.client_imports import keep_out
    from is_db_bootstrap.fleet import Fleet, Ledger, Order, Refused, Target, read, shard
    from is_db_bootstrap.render import fleet_summary
    from is_db_bootstrap.settings import process_variable

    keep_out()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    with refusals(options.termination_log):
        blueprint = options.declared()
        wanted = [
            s
            for s in blueprint.stores
            if s not in options.skip and (s in options.only or not options.only)
        ]
        base = options.settings(blueprint, identities=wanted)
        index, count = (
            shard(fleet.shard, process_variable("JOB_COMPLETION_INDEX"))
            if fleet.shard is not None
            else (0, 1)
        )
        listed = read(_text(str(fleet.targets)), blueprint, base)
        targets = listed[index::count]
        if not fleet.continue_on_error:  # what is broken anywhere keeps every shard from beginning
            targets += [t for t in listed if isinstance(t, Refused) and t not in targets]
        ledger = Ledger(fleet.resume) if fleet.resume else None
    noted = [t for t in targets if ledger and isinstance(t, Target)]
    asked = _asked(blueprint, noted, mode, run_options)
    left = [
        t
        for t in targets
        if not (ledger and t.name in asked and ledger.is_done(t.name, asked[t.name]))
    ]

    def report(result: TargetResult) -> None:
        _line(result, options)
        if (
            ledger
            and not ledger.failure
            and result.run
            and not ledger.write(result, asked[result.name])
        ):
            click.echo(
                f"{ledger.failure} The targets go on; what ends from now on is done again.",
                err=True,
            )

    order = Order(options.asked_for(), mode, run_options)
    with refusals(options.termination_log):
        engine = Fleet(
            order,
            jobs=fleet.jobs or os.cpu_count() or 1,
            continue_on_error=fleet.continue_on_error,
            report=report,
        )
    with signals(engine):
        result = engine.run(left)
    if ledger:
        ledger.close()
        result = replace(
            result,
            message=ledger.failure,
            exit_code=result.exit_code or (2 if ledger.failure else 0),
        )
    if options.termination_log:
        leave(options.termination_log, fleet_summary(result.to_dict()))
    _print(result, options, done=len(targets) - len(left))
    code = judged(result.exit_code)
    if options.termination_log and code != result.exit_code:
        leave(options.termination_log, fleet_summary(replace(result, exit_code=code).to_dict()))
    return code


def _asked(
    blueprint: Blueprint,
    targets: Sequence[Target],
    mode: Mode,
    run_options: RunOptions,
) -> dict[str, str]:
    """A digest for each target of everything that is asked of it, and where."""
    from is_db_bootstrap.blueprint.fingerprint import fingerprint

    digests: dict[str, str] = {}  # most targets have one schema and the same values
    found = {}
    for target in targets:
        decides = f"{target.settings.schema} {sorted(target.settings.values.items())}"
        if decides not in digests:
            digests[decides] = fingerprint(blueprint, target.settings)
        places = sorted(
            replace(url, password="").reveal() for url in target.settings.stores.values()
        )
        asked = (digests[decides], mode, run_options, places)
        found[target.name] = hashlib.sha256(repr(asked).encode()).hexdigest()[:12]
    return found


def _text(path: str) -> str:
    from is_db_bootstrap.errors import ConfigurationError

    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            return str(file.read())
    except (OSError, ValueError, AttributeError) as exc:  # AttributeError: there is no stdin
        where = os.fsencode(path).decode(errors="replace")
        raise ConfigurationError(
            f"The targets in {where!r} cannot be read: {getattr(exc, 'strerror', None) or exc}."
        ) from exc


def _line(result: TargetResult, options: Options) -> None:
    if result.exit_code == 0 and not options.verbose:
        return
    told = "; ".join(message for message, _ in result.failures)
    made = (
        [change["outcome"] for store in result.run["stores"] for change in store["changes"]]
        if result.run
        else []
    )
    changes = sum(outcome in {"changed", "planned"} for outcome in made)
    detail = told or f"{changes} change{'' if changes == 1 else 's'}"
    click.echo(f"{result.name}: {result.outcome}: {detail}", err=True)
    for hint in dict.fromkeys(hint for _, hint in result.failures if hint):
        click.echo(f"  next: {hint}", err=True)


def _print(result: FleetResult, options: Options, *, done: int) -> None:
    import json

    if options.output == "json":
        click.echo(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    elif not (options.quiet and result.exit_code == 0):
        counts = Counter(str(target.outcome) for target in result.targets)
        said = [f"{number} {outcome}" for outcome, number in counts.items()] + (
            [f"{done} done before"] if done else []
        )
        click.echo(
            f"{result.blueprint}: {result.mode} of {len(result.targets) + done} targets: {', '.join(said) or 'none'}"
            f" in {result.duration_s:.1f} s (exit {result.exit_code})"
        )
    sys.stdout.flush()
