"""What became of each target, written as it ends, so that a later call leaves out what is done."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.private_files import open_private
from is_db_bootstrap.wording import visible_json

if TYPE_CHECKING:
    from is_db_bootstrap.fleet.results import TargetResult


class Ledger:
    """A file of JSON lines, one for each target that has ended.

    The last line of a name counts. A target is done when it ended with 0 and the same was asked of
    it, in the same places: `contract` is a digest of that. A line that a killed process left broken
    counts as none. Raises `ConfigurationError` for a file that cannot be read or opened. `failure`
    says what kept a line from being written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failure = ""
        try:
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            self._file = open_private(path, "a")
            if text and not text.endswith("\n"):
                self._file.write("\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"The file of outcomes {path} cannot be used: {exc}.") from exc
        self._last = _last_outcomes(text)

    def is_done(self, target: str, contract: str) -> bool:
        """Whether `target` ended with 0 at `contract`."""
        return self._last.get(target) == contract

    def write(self, result: TargetResult, contract: str) -> bool:
        """Add a line. Returns False when it could not be written, and then `failure` says why."""
        entry = {
            "target": result.name,
            "outcome": result.outcome,
            "exit_code": result.exit_code,
            "contract": contract,
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        try:
            self._file.write(visible_json(json.dumps(entry, ensure_ascii=False)) + "\n")
        except OSError as exc:
            self.failure = (
                f"The file of outcomes {self._path} cannot be written: {exc.strerror or exc}."
            )
        return not self.failure

    def close(self) -> None:
        """Nothing more is written."""
        with suppress(OSError):  # what could not be written has been told
            self._file.close()


def _last_outcomes(text: str) -> dict[str, str | None]:
    """What was asked of each target that ended with 0 the last time. None for the others."""
    found: dict[str, str | None] = {}
    for line in text.split("\n"):
        try:
            entry = json.loads(line)
            found[entry["target"]] = entry["contract"] if entry["exit_code"] == 0 else None
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return found
