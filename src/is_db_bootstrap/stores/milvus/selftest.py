"""Trying each collection under a probe name.

It is created as declared, filled, searched by every index, and dropped.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pymilvus.exceptions import MilvusException

from is_db_bootstrap.results import Proof
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from pymilvus import MilvusClient

    from is_db_bootstrap.blueprint import Collection, Field, Index
    from is_db_bootstrap.engine.store import DatabaseBootstrapper

#: Rows of the probe collection; some index types refuse to be built over a single one.
ROWS = 32
_TEXT = "is-db-bootstrap probe"


def proofs(
    open_probe: Callable[[Collection], DatabaseBootstrapper],
    client: MilvusClient,
    declared: Collection,
) -> Iterator[Proof]:
    """One check for the collection, one an index.

    The probe collection is dropped at the end, whatever happens.
    """
    name = f"is_db_bootstrap_selftest_{uuid.uuid4().hex}"
    probe = open_probe(replace(declared, name=name, alias="", load=bool(declared.indexes)))
    try:
        yield _made(probe, declared)
        rows = [_row(declared, number) for number in range(ROWS)]
        client.insert(name, rows)
        yield Proof(
            f"{declared.name} takes rows",
            ok=True,
            detail=f"{ROWS} rows, {counted(len(rows[0]), 'field')} given",
        )
        for index in declared.indexes:
            yield _tried(client, name, declared, index)
    finally:
        client.drop_collection(name)
        probe.close()


def _made(probe: DatabaseBootstrapper, declared: Collection) -> Proof:
    for change in probe.plan().changes:
        probe.apply(change)
    drifts = probe.verify()
    return Proof(
        f"{declared.name} is made as declared",
        ok=not drifts,
        detail="; ".join(f"{d.object} {d.message}" for d in drifts),
    )


def _tried(client: MilvusClient, name: str, declared: Collection, index: Index) -> Proof:
    each = next(f for f in declared.fields if f.name == index.field)
    try:
        if each.type.endswith("VECTOR"):
            made = next((f for f in declared.functions if each.name in f.outputs), None)
            found = client.search(
                name,
                [_TEXT if made else _value(each, 1)],
                anns_field=each.name,
                limit=1,
                consistency_level="Strong",
                search_params={"metric_type": index.metric} if index.metric else {},
            )[0]
            what = f"{declared.name}.{each.name} is searched by {index.type}"
        else:
            what = f"{declared.name}.{each.name} is filtered by {index.type}"
            found = client.query(name, filter=_filter(each), limit=1, consistency_level="Strong")
    except MilvusException as exc:
        return Proof(
            f"{declared.name}.{each.name} is served by {index.type}",
            ok=False,
            detail=f"code {exc.code}: {exc.message}",
        )
    return Proof(what, ok=bool(found), detail="" if found else "nothing was found")


def _filter(each: Field) -> str:
    value = _value(each, 1)
    if each.type == "ARRAY":
        return f"array_length({each.name}) > 0"
    if each.type == "JSON":
        return f'{each.name}["probe"] == 1'
    return f'{each.name} == "{value}"' if isinstance(value, str) else f"{each.name} == {value}"


def _row(declared: Collection, number: int) -> dict[str, Any]:
    made = {name for function in declared.functions for name in function.outputs}
    given = (f for f in declared.fields if f.name not in made and not (f.primary and f.auto_id))
    return {each.name: _value(each, number) for each in given}


def _value(each: Field, number: int) -> Any:
    if each.type.endswith("VECTOR"):
        return _vector(each, number)
    if each.type == "VARCHAR":
        text = f"probe-{number}" if each.primary else _TEXT
        return text[: each.max_length or len(text)]
    if each.type == "ARRAY":
        return [_scalar(each.element_type, 1)]
    return _scalar(each.type, number)


def _scalar(kind: str, number: int) -> Any:
    return {
        "BOOL": True,
        "FLOAT": number + 0.5,
        "DOUBLE": number + 0.5,
        "JSON": {"probe": 1},
        "VARCHAR": "x",
        "GEOMETRY": "POINT (1 1)",
        "TIMESTAMPTZ": "2026-01-02T03:04:05Z",
    }.get(kind, number)


def _vector(each: Field, number: int) -> Any:
    size = each.dim or 0
    if each.type == "SPARSE_FLOAT_VECTOR":
        return {1: 0.5, number + 2: 1.0}
    if each.type == "BINARY_VECTOR":
        return bytes([number % 256]) * (size // 8)
    values: Sequence[float] = [((number + position) % 7 + 1) / 8 for position in range(size)]
    if each.type == "FLOAT_VECTOR":
        return list(values)
    import numpy as np  # pymilvus brings it

    kinds = {"FLOAT16_VECTOR": np.float16, "INT8_VECTOR": np.int8}
    if each.type in kinds:
        return np.asarray(
            [v * (100 if each.type == "INT8_VECTOR" else 1) for v in values], dtype=kinds[each.type]
        )
    return (np.asarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
