"""The SQL that pending revisions would send, written down by a process of its own.

See `sql_guest` for what runs there. What was written is kept for the next target of this process,
as long as no file has changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from is_db_bootstrap.stores.statement_secrets import without_secrets
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    import psycopg

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: Imports of ours come before `sys.path` is the caller's, whose folders may have other modules of
#: these names. The folder of our package stands last.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from is_db_bootstrap.stores.postgres.sql_guest import main; main()"
)
_PACKAGES = Path(__file__).parents[3]
#: Answers that are kept. A fleet has few kinds of targets.
_MOST_KEPT = 16


@dataclass(frozen=True, slots=True)
class PlannedSql:
    """The statements of a revision. `reasons` say why they may not be all. Empty: they are."""

    statements: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class StatementTrial(Protocol):
    """What runs revisions in a scratch database, and tells what they have sent."""

    #: What is worth knowing of the trial, a sentence each.
    notes: list[str]

    def refuse_target(self, target: psycopg.Connection[Any], *, is_there: bool) -> None:
        """Raise `ConfigurationError` when the trial would be on the database that is planned."""

    def sent(self, done: Collection[str], pending: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """What each of the `pending` revisions has sent, in a database that had those `done`."""

    def cancel(self) -> None:
        """From another thread: end what runs on the server."""


#: What was written, by the request and the state of its files.
_kept: dict[tuple[str, frozenset[tuple[Path, int]]], dict[str, PlannedSql]] = {}


@dataclass(slots=True)
class SqlWriter:
    """Has the revisions of `chain` written down. `end` ends that from another thread."""

    blueprint: Blueprint
    schema: str
    chain: Chain
    _process: subprocess.Popen[str] | None = field(default=None, init=False)
    _is_ended: bool = field(default=False, init=False)

    def written(
        self,
        revisions: Sequence[str],
        values: Mapping[str, str],
        stamp: frozenset[tuple[Path, int]] | None = None,
    ) -> dict[str, PlannedSql]:
        """What each of `revisions` would send.

        `values` stand for what is in braces in `x`. `stamp` is the state of a team's files. A
        revision that cannot be written down has no statements, and a reason.
        """
        request = json.dumps(self._request(revisions, values))
        key = request, self._stamp(revisions) if stamp is None else stamp
        known = _kept.get(key)
        if known is not None:
            return known
        document, failure = self._answer(request)
        if "revisions" not in document:
            return dict.fromkeys(revisions, PlannedSql((), (f"cannot be written: {failure}",)))
        found = {name: _planned(each) for name, each in document["revisions"].items()}
        while len(_kept) >= _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = found
        return found

    @property
    def is_at_work(self) -> bool:
        """Whether the process runs now."""
        return self._process is not None

    def end(self) -> None:
        """End the process, if there is one."""
        self._is_ended = True
        if self._process is not None:
            self._process.kill()

    def _request(self, revisions: Sequence[str], values: Mapping[str, str]) -> dict[str, Any]:
        team = self.blueprint.alembic
        own = team.of_run(**values) if team else None
        files = self.chain.files
        return {
            "blueprint": self.blueprint.name,
            "schema": self.schema,
            "migrations": str(self.blueprint.migrations or ""),
            "alembic": {**asdict(own), "ini": str(own.ini)} if own else None,
            "revisions": [*revisions],
            "files": {name: str(files[name]) for name in revisions if name in files},
            "path": [place for place in sys.path if isinstance(place, str)],
        }

    def _stamp(self, revisions: Sequence[str]) -> frozenset[tuple[Path, int]]:
        files = [self.chain.files[name] for name in revisions if name in self.chain.files]
        return frozenset((path, path.stat().st_mtime_ns) for path in files if path.is_file())

    def _answer(self, request: str) -> tuple[dict[str, Any], str]:
        """What the process answers, and why it has not, if it has not."""
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", "-c", _PROGRAM, str(_PACKAGES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self._process = process
        if self._is_ended:
            process.kill()
        said, told = process.communicate(request)
        self._process = None
        document: dict[str, Any] = {}
        with suppress(ValueError):
            document = json.loads(said)
        if "revisions" in document:
            sys.stderr.write(told)
            return document, ""
        last = " ".join(told.strip().split("\n")[-1:])
        return {}, document.get("failure") or last or f"exit code {process.returncode}"


def _planned(written: Mapping[str, Any]) -> PlannedSql:
    statements = map(without_secrets, written["statements"])
    return PlannedSql(tuple(statements), tuple(written["reasons"]))


def ended(text: str) -> str:
    """A statement with one semicolon at its end. Empty when there is none."""
    statement = text.strip().rstrip(";").rstrip()
    if not statement:
        return ""
    has_comment_at_end = "--" in statement.rpartition("\n")[2]
    return f"{statement}\n;" if has_comment_at_end else f"{statement};"


def file_statements(path: Path) -> tuple[str, ...]:
    """The statements of an SQL file. Rows behind a `COPY` are counted and not shown."""
    from is_db_bootstrap.stores.postgres.sql_file import SqlFile

    found = []
    for part in SqlFile(path).parts:
        text = part.text.strip().rstrip(";")
        rows = "" if part.rows is None else f" -- {counted(len(part.rows.splitlines()), 'row')}"
        found.append(f"{without_secrets(text)};{rows}")
    return tuple(found)
