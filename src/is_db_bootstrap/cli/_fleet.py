"""`--targets`: from options to a printed report of many runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.app import chosen_stores
from is_db_bootstrap.blueprint.fingerprint import fingerprint
from is_db_bootstrap.blueprint.load import loadable_name
from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import result_stream, write_record
from is_db_bootstrap.cli._output import print_text, stdout_screen, tell
from is_db_bootstrap.cli._result_file import deliver
from is_db_bootstrap.cli._run import mask_of, prepare_clients, signals_end_run
from is_db_bootstrap.cli._termination_log import log_refusals, write_log
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.fleet import Fleet, Ledger, Order, Refused, Target
from is_db_bootstrap.fleet import read as read_targets
from is_db_bootstrap.fleet import shard as parse_shard
from is_db_bootstrap.render import fleet_report, fleet_summary
from is_db_bootstrap.render.document import as_json
from is_db_bootstrap.render.fleet_watches import fleet_watch
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.settings import process_variable
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._fleet_options import FleetOptions
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.fleet import FleetResult, TargetResult
    from is_db_bootstrap.render.fleet_watch import FleetWatch
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

    def note_result(self, result: TargetResult) -> str:
        """Note how a target ended, if it has run.

        Returns a sentence when that fails for the first time, and otherwise an empty text.
        """
        ledger = self._ledger
        if ledger is None or ledger.failure or not result.run:
            return ""
        if ledger.write(result, self._digests[result.name]):
            return ""
        return f"{ledger.failure} The targets go on; what ends from now on is done again."

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


def run_fleet(
    options: Options,
    fleet: FleetOptions,
    mode: Mode,
    run_options: RunOptions,
    *,
    pending_code: int = 0,
) -> int:
    """Run `mode` on every target of this shard, and print a line for each that matters.

    Returns the exit code. `pending_code` is the one of a plan with changes, when nothing failed.
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

    is_lined = answer().json_log is not None
    with fleet_watch(tell, options.output, quiet=options.quiet, is_lined=is_lined) as watch:

        def report_target(result: TargetResult) -> None:
            _tell_target(result, options, watch)
            if failure := resume.note_result(result):
                watch.tell(failure)

        with log_refusals(options.termination_log):
            engine = Fleet(
                Order(loadable_name(options.choice()), mode, options.with_choice(run_options)),
                jobs=fleet.jobs or os.cpu_count() or 1,
                continue_on_error=fleet.continue_on_error,
                report=report_target,
                watch=watch,
            )
        with signals_end_run(engine):
            result = engine.run(waiting)
    result = resume.close_file(result)
    if pending_code and result.exit_code == 0 and result.outcome is Outcome.PLANNED:
        result = replace(result, exit_code=pending_code)
    urls = [url for target in runnable for url in target.settings.stores.values()]
    return _deliver_result(result, options, mask_of(urls), done_before=len(targets) - len(waiting))


def _shard_targets(
    options: Options, fleet: FleetOptions, blueprint: Blueprint
) -> list[Target | Refused]:
    """The targets of this shard.

    What is broken anywhere in the file keeps every shard from beginning, unless
    `--continue-on-error`. So each shard then has all refused targets.
    """
    chosen = chosen_stores(blueprint, options.only, options.skip)
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
    """A digest for each target of everything that is asked of it, and where.

    Where a store is of which nothing is asked makes no difference.
    """
    stores = chosen_stores(blueprint, run_options.only, run_options.skip)
    asked = replace(run_options, run_id="")
    # Most targets have one schema and the same values, and so the same fingerprint.
    fingerprints: dict[str, str] = {}
    digests = {}
    for target in targets:
        settings = target.settings
        key = f"{settings.schema} {sorted(settings.values.items())}"
        if key not in fingerprints:
            fingerprints[key] = fingerprint(blueprint, settings)
        urls = [settings.stores[store] for store in stores if store in settings.stores]
        places = sorted(replace(url, password="").reveal() for url in urls)
        request = (fingerprints[key], mode, asked, places)
        digests[target.name] = hashlib.sha256(repr(request).encode()).hexdigest()[:12]
    return digests


def _tell_target(result: TargetResult, options: Options, watch: FleetWatch) -> None:
    """Tell on stderr how a target ended: as a record, or as lines where somebody should know."""
    json_log = answer().json_log
    if json_log is None:
        for line in _target_lines(result, verbose=options.verbose):
            watch.tell(line)
    elif result.exit_code or not options.quiet:
        write_record(json_log.of_target(result.name, asdict(result)))


def _target_lines(result: TargetResult, *, verbose: bool) -> list[str]:
    """Lines about a target that failed, and with `verbose` about every target."""
    if result.exit_code == 0 and not verbose:
        return []
    messages = [message for message, _ in result.failures]
    detail = "; ".join(messages) or _change_count(result)
    hints = [hint for _, hint in result.failures if hint]
    nexts = [f"  next: {hint}" for hint in dict.fromkeys(hints)]
    return [f"{result.name}: {result.outcome}: {detail}", *nexts]


def _change_count(result: TargetResult) -> str:
    """How many changes a target got or would get, in words."""
    stores = result.run["stores"] if result.run else []
    outcomes = [change["outcome"] for store in stores for change in store["changes"]]
    count = sum(outcome in {"changed", "planned"} for outcome in outcomes)
    return counted(count, "change")


def _deliver_result(
    result: FleetResult, options: Options, mask: Callable[[str], str], *, done_before: int
) -> int:
    """Write the termination log, print the report, and return the exit code of the run.

    `done_before` counts the targets that were left out.
    """

    def with_code(code: int) -> FleetResult:
        return replace(result, exit_code=code)

    return deliver(
        result.exit_code,
        text_of=lambda code: as_json(with_code(code).to_dict()),
        show=lambda code: _print_result(with_code(code), options, mask, done_before=done_before),
        note=lambda code: write_log(
            options.termination_log, fleet_summary(with_code(code).to_dict())
        ),
    )


def _print_result(
    result: FleetResult, options: Options, mask: Callable[[str], str], *, done_before: int
) -> None:
    has_failed = result.exit_code != 0
    if options.output == "json":
        print_text(as_json(result.to_dict()))
    elif options.output == "markdown":
        from is_db_bootstrap.render.plan_comment import fleet_plan_comment

        print_text(fleet_plan_comment(result.to_dict(), mask))
    elif options.output == "junit":
        from is_db_bootstrap.render.junit import junit_fleet

        print_text(junit_fleet(result.to_dict(), mask))
    elif has_failed or not options.quiet:
        document = result.to_dict()
        print_text(fleet_report(document, stdout_screen(), done_before=done_before))
    result_stream().flush()
