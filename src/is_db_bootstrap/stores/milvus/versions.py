"""The versions of a collection, the alias that leads to one of them, and what is done with them.

Versions are the collections of one family, `<family>_v<n>`. An alias is moved in one step
(`alter_alias`) and only from where it was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pymilvus.client.types import LoadState
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.milvus.errors import STORE
from is_db_bootstrap.stores.milvus.schema import version_of
from is_db_bootstrap.vector_results import Moved, Version, Versions
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection
    from is_db_bootstrap.stores.milvus.errors import Translation
    from is_db_bootstrap.stores.milvus.server import Server


class VersionKeeper:
    """Looks at the versions of declared collections on one server, and moves their aliases."""

    def __init__(self, server: Server, errors: Translation) -> None:
        self.server = server
        self.errors = errors

    def versions(self, declared: Collection) -> Versions:
        """Every version that is there, oldest first."""
        with self.errors(declared.name):
            family, _ = version_of(declared.name)
            names = self.server.client.list_collections(**self.server.look_options)
            own = sorted((n for n in names if version_of(n)[0] == family), key=version_of)
            found = tuple(self._version(name, declared) for name in own)
            target = self.server.alias_target(declared.alias) if declared.alias else None
            return Versions(declared.name, declared.alias, target, found)

    def _version(self, name: str, declared: Collection) -> Version:
        aliases = tuple(self.server.aliases(name))
        is_loaded = self.server.load_state(name) is LoadState.Loaded
        rows = self._count_or_none(name) if is_loaded else None
        return Version(name, rows, name == declared.name, is_loaded, aliases)

    def _count_or_none(self, name: str) -> int | None:
        """The rows; None when the server says that the collection is not loaded after all."""
        try:
            return self.count(name)
        except MilvusException as exc:
            if "load" in str(exc.message).lower():
                return None
            raise

    def count(self, name: str, where: str = "") -> int:
        """The rows of a collection, those included that were written a moment ago."""
        return self.server.count(name, where)

    def move_alias(self, alias: str, source: str, target: str) -> Moved:
        """Move an alias from one collection to another, and read it back.

        Raises `StoreConflict` when it does not lead to `source`, because somebody moved it.
        """
        with self.errors(alias):
            self._refuse_moved(alias, source)
            client = self.server.client
            client.alter_alias(target, alias, **self.server.change_options)
            now = self.server.alias_target(alias)
        if now != target:
            raise StoreConflict(
                STORE,
                f"Alias {alias} was moved to {target} and leads to {now}.",
                subject=alias,
                hint="Somebody moves it at the same time. See `is-db-bootstrap vector status`.",
            )
        return Moved(alias, source, target)

    def _refuse_moved(self, alias: str, source: str) -> None:
        now = self.server.alias_target(alias)
        if now == source:
            return
        raise StoreConflict(
            STORE,
            f"Alias {alias} led to {source} and leads to {now} now: somebody has moved it.",
            subject=alias,
            hint="It was left there, and no row was lost. See `is-db-bootstrap vector status`.",
        )

    def roll_back(self, declared: Collection) -> Moved:
        """Move the alias to the latest version before the one that it leads to.

        Raises `StoreConflict` when there is none.
        """
        found = self.versions(declared)
        target = _own_target(found)
        names = [version.name for version in found.versions]
        before = [name for name in names if version_of(name) < version_of(target)]
        if not before:
            raise StoreConflict(
                STORE,
                f"Alias {found.alias} leads to {target}, and no earlier version is there.",
                subject=found.alias,
                hint="A version that was dropped cannot be brought back.",
            )
        return self.move_alias(found.alias, target, before[-1])

    def prunable(self, declared: Collection) -> Sequence[Version]:
        """The versions before the one that the alias leads to, to which no alias leads.

        Each tells in `only_here` what it has and the version behind the alias does not. Raises
        `StoreConflict` when the alias leads to no version, and when a version has more rows than
        the one behind the alias, or one of both cannot be counted.
        """
        found = self.versions(declared)
        target = _own_target(found)
        current = next(each for each in found.versions if each.name == target)
        old = [
            version
            for version in found.versions
            if version_of(version.name) < version_of(target)
            and not version.aliases
            and not version.is_declared
        ]
        for version in old:
            _refuse_loss(version, current, declared)
        return [self._with_fields(version, target) for version in old]

    def _with_fields(self, version: Version, target: str) -> Version:
        """The version with the names of the fields that the target does not have."""
        with self.errors(version.name):
            theirs = self.server.described(version.name) or {}
            ours = self.server.described(target) or {}
        kept = {each["name"] for each in ours.get("fields", ())}
        lost = [each["name"] for each in theirs.get("fields", ()) if each["name"] not in kept]
        if theirs.get("enable_dynamic_field") and not ours.get("enable_dynamic_field"):
            lost.append("the dynamic field")
        return replace(version, only_here=tuple(lost))

    def drop(self, declared: Collection, name: str) -> None:
        """Drop an old version, unless an alias leads to it by now."""
        still = [version.name for version in self.prunable(declared)]
        if name not in still:
            raise StoreConflict(
                STORE,
                f"{name} is not dropped: an alias leads to it now, or it is gone.",
                subject=name,
                hint="See `is-db-bootstrap vector status`.",
            )
        with self.errors(name):
            self.server.client.drop_collection(name, **self.server.change_options)


def _refuse_loss(version: Version, current: Version, declared: Collection) -> None:
    """Raise `StoreConflict` unless the version behind the alias has as many rows or more."""
    copy = (
        f"To copy what is missing: `is-db-bootstrap vector upgrade {declared.alias} --from "
        f"{version.name}`. To drop it all the same: "
        f"MilvusClient.drop_collection({version.name!r})."
    )
    for each in (version, current):
        if each.rows is None:
            raise StoreConflict(
                STORE,
                f"{version.name} is not dropped: {each.name} is not loaded, so its rows cannot be "
                "counted.",
                subject=version.name,
                hint=f"MilvusClient.load_collection({each.name!r}) loads it. {copy}",
            )
    has_more = (version.rows or 0) > (current.rows or 0)
    if has_more:
        raise StoreConflict(
            STORE,
            f"{version.name} is not dropped: it has {counted(version.rows or 0, 'row')}, and "
            f"{current.name} has {current.rows}.",
            subject=version.name,
            hint=copy,
        )


def _own_target(found: Versions) -> str:
    """The version that the alias leads to. Raises `StoreConflict` when it leads to none."""
    names = [version.name for version in found.versions]
    if found.target in names:
        return str(found.target)
    where = f"leads to {found.target}" if found.target else "is not there"
    raise StoreConflict(
        STORE,
        f"Alias {found.alias or '(none declared)'} {where}, which is no version of "
        f"{found.declared}.",
        subject=found.alias or found.declared,
        hint="Type `is-db-bootstrap apply` first.",
    )
