"""Which source of servers a test session takes, by the name that `--stores-from` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.testing.sources import GivenServers, LocalServers, Source


def source(
    name: str,
    *,
    keep_running: bool = False,
    versions: Mapping[StoreName, str] | None = None,
) -> Source:
    """The source called `name`, one of `sources.NAMES`.

    With `keep_running`, what the source started is left running when the session ends. `versions`
    are those of the servers that it starts. Raises `ConfigurationError` for given servers, which
    have the version that they have.
    """
    if name == "env":
        if versions:
            raise ConfigurationError(
                f"A version of {', '.join(versions)} is chosen, but the servers are given.",
                hint="Leave out --store-version and is_db_store_versions, or --stores-from env.",
            )
        return GivenServers()
    if name == "containers":
        from is_db_bootstrap.testing.containers import Containers

        return Containers(keep_running=keep_running, versions=versions)
    return LocalServers(keep_running=keep_running, versions=versions)


def chosen_versions(lines: Iterable[str]) -> dict[StoreName, str]:
    """Versions by store, of lines such as `postgres=17`. The last one of a store wins.

    Raises `ConfigurationError` for a line that is none.
    """
    versions: dict[StoreName, str] = {}
    for line in lines:
        store, _, version = (part.strip() for part in line.partition("="))
        if store not in STORE_ORDER or not version:
            raise ConfigurationError(
                f"{line!r} is no version of a store.",
                hint=f"Write STORE=VERSION, such as postgres=17. Stores are "
                f"{', '.join(STORE_ORDER)}.",
            )
        versions[store] = version
    return versions
