"""Declarations: what a blueprint says about its stores.

They are typed, frozen values. Importing this module loads no client.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.stores.kinds import declared_kinds

Value = str | int


def _empty_mapping() -> Mapping[str, Any]:
    """The default of mappings. Before Python 3.12 a proxy is not hashable, so it cannot be one."""
    return MappingProxyType({})


def _without_anchors(expression: str) -> str:
    r"""An expression without `^` and `$` at its ends, where a key goes on. `\$` is no anchor."""
    body = expression.removesuffix("$")
    escapes = len(body) - len(body.rstrip("\\"))
    is_escaped = bool(escapes % 2)
    return (expression if is_escaped else body).removeprefix("^")


def _plain_integers(declared: Any) -> None:
    """Make a plain `int` of each integer of another class, such as NumPy's, also in a tuple."""
    for each in dataclasses.fields(declared):
        value = getattr(declared, each.name)
        plain = tuple(map(_plain, value)) if type(value) is tuple else _plain(value)
        object.__setattr__(declared, each.name, plain)


def _plain(value: Any) -> Any:
    """The `int` of an integer of another class. Any other value as it is, also a bool."""
    if isinstance(value, int) or not hasattr(type(value), "__index__"):
        return value
    try:
        return operator.index(value)
    except TypeError:  # an array of NumPy
        return value


def _shown(value: Value) -> str:
    """A setting's value for people: of an address with a secret in it, the scheme alone."""
    from is_db_bootstrap.settings.secrets import shown

    return repr(shown(value) if isinstance(value, str) else value)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting of one blueprint, read from the environment or the file under its own name.

    `default` also fixes the type, text or integer. A text must be one of `choices`, or match
    `pattern` as a whole. An integer must be at least `minimum`.
    """

    name: str
    default: Value
    meaning: str
    choices: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int = 0

    def parse(self, text: Value) -> Value:
        """The value of `text`; `ConfigurationError` names the setting and what it accepts."""
        if isinstance(text, bool) or not isinstance(text, str | int):
            raise ConfigurationError(f"{self.name}={_shown(text)} is neither text nor an integer.")
        if isinstance(self.default, int):
            return self._integer(text)
        text = str(text)
        if self.choices and text not in self.choices:
            raise ConfigurationError(
                f"{self.name}={_shown(text)} is not one of {', '.join(self.choices)}."
            )
        if self.pattern and not re.fullmatch(self.pattern, text):
            raise ConfigurationError(f"{self.name}={_shown(text)} does not match {self.pattern}.")
        return text

    def _integer(self, text: Value) -> int:
        try:
            number = int(text)
        except ValueError:
            raise ConfigurationError(f"{self.name}={_shown(text)} is not an integer.") from None
        if number < self.minimum:
            raise ConfigurationError(f"{self.name}={number} is below {self.minimum}.")
        return number


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a Milvus collection.

    - `type` is a `pymilvus.DataType` name such as `INT64`, `VARCHAR`, `ARRAY`, `FLOAT_VECTOR`.
    - `dim` counts the components of a vector, and `max_length` UTF-8 bytes, not characters.
    - `max_capacity` counts the elements of an `ARRAY`, whose type is `element_type`.
    - `default` is the value of rows that give none. `nullable` rows may give none.
    - `params` are further arguments of `MilvusClient`'s `add_field`, such as `enable_analyzer`,
      `enable_match`, `analyzer_params`, `mmap_enabled`.
    """

    name: str
    type: str
    primary: bool = False
    auto_id: bool = False
    partition_key: bool = False
    dim: int | None = None
    max_length: int | None = None
    nullable: bool = False
    default: Any = None
    element_type: str = ""
    max_capacity: int | None = None
    clustering_key: bool = False
    params: Mapping[str, Any] = dataclasses.field(default_factory=_empty_mapping)

    def __post_init__(self) -> None:
        _plain_integers(self)


@dataclass(frozen=True, slots=True)
class Function:
    """A function of a Milvus collection, which fills the fields `outputs` from the fields `inputs`.

    `type` is a `pymilvus.FunctionType` name. `BM25` makes a sparse vector of an analysed text,
    `TEXTEMBEDDING` asks the provider that `params` name for a vector, and `MINHASH` makes a
    signature.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, Any] = dataclasses.field(default_factory=_empty_mapping)


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a Milvus collection, one per field.

    - `name` is the field's name unless it is given.
    - `params` are build parameters such as `M`, `nlist`, `min_gram`, or `json_path` and
      `json_cast_type` on a JSON field.
    - `metric` is one of `IP`, `L2`, `COSINE`, `HAMMING`, `JACCARD`, `BM25`, … for a vector field,
      and empty for a scalar.
    """

    field: str
    type: str
    metric: str = ""
    params: Mapping[str, Any] = dataclasses.field(default_factory=_empty_mapping)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Collection:
    """A Milvus collection `<family>_v<n>` behind an alias.

    - `partitions` counts the partitions behind the partition key; 0 is the server's default.
      `partition_names` are named partitions. A collection has one or the other.
    - `ttl_seconds` is the lifetime of vectors. With 0 they do not expire.
    - `model` identifies the embedding model. `unspecified` is compatible with every model.
    - `load` asks for the collection to be loaded into memory.
    - `properties` are collection properties such as `mmap.enabled`.
    - `alias_moves` says who moves the alias to a new version. It is awaited that `vector upgrade`
      does, unless it moves `by hand`.
    - `reembed` makes the rows of a new version for `vector upgrade`. It is called with a list of
      rows of the version before, as dictionaries, and returns a list with one dictionary for each:
      the fields that are new or other, such as the vectors. The rest is copied.
    """

    name: str
    fields: tuple[Field, ...]
    indexes: tuple[Index, ...] = ()
    alias: str = ""
    description: str = ""
    shards: int = 1
    partitions: int = 0
    consistency: Literal["Strong", "Bounded", "Session", "Eventually"] = "Bounded"
    dynamic: bool = False
    ttl_seconds: int = 0
    model: str = ""
    load: bool = True
    properties: Mapping[str, str | int | float | bool] = field(default_factory=_empty_mapping)
    functions: tuple[Function, ...] = ()
    partition_names: tuple[str, ...] = ()
    alias_moves: Literal["by upgrade", "by hand"] = "by upgrade"
    reembed: Callable[[list[dict[str, Any]]], Sequence[Mapping[str, Any]]] | None = field(
        default=None, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _plain_integers(self)


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """A Redis key convention.

    - `pattern` has `{placeholders}`. Each stands for characters without `:`, unless `placeholders`
      gives a regular expression for it. Where two patterns fit a key, the one with more literal
      characters applies.
    - `type` is what TYPE answers: string, list, set, zset, hash, stream.
    - `ttl` is seconds. A number is the lifetime that writers set, and a pair is the shortest and
      the longest. None means that keys are persistent, which needs a `reason`. With `may_expire`,
      a persistent key may have a lifetime all the same, such as a ban that is timed.
    """

    name: str
    pattern: str
    type: Literal["string", "list", "set", "zset", "hash", "stream"]
    ttl: int | tuple[int, int] | None
    owner: str
    purpose: str
    placeholders: Mapping[str, str] = field(default_factory=_empty_mapping)
    reason: str = ""
    may_expire: bool = False

    def __post_init__(self) -> None:
        _plain_integers(self)

    @property
    def literals(self) -> int:
        """How many characters of the pattern stand for themselves."""
        return len(re.sub(r"\{\w+\}", "", self.pattern))

    @property
    def longest_ttl(self) -> int | None:
        """The longest declared lifetime in seconds; None when keys are persistent."""
        return self.ttl[1] if isinstance(self.ttl, tuple) else self.ttl

    @property
    def expression(self) -> str:
        """The regular expression that a key of this pattern matches as a whole."""
        parts = re.split(r"\{(\w+)\}", self.pattern)
        return "".join(
            f"(?:{_without_anchors(self.placeholders.get(part, '[^:]+'))})"
            if i % 2
            else re.escape(part)
            for i, part in enumerate(parts)
        )

    def matches(self, key: str) -> bool:
        """Whether `key` is of this pattern."""
        return re.fullmatch(self.expression, key) is not None


@dataclass(frozen=True, slots=True)
class Channel:
    """A Redis publish/subscribe channel; not a key, so only recorded."""

    name: str
    pattern: str
    purpose: str


@dataclass(frozen=True, slots=True)
class SeedReference:
    """A value of a demo row that hangs on another row.

    It is the `column` of the row of `table` that has the values of `key`.
    """

    table: str
    key: Mapping[str, Any]
    column: str = "id"

    def __str__(self) -> str:
        return f"{self.table}({', '.join(f'{name}={value}' for name, value in self.key.items())})"


@dataclass(frozen=True, slots=True)
class SeedRow:
    """A demo row. It is present when a row with `key` exists, whatever its other columns say.

    `unique` names columns of `values` that identify a row as well. A row that has them is left as
    it is. A `dict` is written as jsonb, and a `list` as an array.
    """

    table: str
    key: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=_empty_mapping)
    unique: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SeedNode:
    """A demo node: present when a node of `label` with `key` exists.

    Values that are datetimes become Cypher datetimes.
    """

    label: str
    key: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=_empty_mapping)


@dataclass(frozen=True, slots=True)
class SeedRelationship:
    """A demo relationship between two demo nodes: present when one of `type` joins them."""

    type: str
    start: SeedNode
    end: SeedNode
    values: Mapping[str, Any] = field(default_factory=_empty_mapping)


class Ends(NamedTuple):
    """What a relationship type of Neo4j may join, and the properties that it may carry."""

    from_labels: AbstractSet[str]
    to_labels: AbstractSet[str]
    properties: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolProfile:
    """How many connections a service keeps, and how long it waits for one. All times are seconds.

    - `open()` opens `min_size` connections, which are kept open. At most `max_size` are in use.
    - `acquire_timeout` is how long a caller waits for a free one. Then
      `sqlalchemy.exc.TimeoutError`
      is raised.
    - A connection that is older than `recycle` is replaced before use.
    - `command_timeout` is the server's `statement_timeout` of every connection. None sets none.
    - A statement is prepared at its `prepare_threshold`-th use. None prepares none, for a pooler in
      transaction mode.

    Raises `ValueError` for sizes that cannot be.
    """

    min_size: int
    max_size: int
    acquire_timeout: float = 30
    recycle: float = 1800
    command_timeout: float | None = None
    prepare_threshold: int | None = 5

    def __post_init__(self) -> None:
        _plain_integers(self)
        if self.min_size < 0 or self.max_size < max(1, self.min_size):
            raise ValueError(f"A pool of {self.min_size} to {self.max_size} connections cannot be.")


@dataclass(frozen=True, slots=True)
class AlembicEnvironment:
    """A team's own Alembic environment: an `alembic.ini`, and the `env.py` that it leads to.

    - `ini` is the file, relative to the file that declares it.
    - `section` is the section that `alembic --name` would be given.
    - `x` are the arguments that `alembic -x` would be given, such as `tenant=a`. In them, `{url}`,
      `{database}` and `{schema}` stand for those of the run. The address has its password.
    - `version_table` and `version_table_schema` are for an `env.py` without an offline branch. They
      say what its `context.configure` says. Empty: the offline branch says it.
    - `driver` is SQLAlchemy's name of the driver with which trials run the revisions, such as
      `asyncpg`. Empty: that of the address which the offline branch or the file says.
    """

    ini: Path
    section: str = "alembic"
    x: tuple[str, ...] = field(default=(), repr=False)  # an address may be in it
    version_table: str = ""
    version_table_schema: str = ""
    driver: str = ""

    def of_run(self, **values: str) -> AlembicEnvironment:
        """The environment of one run, with the `values` of what stands in braces in `x`."""
        x = self.x
        for name, value in values.items():
            x = tuple(each.replace(f"{{{name}}}", value) for each in x)
        return self if x == self.x else replace(self, x=x)

    def __post_init__(self) -> None:
        """Take a text that names a file as a path."""
        if isinstance(self.ini, str):
            object.__setattr__(self, "ini", Path(self.ini))


@dataclass(frozen=True, slots=True)
class Baseline:
    """What fills an empty database before the first revision that is run there.

    - `source` is a function as `module:function`, or the path of an SQL file, whose name ends with
      `.sql`. The path is relative to the file that declares it.
    - `revision` is what is recorded afterwards, as `alembic stamp` takes it. Empty: all heads,
      which is right for the models of today. An SQL file needs one.
    - `folder` is where both are looked for. None: that of the file that declares it.
    """

    source: str
    revision: str = ""
    folder: Path | None = field(default=None, repr=False)

    @property
    def file(self) -> Path | None:
        """The SQL file. None for a function."""
        is_file = self.source.lower().endswith(".sql")
        return (self.folder or Path()) / self.source if is_file else None


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A named, declared desired state over one or more stores.

    Files declare what PostgreSQL and Neo4j are to hold. `migrations` is a folder of Alembic
    revisions, and `cypher` one of `V…__….cypher` and `R…__….cypher` files. None means that the
    blueprint does not use that store. `alembic` names a team's own Alembic environment in the place
    of `migrations`, by its file or as an `AlembicEnvironment`. Where a blueprint is loaded from a
    folder or by `module:ATTRIBUTE` and leaves `migrations`, `cypher` or `models` open, the folders
    of these names beside it are taken, and the module `tables` or `models`.

    - `enterprise=False` skips Cypher files that assume the enterprise edition, whatever the server
      is.
    - `cypher_autocrlf=True` takes CRLF for LF in Cypher files, as the option of that name of
      neo4j-migrations does.
    - `labels` (label to its properties) and `relationships` document the graph. Neo4j cannot
      enforce them.
    - `durable_keys=True` says that what is in Redis is no cache. A Redis that was lost is then an
      error, and not recorded again.
    - `configure` returns the tailored blueprint for the values of its settings.
    - `models` is the dotted name of a module with SQLAlchemy's `metadata` or `Base`, with which
      `revision` and `alembic check` compare.
    - `pool` is for services that use the database.
    - `portable` marks revisions that also run on MariaDB and SQLite.
    - `baseline` is what fills an empty database before the revisions.
    """

    name: str
    summary: str
    migrations: Path | None = None
    cypher: Path | None = None
    collections: tuple[Collection, ...] = ()
    keys: tuple[KeyPattern, ...] = ()
    durable_keys: bool = False
    channels: tuple[Channel, ...] = ()
    settings: tuple[Setting, ...] = ()
    enterprise: bool = True
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=_empty_mapping)
    relationships: Mapping[str, Ends] = field(default_factory=_empty_mapping)
    models: str = ""
    pool: PoolProfile = PoolProfile(5, 15)
    portable: bool = False
    seed_rows: tuple[SeedRow, ...] = ()
    seed_nodes: tuple[SeedNode, ...] = ()
    seed_relationships: tuple[SeedRelationship, ...] = ()
    alembic: AlembicEnvironment | None = None
    baseline: Baseline | None = None
    cypher_autocrlf: bool = False
    configure: Callable[[Blueprint, Mapping[str, Value]], Blueprint] | None = field(
        default=None, repr=False
    )

    def __post_init__(self) -> None:
        """Take a text that names a folder as a path, and one that names an ini file as that."""
        for name in ("migrations", "cypher"):
            folder = getattr(self, name)
            if isinstance(folder, str):
                object.__setattr__(self, name, Path(folder))
        if isinstance(self.alembic, str | Path):
            object.__setattr__(self, "alembic", AlembicEnvironment(Path(self.alembic)))
        if isinstance(self.baseline, str):
            object.__setattr__(self, "baseline", Baseline(self.baseline))

    @property
    def stores(self) -> tuple[StoreName, ...]:
        """The stores that it declares something about, in store order."""
        return tuple(kind.name for kind in declared_kinds(self))

    def resolve(self, values: Mapping[str, Value]) -> Blueprint:
        """The blueprint for these settings. Unknown names are not looked at.

        Raises `ConfigurationError` for a wrong value, and for whatever `configure` raises, with
        file and line.
        """
        parsed = {s.name: s.parse(values.get(s.name, s.default)) for s in self.settings}
        return self._configured(self.configure, parsed) if self.configure else self

    def _configured(
        self, configure: Callable[..., object], values: Mapping[str, Value]
    ) -> Blueprint:
        try:
            with strict_guest():
                found = configure(self, values)
        except GuestFailed as exc:
            from is_db_bootstrap.settings.secrets import without_typed

            said = without_typed(str(exc), (v for v in values.values() if isinstance(v, str)))
            raise ConfigurationError(
                f"configure of the blueprint {self.name} failed: {said}."
            ) from (exc if said == str(exc) else None)
        if not isinstance(found, Blueprint):
            raise ConfigurationError(
                f"configure of the blueprint {self.name} returned {type(found).__name__}, "
                "not a Blueprint.",
                hint="Return the blueprint, as in: return replace(blueprint, collections=…).",
            )
        return found

    def without_seed(self) -> Blueprint:
        """The same without demo data."""
        return replace(self, seed_rows=(), seed_nodes=(), seed_relationships=())
