"""`--targets`: from options to a printed report of many runs."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.blueprint.load import loadable_name
from is_db_bootstrap.cli._endings import code_after_output, result_stream
from is_db_bootstrap.cli._output import print_line, print_text
from is_db_bootstrap.cli._run import prepare_clients, signals_end_run
from is_db_bootstrap.cli._termination_log import log_refusals, write_log
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.fleet import Fleet, Ledger, Order, Refused, Target
from is_db_bootstrap.fleet import read as read_targets
from is_db_bootstrap.fleet import shard as parse_shard
from is_db_bootstrap.render import fleet_summary
from is_db_bootstrap.render.document import as_json
from is_db_bootstrap.settings import process_variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._fleet_options import FleetOptions
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.fleet import FleetResult, TargetResult
    from is_db_bootstrap.results import Mode
    from is_db_bootstrap.settings import RunOptions

#: The exit code when the file of `--resume` cannot be written.
_NOT_NOTED = 2


class _Resume:
    """The file of `--resume`. Without a file, no target is done and nothing is noted.

    `digests` has a digest of what is asked of each target, by the target's name.
    """

    def __init__(self, ledger: Ledger | None, digests: Mapping[str, str]) -> None:
        self._ledger = ledger
        self._digests = digests

    def is_done(self, target: Target | Refused) -> bool:
        """Whether the file says that the same was asked of this target, and is done."""
        digest = self._digests.get(target.name)
        if self._ledger is None or digest is None:
            return False
        return self._ledger.is_done(target.name, digest)

    def note_result(self, result: TargetResult) -> None:
        """Note how a target ended, if it has run. The first line that fails is told on stderr."""
        ledger = self._ledger
        if ledger is None or ledger.failure or not result.run:
            return
        is_noted = ledger.write(result, self._digests[result.name])
        if not is_noted:
            click.echo(
                f"{ledger.failure} The targets go on; what ends from now on is done again.",
                err=True,
            )

    def close_file(self, result: FleetResult) -> FleetResult:
        """Close the file. The result says when the file could not be written."""
        if self._ledger is None:
            return result
        self._ledger.close()
        failure = self._ledger.failure
        code = result.exit_code
        if failure and code == 0:
            code = _NOT_NOTED
        return replace(result, message=failure, exit_code=code)


def run_fleet(options: Options, fleet: FleetOptions, mode: Mode, run_options: RunOptions) -> int:
    """Run `mode` on every target of this shard, and print a line for each that matters.

    Returns the exit code.
    """
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        targets = _shard_targets(options, fleet, blueprint)
        ledger = Ledger(fleet.resume) if fleet.resume else None
    runnable = [target for target in targets if isinstance(target, Target)]
    digests = _request_digests(blueprint, runnable, mode, run_options) if ledger else {}
    resume = _Resume(ledger, digests)
    waiting = [target for target in targets if not resume.is_done(target)]

    def report_target(result: TargetResult) -> None:
        _print_target(result, verbose=options.verbose)
        resume.note_result(result)

    with log_refusals(options.termination_log):
        engine = Fleet(
            Order(loadable_name(options.choice()), mode, options.with_choice(run_options)),
            jobs=fleet.jobs or os.cpu_count() or 1,
            continue_on_error=fleet.continue_on_error,
            report=report_target,
        )
    with signals_end_run(engine):
        result = engine.run(waiting)
    result = resume.close_file(result)
    return _deliver_result(result, options, done_before=len(targets) - len(waiting))


def _shard_targets(
    options: Options, fleet: FleetOptions, blueprint: Blueprint
) -> list[Target | Refused]:
    """The targets of this shard.

    What is broken anywhere in the file keeps every shard from beginning, unless
    `--continue-on-error`. So each shard then has all refused targets.
    """
    chosen = [store for store in blueprint.stores if _is_chosen(store, options)]
    common = options.load_settings(blueprint, identities=chosen)
    index, count = 0, 1
    if fleet.shard is not None:
        index, count = parse_shard(fleet.shard, process_variable("JOB_COMPLETION_INDEX"))
    folder = None if str(fleet.targets) == "-" else Path(str(fleet.targets)).parent
    listed = read_targets(_targets_text(str(fleet.targets)), blueprint, common, folder)
    own = listed[index::count]
    if fleet.continue_on_error:
        return own
    others = [each for each in listed if isinstance(each, Refused) and each not in own]
    return own + others


def _is_chosen(store: str, options: Options) -> bool:
    if store in options.skip:
        return False
    return not options.only or store in options.only


def _targets_text(path: str) -> str:
    """The text of the file of targets; `-` is stdin."""
    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            return str(file.read())
    except (OSError, ValueError, AttributeError) as exc:  # AttributeError: there is no stdin
        readable_path = os.fsencode(path).decode(errors="replace")
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigurationError(
            f"The targets in {readable_path!r} cannot be read: {reason}."
        ) from exc


def _request_digests(
    blueprint: Blueprint,
    targets: Sequence[Target],
    mode: Mode,
    run_options: RunOptions,
) -> dict[str, str]:
    """A digest for each target of everything that is asked of it, and where."""
    # Most targets have one schema and the same values, and so the same fingerprint.
    fingerprints: dict[str, str] = {}
    digests = {}
    for target in targets:
        settings = target.settings
        key = f"{settings.schema} {sorted(settings.values.items())}"
        if key not in fingerprints:
            fingerprints[key] = fingerprint(blueprint, settings)
        urls = settings.stores.values()
        places = sorted(replace(url, password="").reveal() for url in urls)
        request = (fingerprints[key], mode, run_options, places)
        digests[target.name] = hashlib.sha256(repr(request).encode()).hexdigest()[:12]
    return digests


def _print_target(result: TargetResult, *, verbose: bool) -> None:
    """Print a target that failed, and with `verbose` every target, on stderr."""
    if result.exit_code == 0 and not verbose:
        return
    messages = [message for message, _ in result.failures]
    detail = "; ".join(messages) or _change_count(result)
    click.echo(f"{result.name}: {result.outcome}: {detail}", err=True)
    hints = [hint for _, hint in result.failures if hint]
    for hint in dict.fromkeys(hints):
        click.echo(f"  next: {hint}", err=True)


def _change_count(result: TargetResult) -> str:
    """How many changes a target got or would get, in words."""
    stores = result.run["stores"] if result.run else []
    outcomes = [change["outcome"] for store in stores for change in store["changes"]]
    count = sum(outcome in {"changed", "planned"} for outcome in outcomes)
    return f"{count} change{'' if count == 1 else 's'}"


def _deliver_result(result: FleetResult, options: Options, *, done_before: int) -> int:
    """Write the termination log, print the report, and return the exit code of the run.

    The log comes first, because whoever reads stdout may never do so. `done_before` counts the
    targets that were left out.
    """
    write_log(options.termination_log, fleet_summary(result.to_dict()))
    _print_result(result, options, done_before=done_before)
    code = code_after_output(result.exit_code)
    if code != result.exit_code:
        final = replace(result, exit_code=code)
        write_log(options.termination_log, fleet_summary(final.to_dict()))
    return result.exit_code


def _print_result(result: FleetResult, options: Options, *, done_before: int) -> None:
    has_failed = result.exit_code != 0
    if options.output == "json":
        print_text(as_json(result.to_dict()))
    elif has_failed or not options.quiet:
        print_line(_total_line(result, done_before))
    result_stream().flush()


def _total_line(result: FleetResult, done_before: int) -> str:
    """The last line: how many targets came to what."""
    numbers = Counter(str(target.outcome) for target in result.targets)
    counts = [f"{number} {outcome}" for outcome, number in numbers.items()]
    if done_before:
        counts.append(f"{done_before} done before")
    total = len(result.targets) + done_before
    return (
        f"{result.blueprint}: {result.mode} of {total} targets: {', '.join(counts) or 'none'} "
        f"in {result.duration_s:.1f} s (exit {result.exit_code})"
    )
