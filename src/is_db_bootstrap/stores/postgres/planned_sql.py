"""The SQL that pending revisions would send, written down by a process of its own.

See `sql_guest` for what runs there. What was written is kept for the next target of this process,
as long as no file has changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.stores.statement_secrets import without_secrets

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.postgres.revisions import Chain

#: Imports of ours come before `sys.path` is the caller's, whose folders may have other modules of
#: these names.
_PROGRAM = "from is_db_bootstrap.stores.postgres.sql_guest import main; main()"
#: Answers that are kept. A fleet has few kinds of targets.
_MOST_KEPT = 16
#: Lines of what the process wrote to stderr that are told when it fails.
_TOLD_LINES = 1


@dataclass(frozen=True, slots=True)
class PlannedSql:
    """The statements of a revision. `reasons` say why they may not be all. Empty: they are."""

    statements: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


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
        if key not in _kept:
            found = self._answer(request, revisions)
            while len(_kept) >= _MOST_KEPT:
                _kept.pop(next(iter(_kept)))
            _kept[key] = found
        return _kept[key]

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
            "path": sys.path,
        }

    def _stamp(self, revisions: Sequence[str]) -> frozenset[tuple[Path, int]]:
        files = [self.chain.files[name] for name in revisions if name in self.chain.files]
        return frozenset((path, path.stat().st_mtime_ns) for path in files if path.is_file())

    def _answer(self, request: str, revisions: Sequence[str]) -> dict[str, PlannedSql]:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
            [sys.executable, "-P", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        self._process = process
        if self._is_ended:
            process.kill()
        said, errors = process.communicate(request)
        self._process = None
        document: dict[str, Any] = {}
        with suppress(ValueError):
            document = json.loads(said)
        if "revisions" not in document:
            last = " ".join(errors.split("\n")[-_TOLD_LINES - 1 :]).strip()
            failure = document.get("failure") or last or f"exit code {process.returncode}"
            return dict.fromkeys(revisions, PlannedSql((), (f"cannot be written: {failure}",)))
        sys.stderr.write(errors)
        return {
            name: PlannedSql(
                tuple(map(without_secrets, each["statements"])), tuple(each["reasons"])
            )
            for name, each in document["revisions"].items()
        }


def file_statements(path: Path) -> tuple[str, ...]:
    """The statements of an SQL file. Rows behind a `COPY` are counted and not shown."""
    from is_db_bootstrap.stores.postgres.sql_file import SqlFile

    found = []
    for part in SqlFile(path).parts:
        text = part.text.strip().rstrip(";")
        rows = "" if part.rows is None else f" -- {len(part.rows.splitlines())} rows"
        found.append(f"{without_secrets(text)};{rows}")
    return tuple(found)
