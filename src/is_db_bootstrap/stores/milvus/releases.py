"""What a release of Milvus does not tell as it is, and what it can change in place.

Nothing of a collection that stands here as untold is compared on that release. Each entry was tried
with pymilvus 3.0.2 on the release itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection

CONSISTENCY, SHARDS, PARTITIONS = "consistency", "shards", "partitions"
INDEX_PARAMETERS = "index parameters"
_LITE = "lite"
#: Attributes that a server leaves out or misreports, by its major and minor release.
#: Milvus Lite 3.2.2 answers `Strong` for every consistency, 1 for every number of shards, 17
#: partitions behind every partition key, and no parameters of an index. Milvus 2.3.5 tells all.
_UNTOLD: Mapping[str, frozenset[str]] = {
    _LITE: frozenset({CONSISTENCY, SHARDS, PARTITIONS, INDEX_PARAMETERS}),
    "2.3": frozenset(),
}
#: First release that adds a field to a collection that is there (`add_collection_field`).
ADDS_FIELDS_SINCE = (2, 6)


@dataclass(frozen=True, slots=True)
class Release:
    """The release of a server. `numbers` are major and minor, and empty for an unknown build.

    `version` is as the server writes it.
    """

    numbers: tuple[int, ...] = ()
    version: str = ""
    is_lite: bool = False

    @property
    def label(self) -> str:
        """Such as `Milvus 2.3.5` or `Milvus Lite 3.2.2`."""
        name = "Milvus Lite" if self.is_lite else "Milvus"
        return f"{name} {self.version}".strip()

    @property
    def untold(self) -> frozenset[str]:
        """What this server leaves out or misreports. An unknown release is believed."""
        key = _LITE if self.is_lite else ".".join(map(str, self.numbers))
        return _UNTOLD.get(key, frozenset())

    @property
    def can_add_fields(self) -> bool:
        """Whether a nullable field can be added in place."""
        return not self.is_lite and (not self.numbers or self.numbers >= ADDS_FIELDS_SINCE)


#: A release of which nothing is known yet. It is believed in all.
UNKNOWN_RELEASE = Release()


def not_compared(declared: Collection, release: Release) -> Iterator[str]:
    """What is declared of a collection and cannot be compared on this release, in words.

    What stands at its default was not asked for, so nothing is said of it.
    """
    asked = {
        CONSISTENCY: declared.consistency != "Bounded",
        SHARDS: declared.shards != 1,
        PARTITIONS: bool(declared.partitions),
        INDEX_PARAMETERS: any(index.params for index in declared.indexes),
    }
    for attribute, is_asked in asked.items():
        if is_asked and attribute in release.untold:
            yield attribute
