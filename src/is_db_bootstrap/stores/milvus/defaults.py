"""The default value of a field: as a server takes it, and compared with what a server shows.

pymilvus chooses the slot of its protobuf message by the type of the Python value, so that `DOUBLE`
1 and `INT8` 5 become 64-bit integers, and it calls pandas for that. Here the slot follows from the
type of the field. FLOAT has 32 bits, so that 0.1 comes back as 0.10000000149011612.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pymilvus.grpc_gen import schema_pb2

from is_db_bootstrap.blueprint import Collection, Field
from is_db_bootstrap.stores.milvus.check import TIME_ZONE_PROPERTY

#: The slot of `ValueField` for each type. A time is written as text (`string_data`), which servers
#: turn into microseconds.
_SLOTS: Mapping[str, str] = {
    "BOOL": "bool_data",
    "INT8": "int_data",
    "INT16": "int_data",
    "INT32": "int_data",
    "INT64": "long_data",
    "FLOAT": "float_data",
    "DOUBLE": "double_data",
    "VARCHAR": "string_data",
    "TEXT": "string_data",
    "GEOMETRY": "string_data",
    "TIMESTAMPTZ": "string_data",
}
#: How the server holds a number with a fraction: in 32 bits, or in 64.
_PACKED_AS: Mapping[str, str] = {"FLOAT": "<f", "DOUBLE": "<d"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def encoded(each: Field) -> Any:
    """The message that `add_field` takes as `default_value`; None when no default is declared."""
    if each.default is None:
        return None
    value = _time_text(each.default) if each.type == "TIMESTAMPTZ" else each.default
    return schema_pb2.ValueField(**{_SLOTS[each.type]: value})


def shown(message: Any) -> Any:
    """The value in what a server shows: that of the slot that is set, or None.

    Other values are returned as they are.
    """
    if not hasattr(message, "WhichOneof"):
        return message
    slot = message.WhichOneof("data")
    return None if slot is None else getattr(message, slot)


def is_same(collection: Collection, each: Field, live: Any) -> bool:
    """Whether the declared default and the live one are the same value of the field's type.

    None is no default.
    """
    if each.default is None or live is None:
        return each.default is None and live is None
    if each.type in _PACKED_AS:
        packed_as = _PACKED_AS[each.type]
        return struct.pack(packed_as, each.default) == struct.pack(packed_as, live)
    if each.type == "TIMESTAMPTZ":
        return _microseconds(each.default, collection) == _microseconds(live, collection)
    if each.type == "GEOMETRY":
        return _as_one_text(each.default) == _as_one_text(live)
    if each.type == "BOOL":
        return each.default is bool(live)
    return bool(each.default == live)


def _as_one_text(shape: str) -> str:
    """A geometry's text without case and spaces, which servers write in their own way."""
    return "".join(shape.split()).upper()


def _time_text(value: int | str | datetime) -> str:
    """ISO 8601. An integer is microseconds since 1970 in UTC."""
    if isinstance(value, int):
        value = _EPOCH + value * _MICROSECOND
    return value.isoformat() if isinstance(value, datetime) else value


def _microseconds(value: int | str | datetime, collection: Collection) -> int:
    """Microseconds since 1970 in UTC.

    A time without an offset is meant in the collection's time zone, else in UTC.
    """
    if isinstance(value, int):
        return value
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    if time.tzinfo is None:
        time = time.replace(
            tzinfo=ZoneInfo(str(collection.properties.get(TIME_ZONE_PROPERTY, "UTC")))
        )
    return (time - _EPOCH) // _MICROSECOND
