"""The log of a call on stderr: text for a person, or one JSON record a line.

With `--log-format json`, everything that a call writes to stderr becomes a record: the events of
its run, its messages, and what code of a blueprint prints. A collector of logs then meets no line
that it cannot read. Only what C code writes to the descriptor itself stays as it is.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.event_words import event_level
from is_db_bootstrap.render.log_lines import event_record, record, target_record
from is_db_bootstrap.wording import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from is_db_bootstrap.events import Event
    from is_db_bootstrap.settings import Settings

#: How a line of ours begins, and what of it is no news in a record.
_NAME = "is-db-bootstrap: "
_WARNING = "warning: "
#: Levels that `--quiet` leaves.
_LOUD = {"error", "critical"}


class JsonLog:
    """Makes records of lines and of events.

    `run_id` stands in each record, and in the result of the run. Any thread may call.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._rest = ""
        self._turn = threading.Lock()

    def of_text(self, text: str) -> str:
        """The records of the lines that `text` ends. What is behind the last one waits."""
        with self._turn:
            *lines, self._rest = (self._rest + text).split("\n")
        return "".join(map(self.of_line, lines))

    def rest(self) -> str:
        """The record of a line that has no end, if there is one."""
        with self._turn:
            line, self._rest = self._rest, ""
        return self.of_line(line)

    def of_line(self, line: str) -> str:
        """The record of one line. An empty line has none."""
        message = line.removeprefix(_NAME)
        level = "warning" if message.startswith(_WARNING) else "info"
        return self.of_message(message.removeprefix(_WARNING), level)

    def of_message(self, message: str, level: str) -> str:
        """The record of a message, which may have several lines."""
        words = message.removeprefix(_NAME).strip()
        return record(self.run_id, level, "message", words) if words else ""

    def of_target(self, name: str, document: Mapping[str, Any]) -> str:
        """The record of a target that has ended."""
        level = "error" if document["exit_code"] else "info"
        return target_record(self.run_id, name, level, document)


class JsonProgress:
    """An observer that gives `write` the record of each event, as a line with its end."""

    def __init__(
        self, write: Callable[[str], object], run_id: str, *, verbose: bool, quiet: bool
    ) -> None:
        self._write = write
        self._run_id = run_id
        self.verbose = verbose
        self._quiet = quiet

    def addresses(self, settings: Settings) -> None:
        """Write where each address came from."""
        for store, url in settings.stores.items():
            message = visible(f"{url} (from {url.source})")
            self._write(record(self._run_id, "info", "address", message, store=store))

    def __call__(self, event: Event) -> None:
        """Write one event. A quiet call has nothing but failures."""
        if self._quiet and event_level(event) not in _LOUD:
            return
        self._write(event_record(event))
