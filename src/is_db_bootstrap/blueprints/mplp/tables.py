"""The 35 tables, computed from the JSON Schemas in `schemas/`.

Each module of the protocol has one schema. Each definition with the keyword `x-table` in a schema
makes one table. The properties of the definition become columns:

| property | column type |
|---|---|
| `enum` | VARCHAR(32) with a CHECK on the values |
| `type: string`, `format: date-time` | TIMESTAMP |
| `type: string`, `maxLength` up to 500 | VARCHAR(`maxLength`) |
| `type: string`, `maxLength` over 500 | TEXT |
| `type: integer`, `maximum` up to 2147483647 | INTEGER |
| `type: integer`, `maximum` over 2147483647 | BIGINT |
| `type: number` | DOUBLE |
| `type: boolean` | BOOLEAN |
| anything else | JSON |

The keywords `required`, `default`, `x-default: now` and `x-identity` make a column NOT NULL. The
keyword `x-on-update: now` sets a column with every update. Constraints and indexes come from
`x-unique`, `x-references`, `x-indexes` and `x-unique-indexes`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Enum,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.mysql import DATETIME
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql import false, true
from sqlalchemy.types import TypeEngine

#: The modules in the order of their revisions.
MODULES = ("context", "plan", "role", "confirm", "trace", "extension")
#: Length in characters up to which a text is a VARCHAR.
LONGEST_VARCHAR = 500
LARGEST_INTEGER = 2_147_483_647
#: Length of the columns that hold one of a list of values.
ENUM_LENGTH = 32
#: Table options of MariaDB. The collation compares text byte by byte, as the other engines do.
MARIADB: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mariadb_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mariadb_collate": "utf8mb4_bin",
}

#: A time with fractions of a second. A plain MariaDB DATETIME would drop the fractions.
TIMESTAMP = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
#: A JSON value. None is stored as SQL NULL, never as JSON null.
DOCUMENT = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def load_schema(module: str) -> dict[str, Any]:
    """The JSON Schema of a module. Raises `ValueError` for an unknown module."""
    if module not in MODULES:
        known = ", ".join(MODULES)
        raise ValueError(f"{module!r} is not a module of MPLP. The modules are {known}.")
    file = resources.files(__package__) / "schemas" / f"{module}.schema.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def compute(schemas: Mapping[str, Mapping[str, Any]]) -> MetaData:
    """The tables of `schemas`, which maps a module to its schema.

    The tables have the order of the schemas and of the definitions in them. Each table names its
    module in `info["module"]`.
    """
    computed = MetaData()
    for module, schema in schemas.items():
        for definition in schema["$defs"].values():
            if "x-table" in definition:
                _add_table(computed, module, schema, definition)
    return computed


def utc_now() -> dt.datetime:
    """The current time in UTC, without time zone."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def _add_table(
    computed: MetaData,
    module: str,
    schema: Mapping[str, Any],
    definition: Mapping[str, Any],
) -> None:
    name = definition["x-table"]
    required = set(definition["required"])
    properties = {
        column: _resolve_reference(schema, declared)
        for column, declared in definition["properties"].items()
    }
    columns = [
        _build_column(name, column, declared, required=column in required)
        for column, declared in properties.items()
    ]
    Table(
        name,
        computed,
        *columns,
        PrimaryKeyConstraint("id", name=f"pk_{name}"),
        *_property_constraints(name, properties),
        *_declared_indexes(definition),
        info={"module": module},
        **MARIADB,
    )


def _resolve_reference(
    schema: Mapping[str, Any],
    declared: Mapping[str, Any],
) -> dict[str, Any]:
    """The property with its `$ref` replaced by the definition that it names.

    The property's own keywords win over those of the definition.
    """
    if "$ref" not in declared:
        return dict(declared)
    target = schema["$defs"][declared["$ref"].removeprefix("#/$defs/")]
    own_keywords = {key: value for key, value in declared.items() if key != "$ref"}
    return _resolve_reference(schema, target) | own_keywords


def _build_column(
    table: str,
    name: str,
    declared: Mapping[str, Any],
    *,
    required: bool,
) -> Column[Any]:
    is_identity = bool(declared.get("x-identity"))
    default = _server_default(declared)
    has_default = default is not None
    return Column(
        name,
        _column_type(table, name, declared),
        nullable=not (required or is_identity or has_default),
        server_default=default,
        onupdate=utc_now if declared.get("x-on-update") == "now" else None,
        primary_key=is_identity,
    )


def _column_type(table: str, name: str, declared: Mapping[str, Any]) -> TypeEngine[Any]:
    if "enum" not in declared:
        return _plain_type(declared)
    return Enum(
        *declared["enum"],
        native_enum=False,
        create_constraint=True,
        length=ENUM_LENGTH,
        name=f"ck_{table}_{name}",
    )


def _plain_type(declared: Mapping[str, Any]) -> TypeEngine[Any]:
    """The type of a property that has no list of values. The module docstring has the rules."""
    match declared:
        case {"type": "string", "format": "date-time"}:
            return TIMESTAMP
        case {"type": "string", "maxLength": length}:
            return String(length) if length <= LONGEST_VARCHAR else Text()
        case {"type": "integer", "maximum": maximum}:
            return Integer() if maximum <= LARGEST_INTEGER else BigInteger()
        case {"type": "number"}:
            return Double()
        case {"type": "boolean"}:
            return Boolean()
        case _:
            return DOCUMENT


def _server_default(declared: Mapping[str, Any]) -> Any:
    """The default in SQL, or None when the property has no default."""
    if declared.get("x-default") == "now":
        return func.now()
    if "default" not in declared:
        return None
    value = declared["default"]
    if isinstance(value, bool):
        return true() if value else false()
    if isinstance(value, int | float):
        return text(str(value))
    if isinstance(value, str):
        return value
    return text(f"'{json.dumps(value)}'")


def _property_constraints(
    table: str,
    properties: Mapping[str, Mapping[str, Any]],
) -> Iterator[UniqueConstraint | ForeignKeyConstraint]:
    for column, declared in properties.items():
        if declared.get("x-unique"):
            yield UniqueConstraint(column, name=f"uq_{table}_{column}")
        if "x-references" in declared:
            reference = declared["x-references"]
            yield ForeignKeyConstraint(
                [column],
                [f"{reference['table']}.{reference['column']}"],
                name=reference["name"],
                ondelete=reference["on_delete"],
            )


def _declared_indexes(definition: Mapping[str, Any]) -> Iterator[Index]:
    for name, columns in definition.get("x-indexes", {}).items():
        yield Index(name, *columns)
    for name, columns in definition.get("x-unique-indexes", {}).items():
        yield Index(name, *columns, unique=True)


metadata = compute({module: load_schema(module) for module in MODULES})
