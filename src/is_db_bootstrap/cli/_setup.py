"""The four steps of `setup`, over all the stores of a blueprint."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._endings import judged
from is_db_bootstrap.cli._run import leave, leave_behind, print_text, refusals
from is_db_bootstrap.client_imports import keep_out
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.render import document, refusal, summary
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings.timing import SETUP_TIMEOUT_S

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.cli._options import Options
    from is_db_bootstrap.engine import BootstrapOrchestrator
    from is_db_bootstrap.results import BootstrapResult
    from is_db_bootstrap.settings import Settings

STEPS = ("Configuration", "Connection", "Migration", "Verification")


class _EndedError(Exception):
    """The command ends with `code`; the message has the reason."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Setup:
    """One guided set-up.

    `run` returns its exit code: 0, 1, or 2 for configuration and for a question without a terminal.
    """

    def __init__(self, options: Options, *, seed: bool, yes: bool) -> None:
        keep_out()
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        timeout_s = SETUP_TIMEOUT_S if options.timeout is None else options.timeout
        self._options = options._replace(timeout=timeout_s)
        self._seed, self._yes = seed, yes
        self._step = 0
        self._failure: BootstrapError | None = None
        self._last: BootstrapResult | None = None
        self._applied: BootstrapResult | None = None

    def run(self) -> int:
        """Take the four steps; the first failure ends them. The termination log says how."""
        log = self._options.termination_log
        with refusals(log):
            code = self._steps()
        # What was applied, or the run that failed. A call that is refused before has no document.
        result = self._last if code else self._applied
        if result is not None and self._options.output == "json":
            print_text(document(replace(result, exit_code=code)))
        if log:
            leave(log, self._summary(judged(code)))
        return code

    def _summary(self, code: int) -> str:
        if self._failure is not None:
            return refusal(self._failure, exit_code=code)
        if self._last is not None:
            return summary(replace(self._last, exit_code=code))
        return json.dumps({"outcome": Outcome.FAILED, "exit_code": code})

    def _steps(self) -> int:
        try:
            blueprint, settings = self._configuration()
            engine = self._engine(blueprint, settings)
            self._connection(engine)
            self._migration(engine)
            self._verification(blueprint, engine)
        except _EndedError as exc:
            self._failure = BootstrapError(str(exc))
            self._tell_failure(exc)
            return exc.code
        except BootstrapError as exc:
            self._failure = exc
            self._tell_failure(exc)
            return 2 if isinstance(exc, ConfigurationError) else 1
        self._say(f"{blueprint.name} is set up.")
        return 0

    def _begin(self) -> None:
        self._step += 1
        self._say(f"Step {self._step} of {len(STEPS)}: {STEPS[self._step - 1]}")

    def _say(self, line: str, *, nl: bool = True) -> None:
        """Tell a person, on stdout; on stderr when stdout gets a document."""
        click.echo(line, nl=nl, err=self._options.output == "json")

    def _tell_failure(self, exc: BaseException) -> None:
        click.echo(f"Step {self._step}, {STEPS[self._step - 1]}: {exc}", err=True)

    def _agreed(self, question: str, variable: str) -> None:
        """Go on only if a person, or --yes, says so.

        Without a terminal the command ends with exit 2.
        """
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise _EndedError(
                2, f"{question} There is no terminal to ask at: say --yes, or set {variable}."
            )
        self._say(f"  {question} [y/N] ", nl=False)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise _EndedError(1, "Nothing was changed.")

    # --- the steps

    def _configuration(self) -> tuple[Blueprint, Settings]:
        from is_db_bootstrap.app import chosen_stores

        self._begin()
        blueprint = self._options.declared()
        settings = self._options.settings(blueprint)
        for store in chosen_stores(blueprint, self._options.only, self._options.skip):
            url = settings.need(store)
            self._say(f"  {store:<9} {url}  (from {url.source})")
            if url.source == "default":
                self._say(
                    "  Nothing names a target. An option (--postgres-url), POSTGRES_URL, DATABASE_URL, DB_HOST, DB_PORT, DB_NAME,\n"
                    "  DB_USER and DB_PASSWORD, or is-db-bootstrap.toml can do so."
                )
                self._agreed(
                    f"Go on with the default {url}?", "POSTGRES_URL, DATABASE_URL or DB_HOST"
                )
        return blueprint, settings

    def _engine(self, blueprint: Blueprint, settings: Settings) -> BootstrapOrchestrator:
        from is_db_bootstrap.app import orchestrator
        from is_db_bootstrap.leftovers import Guests

        self._guests = Guests()
        self._settings = settings
        options = self._options.run_options(seed=self._seed)
        return orchestrator(blueprint, settings, options, observers=[self._guests])

    def _connection(self, engine: BootstrapOrchestrator) -> None:
        self._begin()
        result = self._ran(engine, Mode.PLAN)
        for store in result.stores:
            server = store.server
            self._say(
                f"  {store.store:<9} {server.version if server else '?'}{f' {server.edition}' if server and server.edition else ''}"
            )
        missing = [
            (s, c) for s in result.stores for c in s.changes if c.kind in {"database", "schema"}
        ]
        for store, change in missing:
            self._say(f"  {store.store:<9} {change.kind} {change.name} does not exist")
        if missing:
            self._agreed(
                f"Create {' and '.join(f'{c.kind} {c.name}' for _, c in missing)}?",
                "DB_NAME to one that exists",
            )
            for name, made in engine.prepare():
                self._say(f"  {name:<9} {made.kind} {made.name} created")

    def _migration(self, engine: BootstrapOrchestrator) -> None:
        self._begin()
        self._applied = result = self._ran(engine, Mode.APPLY)
        for store in result.stores:
            done = [c for c in store.changes if c.outcome is Outcome.CHANGED]
            for change in done:
                self._say(
                    f"  {store.store:<9} {change.kind} {change.name}{f'  {change.detail}' if change.detail else ''}"
                )
            if not done:
                self._say(f"  {store.store:<9} nothing to do")

    def _verification(self, blueprint: Blueprint, engine: BootstrapOrchestrator) -> None:
        from is_db_bootstrap.blueprint.describe import describe, verified_lines

        self._begin()
        self._ran(engine, Mode.VERIFY)
        document = describe(blueprint)
        for store in engine.stores:
            for line in verified_lines(document, store):
                self._say(f"  {store:<9} {line}")

    def _ran(self, engine: BootstrapOrchestrator, mode: Mode) -> BootstrapResult:
        result = engine.run(mode)
        if engine.ended_early:
            result = self._guests.end(result, engine.stores, self._settings)
        self._last = result
        leave_behind(engine)
        for store in result.stores:
            for note in store.notes:
                self._say(f"  {store.store:<9} {note}")
        result.raise_for_failure()
        if not result.ok:
            drifts = [f"{d.kind} {d.object} {d.message}" for s in result.stores for d in s.drifts]
            raise _EndedError(1, f"{'; '.join(drifts) or result.outcome}.")
        return result
