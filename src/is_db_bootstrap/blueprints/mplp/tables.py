"""The 35 tables, computed from the JSON Schemas in `schemas/`: one schema a module, one definition with `x-table` a table.

| the property has | column type |
|---|---|
| `enum` | VARCHAR(32) with a CHECK on the values |
| `type: string`, `format: date-time` | TIMESTAMP |
| `type: string`, `maxLength` up to 500, over 500 | VARCHAR(`maxLength`), TEXT |
| `type: integer`, `maximum` up to 2147483647, over it | INTEGER, BIGINT |
| `type: number`, `type: boolean` | DOUBLE, BOOLEAN |
| anything else | JSON |

`required`, `default`, `x-default: now` and `x-identity` make a column NOT NULL; `x-on-update`, `x-unique`, `x-references`,
`x-indexes` and `x-unique-indexes` say the rest.
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
LONGEST_VARCHAR, LARGEST_INTEGER, ENUM_LENGTH = 500, 2_147_483_647, 32
#: InnoDB, and text that compares byte by byte as on the other engines.
MARIADB: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
}

#: Fractions of a second, which a plain MariaDB DATETIME drops.
TIMESTAMP = DateTime().with_variant(DATETIME(fsp=6), "mysql", "mariadb")
#: None is SQL NULL, never JSON null.
DOCUMENT = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def load_schema(module: str) -> dict[str, Any]:
    """The JSON Schema of a module; `ValueError` for one that does not exist."""
    if module not in MODULES:
        raise ValueError(f"{module!r} is no module of MPLP: {', '.join(MODULES)}.")
    file = resources.files(__package__) / "schemas" / f"{module}.schema.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def compute(schemas: Mapping[str, Mapping[str, Any]]) -> MetaData:
    """The tables of `schemas` (module to schema), in their order, each with `info["module"]`."""
    computed = MetaData()
    for module, schema in schemas.items():
        for definition in schema["$defs"].values():
            if "x-table" in definition:
                _table(computed, module, schema, definition)
    return computed


def utc_now() -> dt.datetime:
    """The time that an update writes: UTC, without time zone."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


def _table(computed: MetaData, module: str, schema: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    name = definition["x-table"]
    properties = {column: _resolved(schema, found) for column, found in definition["properties"].items()}
    required = set(definition["required"])
    Table(
        name,
        computed,
        *(_column(name, column, found, required=column in required) for column, found in properties.items()),
        PrimaryKeyConstraint("id", name=f"pk_{name}"),
        *_constraints(name, properties),
        *(Index(index, *columns) for index, columns in definition.get("x-indexes", {}).items()),
        *(Index(index, *columns, unique=True) for index, columns in definition.get("x-unique-indexes", {}).items()),
        info={"module": module},
        **MARIADB,
    )


def _resolved(schema: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The property with the definition that it refers to under its own keywords."""
    if "$ref" not in found:
        return dict(found)
    target = schema["$defs"][found["$ref"].removeprefix("#/$defs/")]
    return _resolved(schema, target) | {key: value for key, value in found.items() if key != "$ref"}


def _column(table: str, name: str, found: Mapping[str, Any], *, required: bool) -> Column[Any]:
    identity = bool(found.get("x-identity"))
    default = _server_default(found)
    return Column(
        name,
        _type(table, name, found),
        nullable=not (required or identity or default is not None),
        server_default=default,
        onupdate=utc_now if found.get("x-on-update") == "now" else None,
        primary_key=identity,
    )


def _type(table: str, name: str, found: Mapping[str, Any]) -> TypeEngine[Any]:
    if "enum" in found:
        return Enum(*found["enum"], native_enum=False, create_constraint=True, length=ENUM_LENGTH, name=f"ck_{table}_{name}")
    kind = found.get("type")
    if kind == "string" and found.get("format") == "date-time":
        return TIMESTAMP
    if kind == "string" and "maxLength" in found:
        length = found["maxLength"]
        return String(length) if length <= LONGEST_VARCHAR else Text()
    if kind == "integer" and "maximum" in found:
        return Integer() if found["maximum"] <= LARGEST_INTEGER else BigInteger()
    return {"number": Double(), "boolean": Boolean()}.get(kind, DOCUMENT) if isinstance(kind, str) else DOCUMENT


def _server_default(found: Mapping[str, Any]) -> Any:
    if found.get("x-default") == "now":
        return func.now()
    if "default" not in found:
        return None
    value = found["default"]
    if isinstance(value, bool):
        return true() if value else false()
    if isinstance(value, int | float):
        return text(str(value))
    return value if isinstance(value, str) else text(f"'{json.dumps(value)}'")


def _constraints(table: str, properties: Mapping[str, Mapping[str, Any]]) -> Iterator[UniqueConstraint | ForeignKeyConstraint]:
    for column, found in properties.items():
        if found.get("x-unique"):
            yield UniqueConstraint(column, name=f"uq_{table}_{column}")
        if "x-references" in found:
            to = found["x-references"]
            yield ForeignKeyConstraint([column], [f"{to['table']}.{to['column']}"], name=to["name"], ondelete=to["on_delete"])


metadata = compute({module: load_schema(module) for module in MODULES})
