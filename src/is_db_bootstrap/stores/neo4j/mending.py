"""The Cypher statements that bring a constraint or an index back to what a file declares.

A person runs them. This tool never drops what it did not make in the same run.
"""

from __future__ import annotations

import re

from is_db_bootstrap.stores.neo4j.cypher_schema import SchemaObject
from is_db_bootstrap.stores.neo4j.cypher_text import quoted
from is_db_bootstrap.wording import spelled

#: Seconds that the statement for an index that is still built waits.
_WAIT_S = 300
#: Options whose text means the same in capitals, in which a declaration is kept.
_ANY_CASE = {"vector.similarity_function"}
_NO_TEXT = re.compile(r"-?[\d.]+|TRUE|FALSE|\[[-\d., ]*\]")
_BY_TYPE = {"UNIQUENESS": "IS UNIQUE", "KEY": "IS KEY", "EXISTENCE": "IS NOT NULL"}

#: What to do where the options of an index are texts, whose capitals nobody remembers.
FROM_FILE = (
    "its options have texts, of which only the Cypher file has the right spelling: run the "
    "statement of that file"
)


def creation(thing: SchemaObject) -> str | None:
    """The statement that makes a constraint or an index.

    None when an option has a text, which a declaration keeps in capitals.
    """
    options = _options(thing)
    if options is None:
        return None
    name = f" {_written(thing.name)}" if thing.name else ""
    if thing.kind == "constraint":
        says = _BY_TYPE.get(thing.type) or f"IS :: {thing.property_type}"
        required = _listed(thing)
        return (
            f"CREATE CONSTRAINT{name} IF NOT EXISTS FOR {_pattern(thing)} "
            f"REQUIRE {required} {says}{options}"
        )
    if thing.type == "LOOKUP":
        return f"CREATE LOOKUP INDEX{name} IF NOT EXISTS {_lookup(thing)}"
    kind = "" if thing.type == "RANGE" else f"{thing.type} "
    on = f"EACH [{_properties(thing)}]" if thing.type == "FULLTEXT" else f"({_properties(thing)})"
    return f"CREATE {kind}INDEX{name} IF NOT EXISTS FOR {_pattern(thing)} ON {on}{options}"


def removal(live: SchemaObject) -> str:
    """The statement that drops what a server has."""
    return f"DROP {live.kind.upper()} {_written(live.name)}"


def waiting(name: str) -> str:
    """The statement that waits until an index is built."""
    literal = "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"CALL db.awaitIndex({literal}, {_WAIT_S})"


def _written(name: str) -> str:
    """A name in backticks, with Cypher's escapes for what nobody would see."""
    return spelled(quoted(name), lambda character: f"\\u{ord(character):04x}")


def _lookup(thing: SchemaObject) -> str:
    if thing.entity == "NODE":
        return "FOR (x) ON EACH labels(x)"
    return "FOR ()-[x]-() ON EACH type(x)"


def _pattern(thing: SchemaObject) -> str:
    labels = "|".join(map(_written, thing.labels))
    return f"(x:{labels})" if thing.entity == "NODE" else f"()-[x:{labels}]-()"


def _properties(thing: SchemaObject) -> str:
    return ", ".join(f"x.{_written(name)}" for name in thing.properties)


def _listed(thing: SchemaObject) -> str:
    """The properties of a constraint. Only keys and unique ones may have several."""
    may_be_several = thing.type in {"UNIQUENESS", "KEY"}
    return f"({_properties(thing)})" if may_be_several else _properties(thing)


def _options(thing: SchemaObject) -> str | None:
    parts = []
    for name, value in thing.options:
        is_text = _NO_TEXT.fullmatch(value) is None
        if is_text and name not in _ANY_CASE:
            return None
        written = f"'{value}'" if is_text else value.lower()
        parts.append(f"{_written(name)}: {written}")
    return f" OPTIONS {{indexConfig: {{{', '.join(parts)}}}}}" if parts else ""
