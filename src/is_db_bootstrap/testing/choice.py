"""Which source of servers a test session takes, by the name that `--stores-from` gives."""

from __future__ import annotations

from is_db_bootstrap.testing.sources import GivenServers, LocalServers, Source


def source(name: str, *, keep_running: bool = False) -> Source:
    """The source called `name`, one of `sources.NAMES`.

    With `keep_running`, what the source started is left running when the session ends.
    """
    if name == "env":
        return GivenServers()
    if name == "containers":
        from is_db_bootstrap.testing.containers import Containers

        return Containers(keep_running=keep_running)
    return LocalServers(keep_running=keep_running)
