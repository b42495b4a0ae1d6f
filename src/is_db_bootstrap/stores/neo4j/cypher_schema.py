"""Constraints and indexes: as a Cypher statement declares them, and as a server shows them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from is_db_bootstrap.stores.neo4j.property_type import normal_option, normal_type

_NAME = r"(?:`(?:``|[^`])*`|[^\W\d]\w*)"
_NODE = rf"\( (?:{_NAME} )?: (?P<labels>{_NAME}(?: \| {_NAME})*) \)"
_RELATIONSHIP = (
    rf"\( \) (?:< )?- \[ (?:{_NAME} )?: (?P<types>{_NAME}(?: \| {_NAME})*) \] - (?:> )?\( \)"
)
_PROPERTIES = rf"(?P<properties>{_NAME} \. {_NAME}(?: , {_NAME} \. {_NAME})*)"
_PREFIX = rf"(?:(?P<name>{_NAME}) )??(?P<guarded>IF NOT EXISTS )?FOR (?:{_NODE}|{_RELATIONSHIP})"
_CONSTRAINT = re.compile(
    rf"CREATE(?: OR REPLACE)? CONSTRAINT {_PREFIX} REQUIRE (?:\( )?{_PROPERTIES}(?: \))? IS "
    r"(?:(?:NODE |RELATIONSHIP |REL )?(?P<unique>UNIQUE)"
    r"|(?:NODE |RELATIONSHIP |REL )?(?P<key>KEY)|(?P<exists>NOT NULL)"
    r"|(?:: :|TYPED) (?P<type>\S.*?))(?: OPTIONS (?P<options>.*))?",
    re.IGNORECASE,
)
_INDEX = re.compile(
    rf"CREATE(?: OR REPLACE)?(?: (?P<kind>RANGE|TEXT|POINT|FULLTEXT|VECTOR))? INDEX {_PREFIX} "
    rf"ON (?:EACH )?(?:[(\[] )?{_PROPERTIES}(?: [)\]])?(?: OPTIONS (?P<options>.*))?",
    re.IGNORECASE,
)
_LOOKUP = re.compile(
    rf"CREATE(?: OR REPLACE)? LOOKUP INDEX (?:(?P<name>{_NAME}) )??"
    r"(?P<guarded>IF NOT EXISTS )?FOR .* "
    r"ON (?:EACH )?(?P<function>labels|type) \( .* \)",
    re.IGNORECASE,
)
_DROP = re.compile(
    rf"DROP (?P<kind>CONSTRAINT|INDEX) (?P<name>{_NAME})(?P<guarded> IF EXISTS)?", re.IGNORECASE
)
#: How schema statements begin. Other statements need no longer look.
_MAY_DECLARE = re.compile(
    r"(?:CREATE|DROP) (?:OR REPLACE )?(?:\w+ )?(?:CONSTRAINT|INDEX)\b", re.IGNORECASE
)
_OPTION = re.compile(
    r"(`[^`]+`|'[^']+'|\"[^\"]+\"|[\w.]+(?: \. \w+)*) : "
    r"('[^']*'|\"[^\"]*\"|\[[^\]]*\]|(?:- )?[\w.]+(?: - \d+)?)"
)

#: The server's words differ by version: `UNIQUENESS` is `NODE_PROPERTY_UNIQUENESS` in Cypher 25
#: (neo4j-migrations 3.1.1).
_CONSTRAINT_TYPE = re.compile(
    r"(?:(?:NODE|RELATIONSHIP)_)?(?:PROPERTY_)?(?P<type>UNIQUENESS|KEY|EXISTENCE|TYPE)"
)
#: What the server makes itself in each database.
_LOOKUP_TYPE = "LOOKUP"


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """A constraint or an index.

    `type` is UNIQUENESS, KEY, EXISTENCE or TYPE of a constraint, RANGE, TEXT, POINT, FULLTEXT,
    VECTOR or LOOKUP of an index. `options` are only those that were declared, texts in upper case,
    since servers add defaults of their own. `name` is empty when the server is to choose one.
    `guarded` says that creating it twice is harmless (`IF NOT EXISTS`).
    """

    kind: Literal["constraint", "index"]
    name: str
    type: str
    entity: Literal["NODE", "RELATIONSHIP"]
    labels: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    property_type: str = ""
    options: tuple[tuple[str, str], ...] = ()
    guarded: bool = True

    @property
    def is_repeatable(self) -> bool:
        """Whether creating it again is harmless.

        It is, guarded or not: what is there as declared is passed over.
        """
        return True

    @property
    def schema(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What it is about, whatever it says of it."""
        return self.entity, self.labels, self.properties

    @property
    def definition(self) -> str:
        """The definition in words.

        Two objects of one definition are equivalent, apart from `options`.
        """
        labels = "|".join(self.labels)
        where = f"(:{labels})" if self.entity == "NODE" else f"()-[:{labels}]-()"
        typed = f" {self.property_type}" if self.property_type else ""
        return f"{self.type}{typed} {self.kind} on {where} ({', '.join(self.properties)})"

    def __str__(self) -> str:
        return f"{self.kind} {self.name or '(unnamed)'}"

    def matches(self, live: SchemaObject) -> bool:
        """Whether the live object is this one.

        It has the same definition, and each declared option has its value.
        """
        shown = dict(live.options)
        return self.definition == live.definition and all(
            shown.get(k, v) == v for k, v in self.options
        )


@dataclass(frozen=True, slots=True)
class Drop:
    """A statement that drops a constraint or an index by name."""

    kind: Literal["constraint", "index"]
    name: str
    guarded: bool

    @property
    def is_repeatable(self) -> bool:
        """Whether dropping it again is harmless: `IF EXISTS`."""
        return self.guarded


@dataclass(frozen=True, slots=True)
class LiveIndex:
    """The state of a live index: ONLINE, POPULATING or FAILED.

    It is its own, or that of the constraint behind which it stands.
    """

    name: str
    state: str
    failure: str
    owner: str | None


@dataclass(frozen=True, slots=True)
class LiveSchema:
    """What `SHOW CONSTRAINTS` and `SHOW INDEXES` said.

    Objects stand by their names, and so does the state of every index.
    """

    objects: Mapping[str, SchemaObject]
    indexes: Mapping[str, LiveIndex]

    @classmethod
    def read(
        cls, constraints: Iterable[Mapping[str, Any]], indexes: Iterable[Mapping[str, Any]]
    ) -> LiveSchema:
        """From the rows of the two statements.

        An index behind a constraint is no object of its own.
        """
        objects, states = {}, {}
        for row in constraints:
            objects[row["name"]] = _live(row, "constraint", _constraint_type(row["type"]))
        for row in indexes:
            owner = row["owningConstraint"]
            states[row["name"]] = LiveIndex(
                row["name"], row["state"], row["failureMessage"] or "", owner
            )
            if owner is None:
                objects[row["name"]] = _live(row, "index", row["type"])
        return cls(objects, states)

    def find(self, wanted: SchemaObject) -> SchemaObject | None:
        """The object of that name, else an equivalent one under another name."""
        named = self.objects.get(wanted.name)
        return named or next((o for o in self.objects.values() if wanted.matches(o)), None)


def _constraint_type(shown: str) -> str:
    found = _CONSTRAINT_TYPE.fullmatch(shown)
    return found["type"] if found else shown


def _live(row: Mapping[str, Any], kind: Literal["constraint", "index"], type_: str) -> SchemaObject:
    config = (row.get("options") or {}).get("indexConfig") or {}
    return SchemaObject(
        kind=kind,
        name=row["name"],
        type=type_,
        entity=row["entityType"],
        labels=tuple(sorted(row["labelsOrTypes"] or ())),
        properties=tuple(row["properties"] or ()),
        property_type=normal_type(row.get("propertyType") or ""),
        options=tuple(sorted((str(k), normal_option(v)) for k, v in config.items())),
    )


@lru_cache(maxsize=4096)
def recognise(tokens: str) -> SchemaObject | Drop | None:
    """What a statement declares, from its tokens with one space between two.

    None for what is no schema statement we know.
    """
    if not _MAY_DECLARE.match(tokens):
        return None
    drop = _DROP.fullmatch(tokens)
    if drop:
        kind: Literal["constraint", "index"] = (
            "constraint" if drop["kind"].upper() == "CONSTRAINT" else "index"
        )
        return Drop(kind, _plain(drop["name"]), bool(drop["guarded"]))
    constraint = _CONSTRAINT.fullmatch(tokens)
    if constraint:
        return _declared_constraint(constraint)
    index = _INDEX.fullmatch(tokens)
    if index:
        return _common(index, "index", (index["kind"] or "RANGE").upper())
    lookup = _LOOKUP.fullmatch(tokens)
    if lookup:
        entity: Literal["NODE", "RELATIONSHIP"] = (
            "NODE" if lookup["function"].lower() == "labels" else "RELATIONSHIP"
        )
        return SchemaObject(
            "index",
            _plain(lookup["name"] or ""),
            _LOOKUP_TYPE,
            entity,
            guarded=bool(lookup["guarded"]),
        )
    return None


def _declared_constraint(found: re.Match[str]) -> SchemaObject:
    type_ = (
        "UNIQUENESS"
        if found["unique"]
        else "KEY"
        if found["key"]
        else "EXISTENCE"
        if found["exists"]
        else "TYPE"
    )
    return replace(
        _common(found, "constraint", type_), property_type=normal_type(found["type"] or "")
    )


def _common(found: re.Match[str], kind: Literal["constraint", "index"], type_: str) -> SchemaObject:
    labels = found["labels"] or found["types"]
    properties = [part.split(" . ")[1] for part in found["properties"].split(" , ")]
    options = (
        (_plain(k).strip("'\"").replace(" . ", "."), normal_option(v))
        for k, v in _OPTION.findall(found["options"] or "")
    )
    return SchemaObject(
        kind=kind,
        name=_plain(found["name"] or ""),
        type=type_,
        entity="NODE" if found["labels"] else "RELATIONSHIP",
        labels=tuple(sorted(_plain(label) for label in labels.split(" | "))),
        properties=tuple(_plain(p) for p in properties),
        options=tuple(sorted(o for o in options if o[0] != "indexProvider")),
        guarded=bool(found["guarded"]) or "OR REPLACE" in found[0].upper(),
    )


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
