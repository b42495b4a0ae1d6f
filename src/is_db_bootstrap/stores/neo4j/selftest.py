"""Trying every declared constraint and index in transactions that are rolled back.

The probe values are our own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from neo4j import exceptions as raised

from is_db_bootstrap.results import Proof
from is_db_bootstrap.stores.neo4j import errors as neo4j_errors
from is_db_bootstrap.stores.neo4j.cypher_text import quoted

if TYPE_CHECKING:
    import neo4j

    from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject

_REFUSED = "Neo.ClientError.Schema.ConstraintValidationFailed"
#: A value of a declared property type; text for everything else.
_TYPED: Mapping[str, Any] = {"INTEGER": 1, "FLOAT": 1.5, "BOOLEAN": True, "LIST": ["probe"]}


class SelfTest:
    """The checks of `objects`, each in a transaction of its own on `session`."""

    def __init__(self, session: neo4j.Session, objects: Iterable[SchemaObject]) -> None:
        self._session = session
        self._objects = list(objects)
        self._probe = f"is-db-bootstrap-selftest-{uuid.uuid4().hex}"

    def proofs(self) -> Iterator[Proof]:
        """One after the other, in the order of the files."""
        for found in self._objects:
            labels = "|".join(found.labels)
            named = found.name or found.definition
            if found.kind == "constraint":
                yield self._tried(f"{labels}.{named} refuses what breaks it", self._refuses, found)
            else:
                yield self._tried(f"{labels}.{named} finds what it indexes", self._finds, found)

    def _tried(self, name: str, check: Any, found: SchemaObject) -> Proof:
        try:
            return check(name, found)  # type: ignore[no-any-return]  # each check returns a Proof
        except (raised.ClientError, raised.DatabaseError) as exc:
            return Proof(name, ok=False, detail=f"{exc.code}: {neo4j_errors.told(exc)[0]}")

    def _refuses(self, name: str, found: SchemaObject) -> Proof:
        good = self._values(found)
        if found.type in {"UNIQUENESS", "KEY"}:
            second: Mapping[str, Any] = good
        elif found.type == "EXISTENCE":
            second = {p: v for p, v in good.items() if p not in found.properties}
        else:
            second = {**good, found.properties[0]: _wrong(found.property_type)}
        transaction = self._session.begin_transaction()
        try:
            transaction.run(_create(found), good=good).consume()
            transaction.run(_create(found), good=second).consume()
            transaction.run("CALL db.awaitIndexes(1)").consume()
        except raised.ClientError as exc:
            return Proof(name, ok=exc.code == _REFUSED, detail=str(exc.code).rpartition(".")[2])
        finally:
            transaction.rollback() if not transaction.closed() else None
        if found.type in {"EXISTENCE", "KEY"}:
            return Proof(
                name,
                ok=None,
                detail="judged at the end of a transaction, which would leave the node",
            )
        return Proof(name, ok=False, detail="was not refused")

    def _finds(self, name: str, found: SchemaObject) -> Proof:
        if found.type == "LOOKUP":
            return Proof(name, ok=None, detail="the server's own")
        query = _CALLS[found.type](found) if found.type in _CALLS else _seek(found)
        values = self._values(found)
        with self._session.begin_transaction() as transaction:
            transaction.run(_create(found), good=values).consume()
            given = {
                "values": list(values.values()),
                "name": found.name,
                "vector": values.get(found.properties[0]),
            }
            rows = len(list(transaction.run(query, given)))
            transaction.rollback()
        if found.type in _CALLS:  # what they index is seen after a commit only
            return Proof(name, ok=True, detail="the query ran")
        return Proof(
            name, ok=rows > 0, detail="" if rows else "the node of this transaction was not found"
        )

    def _values(self, found: SchemaObject) -> dict[str, Any]:
        return {p: self._value(found) for p in found.properties}

    def _value(self, found: SchemaObject) -> Any:
        if found.type == "VECTOR":
            return [0.5] * int(
                dict(found.options).get(
                    "VECTOR.DIMENSIONS", dict(found.options).get("vector.dimensions", 1)
                )
            )
        if found.type == "TYPE":
            return next(
                (v for word, v in _TYPED.items() if found.property_type.upper().startswith(word)),
                self._probe,
            )
        return self._probe


def _wrong(declared: str) -> Any:
    return (
        "probe"
        if declared.upper().startswith(
            ("INTEGER", "FLOAT", "BOOLEAN", "LIST", "DATE", "ZONED", "LOCAL", "POINT")
        )
        else 1
    )


def _create(found: SchemaObject) -> str:
    label = quoted(found.labels[0])
    point = found.type == "POINT"
    values = (
        "{"
        + ", ".join(
            f"{quoted(p)}: {'point({x: 1.0, y: 1.0})' if point else f'$good[{p!r}]'}"
            for p in found.properties
        )
        + "}"
    )
    if found.entity == "NODE":
        return f"CREATE (:{label} {values})"
    return f"CREATE (:IsDbBootstrapProbe)-[:{label} {values}]->(:IsDbBootstrapProbe)"


def _seek(found: SchemaObject) -> str:
    """A query that must go by an index of this kind on these properties, or is refused."""
    label, kind = quoted(found.labels[0]), "" if found.type == "RANGE" else f"{found.type} "
    pattern = f"(n:{label})" if found.entity == "NODE" else f"()-[n:{label}]->()"
    on = f"n:{label}({', '.join(map(quoted, found.properties))})"
    if found.type == "POINT":
        where = f"n.{quoted(found.properties[0])} = point({{x: 1.0, y: 1.0}})"
    else:
        where = " AND ".join(
            f"n.{quoted(p)} = $values[{i}]" for i, p in enumerate(found.properties)
        )
    return f"MATCH {pattern} USING {kind}INDEX {on} WHERE {where} RETURN n LIMIT 1"


def _entity(found: SchemaObject) -> str:
    return "Nodes" if found.entity == "NODE" else "Relationships"


_CALLS = {
    "FULLTEXT": lambda found: (
        f"CALL db.index.fulltext.query{_entity(found)}($name, 'probe') YIELD score RETURN "
        "score LIMIT 1"
    ),
    "VECTOR": lambda found: (
        f"CALL db.index.vector.query{_entity(found)}($name, 1, $vector) YIELD score RETURN score"
    ),
}
