"""One thing is one thing: `1 collection`, and never `1 collections`."""

from __future__ import annotations

import ast
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import is_db_bootstrap
from is_db_bootstrap.render.keys import lifetimes_text, table_text
from is_db_bootstrap.render.vectors import pruned_text, upgraded_text, versions_text
from is_db_bootstrap.stores.description import counted as counted_kinds
from is_db_bootstrap.wording import counted, singular

SOURCE = Path(is_db_bootstrap.__file__).parent
#: What this tool counts.
NOUNS = (
    "keys|rows|collections|indexes|tables|columns|constraints|revisions|fields|channels|patterns|"
    "targets|changes|groups|migrations|components|partitions|triggers|labels|stores"
)
#: A noun for several right behind a number that is put into a text.
AFTER_NUMBER = re.compile(rf"^ (?:more )?(?:{NOUNS})\b(?!/)")
#: Numbers that are never one, and names that are no numbers, by what is put into the text.
NEVER_ONE = {
    "ROWS",
    "_ROWS",
    "GROUPS",
    "COUNTED",
    "BUDGET",
    "limit",
    "records",  # what a table does
    "len(wanted)",  # one is returned
    "self._taken",  # the number of a database
}


def texts_with_a_number():
    """Each place in the source where such a noun follows a value."""
    for path in SOURCE.rglob("*.py"):
        if path.is_relative_to(SOURCE / "blueprints"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.JoinedStr):
                continue
            for value, after in zip(node.values, node.values[1:], strict=False):
                text = str(after.value) if isinstance(after, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and AFTER_NUMBER.match(text):
                    yield f"{path.relative_to(SOURCE)}:{node.lineno}", ast.unparse(value.value)


def test_no_noun_for_several_stands_behind_a_number_that_may_be_one():
    found = [place for place in texts_with_a_number() if place[1] not in NEVER_ONE]
    assert not found, found


def test_the_search_finds_such_a_noun():
    assert AFTER_NUMBER.match(" keys were looked at")
    assert not AFTER_NUMBER.match(" key was looked at")


@dataclass
class Row:
    """A row of the table of keys."""

    name: str
    keys: int
    pattern: object = None
    types: Counter = field(default_factory=Counter)
    memory: int | None = None
    lifetimes: Counter = field(default_factory=Counter)
    faults: Counter = field(default_factory=Counter)


def outputs(number):
    """What is printed of so many keys, rows and columns."""
    table = SimpleNamespace(
        declared=[],
        undeclared=[Row("a", number)],
        lifetime_classes=(),
        notes=(),
        is_complete=False,
        looked_at=number,
        total=number,
        forbidden=number,
        broken=number,
    )
    yield table_text("b", "t", table, 0)
    mended = SimpleNamespace(
        done=Counter(a=0),
        passed={"a": Counter({"given a lifetime": number})},
        left=Counter(a=number),
    )
    for after in (None, mended):
        yield lifetimes_text("b", "t", {"a": number} if number else {}, {"a": 5}, after)
    version = SimpleNamespace(name="v", rows=number, is_declared=True, aliases=(), only_here=())
    versions = SimpleNamespace(alias="a", declared="v", versions=[version], target="v")
    yield versions_text([versions])
    yield pruned_text([version])
    done = SimpleNamespace(
        source="a",
        target="b",
        copied=number,
        present=number,
        sampled=number,
        differing=(),
        source_rows=number,
        target_rows=number,
        failures=(),
        failed=number,
        notes=(),
        was_there=False,
        is_moved=True,
        alias="c",
    )
    yield upgraded_text([done])
    yield counted_kinds(tables=number, key_patterns=number, indexes=number, properties=number)
    yield counted(number, "collection")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_what_is_printed_of_none_one_and_two_things(number):
    text = "\n".join(outputs(number))
    several = re.findall(rf"\b{number} (?:more |compared |key )?(?:{NOUNS})\b", text)
    one = re.findall(
        rf"\b{number} (?:more |compared )?(?:key(?! pattern)|row|collection|index|table)\b", text
    )
    assert bool(several) == (number != 1)
    assert bool(one) == (number == 1)


@pytest.mark.parametrize(
    ("several", "one"),
    [("indexes", "index"), ("properties", "property"), ("keys", "key"), ("tables", "table")],
)
def test_the_noun_for_one_is_made_of_that_for_several(several, one):
    assert singular(several) == one
