"""A process that writes down the SQL of revisions without a server, and ends.

Their `upgrade()` runs here, as in `alembic upgrade --sql`, but nowhere else may anything come of
it: there is no connection, the variables of the environment name addresses where nobody listens,
and `outside_fence` refuses what would change something outside. What the code changes in its own
process goes with the process. So `apply` meets modules that have not run.

It reads a document from stdin and writes one to stdout. What user code prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import Script, ScriptDirectory

from is_db_bootstrap.blueprint import AlembicEnvironment, Blueprint
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.guests import end_process, guest, own_place_of
from is_db_bootstrap.stores.postgres.alembic import config, nowhere
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.literal_values import literal_compiler
from is_db_bootstrap.stores.postgres.outside_fence import OutsideFence, OutsideRefused
from is_db_bootstrap.stores.postgres.planned_sql import ended
from is_db_bootstrap.stores.postgres.silent_connection import AsksDatabaseError, SilentConnection
from is_db_bootstrap.stores.postgres.team_environment import read_environment

#: What a revision does that may send something else than it does here.
_ASKS_OFFLINE = "asks whether it is written as SQL"


@dataclass(slots=True)
class _Written:
    """What one revision sends. `reasons` say why that may not be all of it."""

    statements: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def write(self, text: str) -> None:
        """Take one statement, as Alembic writes it into a file."""
        if statement := ended(text):
            self.statements.append(statement)

    def flush(self) -> None:
        """Do nothing."""

    def tell(self, reason: str) -> None:
        """Note a reason once."""
        if reason not in self.reasons:
            self.reasons.append(reason)


class _Writer:
    """Writes down the revisions of one blueprint."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self._revisions: Sequence[str] = request["revisions"]
        self._files: Mapping[str, str] = request["files"]
        self._blueprint = _blueprint_of(request)
        self._fence = OutsideFence()
        self._now = _Written()
        wanted = config(self._blueprint, request["schema"])
        team = self._blueprint.alembic
        self._environment = read_environment(team) if team else None
        if self._environment is None:
            self._script = ScriptDirectory.from_config(wanted)
        else:
            self._script = self._environment.script(wanted)
        self._config = wanted

    def all_written(self) -> dict[str, _Written]:
        """What each revision sends, by its name, in order."""
        context = EnvironmentContext(
            self._config, self._script, as_sql=True, destination_rev="heads", fn=lambda *_: []
        )
        found: dict[str, _Written] = {}
        with context:
            operations = self._configured(context)
            for revision in self._revisions:
                found[revision] = self._now = _Written()
                with self._as_guest():
                    self._upgrade(revision, operations)
        return found

    def _configured(self, environment: EnvironmentContext) -> Any:
        """A context of Alembic whose connection writes down what is sent."""
        environment.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},
            literal_binds=True,
            output_buffer=_Turn(self),  # type: ignore[arg-type]  # only `write` is called
            **self._config.attributes.get("options", {}),
        )
        context = environment.get_context()
        found: Any = context.connection
        context.dialect.statement_compiler = literal_compiler(context.dialect.statement_compiler)
        silent: Any = SilentConnection(found, self._output, self._tell)
        context.connection = silent
        context.impl.connection = silent
        vars(environment)["is_offline_mode"] = self._asks_offline
        return context

    def _output(self, text: str) -> None:
        self._now.write(text)

    def _tell(self, reason: str) -> None:
        self._now.tell(reason)

    def _asks_offline(self) -> bool:
        """What a revision that asks gets, which would do something else with a connection."""
        self._now.tell(_ASKS_OFFLINE)
        raise AsksDatabaseError

    def _upgrade(self, revision: str, context: Any) -> None:
        module = self._module_of(revision)
        if "as_sql" in _source_of(module):
            self._now.tell(_ASKS_OFFLINE)
        with Operations.context(context):
            module.upgrade(**self._config.attributes.get("arguments", {}))

    def _module_of(self, revision: str) -> Any:
        """The module of a revision, which runs now unless the environment has read it."""
        if self._environment is not None:
            return next(s for s in self._environment.scripts if s.revision == revision).module
        path = Path(self._files[revision])
        script = Script._from_path(self._script, path)  # noqa: SLF001 - as Alembic reads a folder
        if script is None:
            raise LookupError(revision)
        return script.module

    @contextmanager
    def _as_guest(self) -> Iterator[None]:
        """Run user code behind the fence. Whatever it raises is a reason."""
        try:
            with guest(), self._fence.closed(self._now.tell):
                yield
        except BaseException as exc:  # noqa: BLE001 - a guest may raise anything
            if isinstance(exc.__cause__ or exc, OutsideRefused | AsksDatabaseError):
                return
            cause = exc.__cause__ or exc
            place = own_place_of(cause)
            where = f" ({place})" if place else ""
            self._now.tell(f"needs a server, or fails: {type(cause).__name__}{where}")


@dataclass(slots=True)
class _Turn:
    """Gives what Alembic writes to the revision whose turn it is."""

    writer: _Writer

    def write(self, text: str) -> None:
        """Take one statement."""
        self.writer._output(text)  # noqa: SLF001 - its own part

    def flush(self) -> None:
        """Do nothing."""


def _source_of(module: Any) -> str:
    path = Path(getattr(module, "__file__", None) or "")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _blueprint_of(request: Mapping[str, Any]) -> Blueprint:
    """As much of a blueprint as revisions need."""
    team = request["alembic"]
    folder = request["migrations"]
    return Blueprint(
        name=request["blueprint"],
        summary="",
        migrations=Path(folder) if folder else None,
        alembic=AlembicEnvironment(**{**team, "x": tuple(team["x"])}) if team else None,
    )


def main() -> None:
    """Answer one request. The process ends here, also when user code has left threads behind."""
    request = json.load(sys.stdin)
    sys.dont_write_bytecode = True
    sys.path[:] = request["path"]
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        with nowhere():
            writer = _Writer(request)
            with running_alembic():
                found = writer.all_written()
        document: dict[str, Any] = {
            name: {"statements": each.statements, "reasons": each.reasons}
            for name, each in found.items()
        }
        json.dump({"revisions": document}, answer)
    except BootstrapError as exc:
        json.dump({"failure": str(exc)}, answer)
    answer.close()
    sys.stderr.flush()
    end_process(0)
