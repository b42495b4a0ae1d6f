"""Defaults of Milvus fields: each is created once, is equal to itself ever after, and differs from
every other value.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.check import problems
from is_db_bootstrap.stores.milvus.schema import contract
from servers import milvus_client

pytestmark = pytest.mark.milvus

NOON = 1_767_355_445_000_006  # microseconds: 2026-01-02T12:04:05.000006Z
#: A field's name, its type with its options, its default, another default, and what a row without
#: it holds.
CASES = {
    "bool_false": (Field("", "BOOL", default=False), True, False),
    "bool_true": (Field("", "BOOL", default=True), False, True),
    "int8": (Field("", "INT8", default=-5), 5, -5),
    "int16": (Field("", "INT16", default=300), 301, 300),
    "int32_nullable": (Field("", "INT32", nullable=True, default=7), 0, 7),
    "int64_zero": (Field("", "INT64", default=0), 1, 0),
    "int64_large": (Field("", "INT64", default=2**63 - 1), 2**63 - 2, 2**63 - 1),
    "float_tenth": (Field("", "FLOAT", default=0.1), 0.2, pytest.approx(0.1)),
    "float_one": (Field("", "FLOAT", default=1), 2, 1.0),
    "float_large": (Field("", "FLOAT", default=1e10), 1e11, pytest.approx(1e10)),
    "double_tenth": (Field("", "DOUBLE", default=0.1), 0.10000000149011612, 0.1),
    "double_one": (Field("", "DOUBLE", default=1), 1.5, 1.0),
    "double_integer": (Field("", "DOUBLE", default=2**53 + 1), 1.5, float(2**53 + 1)),
    "text_empty": (Field("", "VARCHAR", max_length=8, default=""), "none", ""),
    "text": (Field("", "VARCHAR", max_length=8, default="Ä b"), "ä b", "Ä b"),
    "time_text": (
        Field("", "TIMESTAMPTZ", default="2026-01-02T13:04:05.000006+01:00"),
        NOON + 1,
        None,
    ),
    "time_datetime": (
        Field("", "TIMESTAMPTZ", default=datetime(2026, 1, 2, 12, 4, 5, 6, tzinfo=UTC)),
        "2026-01-02T12:04:05Z",
        None,
    ),
    "time_microseconds": (
        Field("", "TIMESTAMPTZ", default=NOON),
        datetime(2026, 1, 2, tzinfo=UTC),
        None,
    ),
    "shape": (Field("", "GEOMETRY", default="POINT (1 2)"), "POINT (2 1)", None),
}
KEY, VECTOR = Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=4)


def collection(**fields):
    """One collection with these fields; a name stands for the field of its case."""
    made = (replace(each, name=name) for name, each in fields.items())
    return Collection(
        "defaults_v1", (KEY, *made, VECTOR), (Index("v", "FLAT", "L2"),), alias="defaults"
    )


ALL = {name: field for name, (field, _, _) in CASES.items()}


def run(url, declared, mode=Mode.APPLY):
    store = MilvusBootstrapper(url, Blueprint("declared", "for tests", collections=(declared,)))
    try:
        return BootstrapOrchestrator([store]).run(mode)
    finally:
        store.close()


@pytest.fixture
def client(milvus_url):
    client = milvus_client(milvus_url)
    yield client
    client.close()


def test_every_default_is_made_once_and_equal_to_itself_ever_after(milvus_url, client):
    assert run(milvus_url, collection(**ALL)).outcome == "changed"
    assert run(milvus_url, collection(**ALL)).outcome == "unchanged"
    assert run(milvus_url, collection(**ALL), Mode.VERIFY).exit_code == 0
    client.insert("defaults", [{"id": 1, "v": [0.1] * 4}])
    row = client.query("defaults", ids=[1], output_fields=["*"], consistency_level="Strong")[0]
    held = {name: row[name] for name, (_, _, value) in CASES.items() if value is not None}
    assert held == {name: value for name, (_, _, value) in CASES.items() if value is not None}
    instants = {datetime.fromisoformat(row[name]) for name in CASES if name.startswith("time_")}
    assert instants == {datetime(2026, 1, 2, 12, 4, 5, 6, tzinfo=UTC)}


def test_every_other_default_is_a_conflict_and_so_is_none(milvus_url):
    run(milvus_url, collection(**ALL)).raise_for_failure()
    for name, (field, other, _) in CASES.items():
        for changed in (replace(field, default=other), replace(field, default=None)):
            result = run(milvus_url, collection(**ALL | {name: changed}))
            assert result.exit_code == 6, (name, changed.default)
            assert f"defaults_v1.{name}: default is" in result.stores[0].error.message


@pytest.mark.parametrize("name", ["bool_false", "int64_zero", "text_empty"])
def test_an_empty_default_is_not_the_absence_of_one(milvus_url, name):
    without = {name: replace(ALL[name], default=None)}
    run(milvus_url, collection(**without)).raise_for_failure()
    result = run(milvus_url, collection(**{name: ALL[name]}))
    assert result.exit_code == 6
    assert "default is none, declared" in result.stores[0].error.message
    assert contract(collection(**without)) != contract(collection(**{name: ALL[name]}))


def test_a_time_without_offset_is_meant_in_the_time_zone_of_the_collection(milvus_url):
    local = replace(
        collection(at=Field("", "TIMESTAMPTZ", default="2026-01-02T13:04:05")),
        properties={"timezone": "Europe/Vienna"},
    )
    assert run(milvus_url, local).outcome == "changed"
    assert run(milvus_url, local).outcome == "unchanged"
    assert run(milvus_url, replace(local, properties={"timezone": "Asia/Tokyo"})).exit_code == 6


@pytest.mark.parametrize(
    "field",
    [
        Field("x", "INT8", default=128),
        Field("x", "INT64", default=True),
        Field("x", "BOOL", default=1),
        Field("x", "FLOAT", default=1e39),
        Field("x", "DOUBLE", default=float("nan")),
        Field("x", "VARCHAR", max_length=3, default="Äbc"),
        Field("x", "VARCHAR", max_length=3, default=1),
        Field("x", "VARCHAR", max_length=9, default="a\ud800"),
        Field("x", "TIMESTAMPTZ", default="tomorrow"),
        Field("x", "TIMESTAMPTZ", default=1_764_415_000_000_000_000),
        Field("x", "TIMESTAMPTZ", default=datetime(2026, 1, 2)),  # noqa: DTZ001 - that is what is refused
        Field("x", "JSON", default={"a": 1}),
        Field("x", "ARRAY", element_type="INT64", max_capacity=3, default=[1]),
    ],
    ids=lambda field: ascii(f"{field.type} {field.default!r}"),
)
def test_a_default_that_no_server_keeps_is_refused_before_anything_is_made(
    milvus_url, client, field
):
    store = MilvusBootstrapper(
        milvus_url, Blueprint("b", "", collections=(Collection("c_v1", (KEY, field, VECTOR)),))
    )
    with pytest.raises(ConfigurationError, match=r"c_v1\.x: the default"):
        store.plan()
    store.close()
    assert client.list_collections() == []


def test_a_time_zone_that_is_none_is_refused():
    wrong = replace(collection(at=ALL["time_text"]), properties={"timezone": "Nowhere/X"})
    found = list(problems(Blueprint("b", "", collections=(wrong,))))
    told = "the property 'timezone' is 'Nowhere/X', which is no time zone here"
    assert found == [f"collections[0] {wrong.name!r}: {told}"]


@pytest.mark.parametrize("milvus_url", ["2.3"], indirect=True)
def test_an_old_server_is_said_to_keep_no_defaults_before_anything_is_made(milvus_url, client):
    for name, field in ALL.items():
        result = run(milvus_url, collection(**{name: field}))
        assert result.exit_code == 6
        assert (
            f"defaults_v1.{name}: Milvus 2.3.5-lite does not support"
            in result.stores[0].error.message
        )
    assert client.list_collections() == []
