"""Who we are at a store: what the address leaves open is filled from variables and the TOML file.

Besides our own variables there are those of the official images, which a file of Docker Compose has
anyway: `POSTGRES_USER` and `POSTGRES_DB`, `NEO4J_AUTH`, and the token of Milvus.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.secrets import read_secret

if TYPE_CHECKING:
    from is_db_bootstrap.settings.address import StoreUrl
    from is_db_bootstrap.settings.sources import Sources
    from is_db_bootstrap.stores.kind import StoreKind


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A user and a password. Both are empty where none are to be sent."""

    username: str = ""
    password: str = ""


def fill_credentials(
    kind: StoreKind, sources: Sources, username: str = "", password: str = ""
) -> Credentials:
    """The user and the password of a store, of which an address has those that are given.

    The variable that has both counts only for its own user. Raises `ConfigurationError` for one
    that cannot be read, and for one that our own variables contradict.
    """
    both = _auth(kind, sources)
    if both is not None:
        _refuse_contradiction(kind, sources, both)
        if not password and username in {"", both.username}:
            return both
    named = user_of_variables(kind, sources) or sources.store(kind.name).get("username", "")
    return Credentials(username or named or kind.default_user, password or sources.password(kind))


def user_of_variables(kind: StoreKind, sources: Sources) -> str:
    """The user that the first of a store's variables for it names. Empty without one."""
    for name in kind.user_variables:
        if user := sources.secret(name):
            return user
    return ""


def database_of_variables(kind: StoreKind, sources: Sources) -> str:
    """The database that the variable of the official image names. Empty without one."""
    return sources.secret(kind.database_variable) if kind.database_variable else ""


def _auth(kind: StoreKind, sources: Sources) -> Credentials | None:
    """What the one variable for user and password says. None when it is not set."""
    text = sources.secret(kind.auth_variable) if kind.auth_variable else ""
    path = sources.variables.get(kind.auth_path_variable, "")
    if path and not text:
        text = read_secret(Path(path), kind.auth_path_variable)
    if not text:
        return None
    found = kind.read_auth(text)
    if found is None:
        raise ConfigurationError(
            f"{kind.name}: {kind.auth_variable} is not of the form {kind.auth_form}.",
            hint=f"Correct it, or set {kind.name.upper()}_USERNAME and "
            f"{kind.name.upper()}_PASSWORD instead.",
        )
    return Credentials(*found)


def _refuse_contradiction(kind: StoreKind, sources: Sources, both: Credentials) -> None:
    """Raise `ConfigurationError` when the variables for one part say otherwise."""
    prefix = kind.name.upper()
    given = {
        f"{prefix}_USERNAME": (sources.variables.get(f"{prefix}_USERNAME"), both.username),
        f"{prefix}_PASSWORD": (sources.secret(f"{prefix}_PASSWORD"), both.password),
    }
    for name, (own, other) in given.items():
        if own and own != other:
            raise ConfigurationError(
                f"{kind.name}: {name} and {kind.auth_variable} say two things.",
                hint=f"Keep one of them. {kind.auth_variable} is {kind.auth_form}.",
            )


def passed_over(kind: StoreKind, sources: Sources, url: StoreUrl) -> Iterator[str]:
    """A sentence on each variable that is set and says otherwise than the address that is used.

    No user is named, because what stands in its place may be a token.
    """
    database = database_of_variables(kind, sources)
    if database and database != url.database:
        yield (
            f"{kind.database_variable}={database} is passed over: the address from {url.source} "
            f"names the database {url.database}."
        )
    for name in kind.user_variables:
        user = sources.secret(name)
        if user and user != url.username:
            yield f"{name} is passed over: the address from {url.source} has another user."
    both = _auth(kind, sources)
    if both is not None and both != Credentials(url.username, url.password):
        yield (
            f"{kind.auth_variable} is passed over: the address from {url.source} has a user or a "
            "password of its own."
        )
    for name in _later_variables(kind, sources, url.source):
        if sources.variables.get(name):
            yield f"{name} is passed over: the address is that of {url.source}."


def _later_variables(kind: StoreKind, sources: Sources, source: str) -> tuple[str, ...]:
    """The variables of an address that count only when the one called `source` is not set."""
    names = (*kind.url_variables, *kind.part_variables.values())
    used = [name for name in kind.url_variables if sources.named(name) == source]
    return names[names.index(used[0]) + 1 :] if used else ()
