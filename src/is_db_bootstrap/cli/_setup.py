"""The four steps of `setup`, over all the stores of a blueprint."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.blueprint.describe import describe, verified_lines
from is_db_bootstrap.cli._answer import answer
from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE, code_after_output, tell_failure
from is_db_bootstrap.cli._log import records_observer
from is_db_bootstrap.cli._output import print_line, print_text, tell
from is_db_bootstrap.cli._question import ask_user
from is_db_bootstrap.cli._result_file import deliver
from is_db_bootstrap.cli._run import abandon_unfinished_calls, prepare_clients
from is_db_bootstrap.cli._termination_log import log_refusals, write_log
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.leftovers import Guests
from is_db_bootstrap.render import document, refusal, summary
from is_db_bootstrap.render.report import without_details
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import DEFAULT_SOURCE
from is_db_bootstrap.settings.timing import SETUP_TIMEOUT_S
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.events import Observer
    from is_db_bootstrap.results import BootstrapResult, ChangeResult, StoreResult
    from is_db_bootstrap.settings import Settings, StoreUrl

_STEPS = ("Configuration", "Connection", "Migration", "Verification")


class _EndedError(Exception):
    """The command ends with `code`. The message has the reason."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Setup:
    """One guided set-up.

    `run` returns its exit code: 0, 1, 2 for configuration and for a question without a terminal,
    or 9 for a result that could not be written.
    """

    def __init__(self, options: Options, *, seed: bool, yes: bool) -> None:
        prepare_clients()
        timeout_s = SETUP_TIMEOUT_S if options.timeout is None else options.timeout
        self._options = options._replace(timeout=timeout_s)
        self._seed = seed
        self._yes = yes
        self._guests = Guests()
        self._step = 0
        self._failure: BootstrapError | None = None
        self._last: BootstrapResult | None = None
        self._applied: BootstrapResult | None = None

    def run(self) -> int:
        """Take the four steps. The first failure ends them. The termination log says how."""
        log = self._options.termination_log
        with log_refusals(log):
            code = self._take_steps()
        answer().error = self._failure
        code = self._deliver_document(code)
        final_code = code_after_output(code)
        write_log(log, self._log_text(final_code))
        return code

    def _deliver_document(self, code: int) -> int:
        """Deliver what was applied, or the run that failed. Returns the exit code of the command.

        The file of the result gets the document in any case, and stdout if it is to get one. A
        call that was refused before its first run has none.
        """
        result = self._last if code else self._applied
        if result is None:
            return code

        def text_of(code: int) -> str:
            return document(replace(result, exit_code=code))

        def show(code: int) -> None:
            if self._options.output == "json":
                print_text(text_of(code))

        return deliver(code, text_of=text_of, show=show)

    def _log_text(self, code: int) -> str:
        """The text of the termination log."""
        if self._failure is not None:
            return refusal(self._failure, exit_code=code)
        if self._last is not None:
            return summary(replace(self._last, exit_code=code))
        return json.dumps({"outcome": Outcome.FAILED, "exit_code": code})

    def _take_steps(self) -> int:
        """Take the steps, tell the first failure, and return the exit code."""
        try:
            blueprint, settings = self._check_configuration()
            engine = self._make_engine(blueprint, settings)
            self._check_connections(engine, settings)
            self._apply_changes(engine, settings)
            self._verify_stores(blueprint, engine, settings)
        except _EndedError as exc:
            self._failure = BootstrapError(str(exc))
            self._print_failure(exc)
            return exc.code
        except BootstrapError as exc:
            self._failure = exc
            self._print_failure(exc)
            return WRONG_USAGE if isinstance(exc, ConfigurationError) else FAILED
        self._print_line(f"{blueprint.name} is set up.")
        return 0

    # --- what a person reads

    def _begin_step(self) -> None:
        self._step += 1
        self._print_line(f"Step {self._step} of {len(_STEPS)}: {_STEPS[self._step - 1]}")

    def _print_line(self, line: str, *, nl: bool = True) -> None:
        """Print a line for a person on stdout, or on stderr when stdout gets a document."""
        if self._options.quiet:
            return
        if self._options.output == "json":
            tell(line, nl=nl)
        else:
            print_line(line, nl=nl)

    def _print_of_store(self, store: str, text: str) -> None:
        """Print a line that begins with the name of a store."""
        self._print_line(f"  {store:<9} {text}")

    def _print_failure(self, exc: BaseException) -> None:
        tell_failure(visible(f"Step {self._step}, {_STEPS[self._step - 1]}: {exc}"))

    def _require_consent(self, question: str, variable: str) -> None:
        """Go on only if a person, or `--yes`, agrees.

        Without a terminal the command ends with exit 2. `variable` is what to set then.
        """
        agreed = ask_user(question, yes=self._yes)
        if agreed is None:
            raise _EndedError(
                WRONG_USAGE,
                f"{question} There is no terminal to ask at: say --yes, or set {variable}.",
            )
        if not agreed:
            raise _EndedError(FAILED, "Nothing was changed.")

    # --- the steps

    def _check_configuration(self) -> tuple[Blueprint, Settings]:
        self._begin_step()
        blueprint = self._options.load_blueprint()
        settings = self._options.load_settings(blueprint)
        for store in app.chosen_stores(blueprint, self._options.only, self._options.skip):
            url = settings.need(store)
            source = "" if url.source == DEFAULT_SOURCE else f"  (from {url.source})"
            self._print_of_store(store, f"{url}{source}")
            if url.source == DEFAULT_SOURCE:
                self._ask_about_default(url)
        return blueprint, settings

    def _ask_about_default(self, url: StoreUrl) -> None:
        self._print_line(
            "  Nothing names a target. An option (--postgres-url), POSTGRES_URL, DATABASE_URL, "
            "DB_HOST, DB_PORT, DB_NAME,"
        )
        self._print_line("  DB_USER and DB_PASSWORD, or is-db-bootstrap.toml can do so.")
        self._require_consent(f"Go on with {url}?", "POSTGRES_URL, DATABASE_URL or DB_HOST")

    def _make_engine(self, blueprint: Blueprint, settings: Settings) -> BootstrapOrchestrator:
        run_options = self._options.with_choice(self._options.run_options(seed=self._seed))
        records = records_observer(verbose=self._options.verbose, quiet=self._options.quiet)
        observers: list[Observer] = [self._guests] if records is None else [records, self._guests]
        return app.orchestrator(blueprint, settings, run_options, observers=observers)

    def _check_connections(self, engine: BootstrapOrchestrator, settings: Settings) -> None:
        """Print the server of each store, and create databases and schemas that are missing."""
        self._begin_step()
        result = self._run_mode(engine, Mode.PLAN, settings)
        for store in result.stores:
            self._print_of_store(store.store, _server_text(store))
        missing = [
            (store.store, change)
            for store in result.stores
            for change in store.changes
            if change.kind in {"database", "schema"}
        ]
        for name, change in missing:
            self._print_of_store(name, f"{change.kind} {change.name} does not exist")
        if missing:
            self._create_missing(engine, [change for _, change in missing])

    def _create_missing(
        self, engine: BootstrapOrchestrator, missing: Sequence[ChangeResult]
    ) -> None:
        names = " and ".join(f"{change.kind} {change.name}" for change in missing)
        self._require_consent(f"Create {names}?", "DB_NAME to one that exists")
        for store, change in engine.prepare():
            self._print_of_store(store, f"{change.kind} {change.name} created")

    def _apply_changes(self, engine: BootstrapOrchestrator, settings: Settings) -> None:
        self._begin_step()
        result = self._run_mode(engine, Mode.APPLY, settings)
        self._applied = result
        for store in result.stores:
            applied = [change for change in store.changes if change.outcome == Outcome.CHANGED]
            for change in applied:
                detail = f"  {change.detail}" if change.detail else ""
                self._print_of_store(store.store, f"{change.kind} {change.name}{detail}")
            if not applied:
                self._print_of_store(store.store, "nothing to do")

    def _verify_stores(
        self, blueprint: Blueprint, engine: BootstrapOrchestrator, settings: Settings
    ) -> None:
        self._begin_step()
        self._run_mode(engine, Mode.VERIFY, settings)
        description = describe(blueprint)
        for store in engine.stores:
            for line in verified_lines(description, store):
                self._print_of_store(store, line)

    def _run_mode(
        self, engine: BootstrapOrchestrator, mode: Mode, settings: Settings
    ) -> BootstrapResult:
        """Run `mode`, print its notes, and return its result.

        Raises the failure of a store. Raises `_EndedError` for a run that is not as it should be.
        """
        try:
            result = engine.run(mode, tells_statements=False)
        except KeyboardInterrupt:
            for note in self._guests.end(engine.stores, settings):
                tell(note)
            raise
        result = self._guests.end_after(result, engine.stores, settings)
        self._last = result
        abandon_unfinished_calls(engine)
        tells_details = self._options.verbose or mode is Mode.VERIFY
        for store in result.stores:
            shown = store if tells_details else without_details(store)
            for note in shown.notes:
                self._print_of_store(store.store, note)
        result.raise_for_failure()
        if not result.ok:
            raise _EndedError(FAILED, f"{_drift_text(result) or result.outcome}.")
        return result


def _server_text(store: StoreResult) -> str:
    """Version and edition of a store's server."""
    server = store.server
    if server is None:
        return "?"
    return f"{server.version} {server.edition}" if server.edition else server.version


def _drift_text(result: BootstrapResult) -> str:
    """Every drift of a result in one line. Empty without one."""
    drifts = [drift for store in result.stores for drift in store.drifts]
    return "; ".join(f"{drift.kind} {drift.object} {drift.message}" for drift in drifts)
