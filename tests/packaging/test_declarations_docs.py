"""The page of declarations has every field with its default."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from is_db_bootstrap import blueprint
from is_db_bootstrap.blueprint import declarations

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "declarations.md").read_text(
    encoding="utf-8"
)
CLASSES = [
    c
    for c in vars(blueprint).values()
    if dataclasses.is_dataclass(c) and c.__module__ == declarations.__name__
]


def test_there_are_classes_to_compare():
    assert blueprint.Blueprint in CLASSES


def fields_on_the_page(name):
    section = re.search(rf"^##+ {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|(.*?)\|", section, re.MULTILINE)
    return {
        field: default.strip().strip("`")
        for names, default in rows
        for field in re.findall(r"\w+", names)
    }


@pytest.mark.parametrize("declared", CLASSES, ids=lambda c: c.__name__)
def test_every_field_is_on_the_page_with_its_default(declared):
    expected = {}
    for field in dataclasses.fields(declared):
        default = (
            field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default
        )
        text = (
            ""
            if default is dataclasses.MISSING
            else repr(dict(default) if hasattr(default, "keys") else default)
        )
        expected[field.name] = text.replace("'", '"')
    shown = {name: text.strip() for name, text in fields_on_the_page(declared.__name__).items()}
    pool = blueprint.PoolProfile(5, 15)
    expected = {n: "PoolProfile(5, 15)" if t == repr(pool) else t for n, t in expected.items()}
    assert shown == expected
