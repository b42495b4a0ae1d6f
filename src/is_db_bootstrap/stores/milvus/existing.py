"""The collections of a running Milvus, as declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pymilvus import DataType, FunctionType
from pymilvus.client.types import LoadState

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Function, Index
from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.milvus import defaults
from is_db_bootstrap.stores.milvus.check import problems, vector_types
from is_db_bootstrap.stores.milvus.compare import differences
from is_db_bootstrap.stores.milvus.connection import single_token
from is_db_bootstrap.stores.milvus.errors import Translation
from is_db_bootstrap.stores.milvus.memory_collection import is_memory
from is_db_bootstrap.stores.milvus.properties import TTL_PROPERTY
from is_db_bootstrap.stores.milvus.rehearsal import is_rehearsal
from is_db_bootstrap.stores.milvus.schema import MODEL_PROPERTY
from is_db_bootstrap.stores.milvus.server import Server
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing

#: The partition that every collection has.
_DEFAULT_PARTITION = "_default"
#: Properties that this tool keeps there.
_OWN_PROPERTIES = "is_db_bootstrap."
#: What a server reports of an index beside its parameters.
_OF_INDEX = {
    "field_name",
    "index_name",
    "index_type",
    "metric_type",
    "state",
    "index_state_fail_reason",
    "total_rows",
    "indexed_rows",
    "pending_index_rows",
    "params",
}
#: Numbers of consistency levels, as `common.proto` of Milvus has them. A server may use another one
#: (`Customized`), which cannot be declared.
_CONSISTENCY = {0: "Strong", 1: "Session", 2: "Bounded", 3: "Eventually"}
#: Parameters of a field that have an argument of their own in a declaration.
_SIZES = {"dim", "max_length", "max_capacity"}


def read_existing(url: StoreUrl, timing: Timing, request: Request) -> Existing:
    """Every collection of the database in `url`."""
    del request
    errors = Translation(single_token(url))
    server = Server(single_token(url), timing, errors)
    try:
        server.open(timing.connect_timeout_s)
        with errors("collections"):
            listed = server.client.list_collections(**server.look_options)
            own = [name for name in listed if is_rehearsal(name) or is_memory(name)]
            names = sorted(set(listed) - set(own))
        readers = [_Reader(server, name) for name in names]
        read = [(reader, reader.read(errors)) for reader in readers]
    finally:
        server.close()
    collections = tuple(collection for _, collection in read if collection is not None)
    return Existing(
        declared={"collections": collections} if collections else {},
        found=f"{len(collections)} of {counted(len(names), 'collection')}",
        guesses=[sentence for reader, _ in read for sentence in reader.guesses],
        unread=[sentence for reader, _ in read for sentence in reader.unread],
    )


@dataclass(slots=True)
class _Reader:
    """Reads one collection, and notes what it guesses and what it cannot read."""

    server: Server
    name: str
    guesses: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def read(self, errors: Translation) -> Collection | None:
        """The collection as a declaration. None for one that cannot be declared."""
        with errors(self.name):
            described = self.server.described(self.name)
        if described is None:
            self.unread.append(f"{self.name} was dropped while it was read.")
            return None
        with errors(self.name):
            collection = self._declaration(described)
        return collection if self._is_true(collection, errors) else None

    def _declaration(self, described: Mapping[str, Any]) -> Collection:
        fields = tuple(self._fields(described))
        properties = dict(described.get("properties") or {})
        ttl = properties.pop(TTL_PROPERTY, None)
        model = properties.pop(MODEL_PROPERTY, "")
        properties = {k: v for k, v in properties.items() if not k.startswith(_OWN_PROPERTIES)}
        has_partition_key = any(each.partition_key for each in fields)
        declared = Collection(
            self.name,
            fields=fields,
            indexes=tuple(self._indexes(fields)),
            alias=self._alias(),
            description=str(described.get("description") or ""),
            dynamic=bool(described.get("enable_dynamic_field")),
            ttl_seconds=max(0, int(ttl or 0)),
            model=str(model),
            load=self.server.load_state(self.name) is LoadState.Loaded,
            properties=properties,
            functions=tuple(self._functions(described)),
            partition_names=() if has_partition_key else self._partitions(),
        )
        return self._with_cluster_facts(declared, described, has_partition_key)

    def _with_cluster_facts(
        self, declared: Collection, described: Mapping[str, Any], has_partition_key: bool
    ) -> Collection:
        """Shards, partitions and consistency, which Milvus Lite does not tell truly."""
        if self.server.is_lite:
            return declared
        number = int(described.get("consistency_level", -1))
        level: Any = _CONSISTENCY.get(number)
        if level is None:
            self.guesses.append(
                f"{self.name}: consistency level {number} cannot be declared; Bounded was written."
            )
            level = "Bounded"
        count = int(described.get("num_partitions") or 0) if has_partition_key else 0
        shards = int(described.get("num_shards") or 1)
        return replace(declared, shards=shards, partitions=count, consistency=level)

    def _alias(self) -> str:
        told = self.server.client.list_aliases(self.name, **self.server.look_options)
        aliases = sorted(told.get("aliases") or ())
        if len(aliases) > 1:
            others = ", ".join(aliases[1:])
            self.unread.append(
                f"{self.name} has several aliases. {aliases[0]} is declared, not {others}."
            )
        return aliases[0] if aliases else ""

    def _partitions(self) -> tuple[str, ...]:
        named = self.server.client.list_partitions(self.name, **self.server.look_options)
        return tuple(sorted(each for each in named if each != _DEFAULT_PARTITION))

    def _fields(self, described: Mapping[str, Any]) -> Iterator[Field]:
        for found in described["fields"]:
            params = dict(found.get("params") or {})
            element = found.get("element_type")
            type_name = DataType(found["type"]).name
            default = defaults.shown(found.get("default_value"))
            has_texts = element == DataType.VARCHAR and type_name == "ARRAY"
            if has_texts and "max_length" not in params:
                self.unread.append(
                    f"{self.name}.{found['name']}: the server does not tell the max_length of its "
                    "elements."
                )
            yield Field(
                found["name"],
                type_name,
                primary=bool(found.get("is_primary")),
                auto_id=bool(found.get("auto_id")),
                partition_key=bool(found.get("is_partition_key")),
                dim=_size(params, "dim"),
                max_length=_size(params, "max_length"),
                nullable=bool(found.get("nullable")),
                default=_default(type_name, default),
                element_type=DataType(element).name if type_name == "ARRAY" and element else "",
                max_capacity=_size(params, "max_capacity"),
                clustering_key=bool(found.get("is_clustering_key")),
                params={name: _value(each) for name, each in params.items() if name not in _SIZES},
            )

    def _functions(self, described: Mapping[str, Any]) -> Iterator[Function]:
        for found in described.get("functions") or ():
            yield Function(
                found["name"],
                FunctionType(found["type"]).name,
                tuple(found.get("input_field_names") or ()),
                tuple(found.get("output_field_names") or ()),
                params={name: _value(v) for name, v in (found.get("params") or {}).items()},
            )

    def _indexes(self, fields: tuple[Field, ...]) -> Iterator[Index]:
        client, options = self.server.client, self.server.look_options
        types = {each.name: each.type for each in fields}
        for name in client.list_indexes(self.name, **options):
            found = client.describe_index(self.name, name, **options)
            on_field = found["field_name"]
            given = {**found, **(found.get("params") or {})}
            params = {k: _value(v) for k, v in given.items() if k not in _OF_INDEX}
            is_vector = types.get(on_field) in vector_types()
            if self.server.is_lite and not params:
                self.unread.append(
                    f"{self.name}.{on_field}: Milvus Lite does not tell the index's parameters."
                )
            yield Index(
                on_field,
                str(found.get("index_type", "")),
                str(found.get("metric_type", "")) if is_vector else "",
                params,
                name="" if name == on_field else name,
            )

    def _is_true(self, collection: Collection, errors: Translation) -> bool:
        """Whether the declaration can be, and says what is there."""
        wrong = list(problems(Blueprint("existing", "", collections=(collection,))))
        if wrong:
            self.unread.append(f"{self.name} cannot be declared: {'; '.join(wrong)}.")
            return False
        with errors(self.name):
            found = differences(collection, self.server.live(collection))
        self.unread += [
            f"{each}. The server tells it otherwise when asked again." for each in found
        ]
        return True


def _size(params: Mapping[str, Any], name: str) -> int | None:
    text = params.get(name)
    return None if text is None else int(text)


def _default(type_name: str, value: Any) -> Any:
    """A default as Python has it. A server sends a BOOL as a number sometimes."""
    return bool(value) if type_name == "BOOL" and value is not None else value


def _value(text: Any) -> Any:
    """The number or the truth value that a server has sent as a text."""
    if not isinstance(text, str):
        return text
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
