"""`vector`: nothing that is in the old version is left behind or dropped in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from pymilvus import DataType

from is_db_bootstrap import vector
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ChangeFailed, StoreConflict
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import empty_milvus, milvus_client

pytestmark = pytest.mark.milvus

KEY = Field("id", "INT64", primary=True)
VECTOR = Field("v", "FLOAT_VECTOR", dim=4)
SECOND = Collection(
    "raw_v2", fields=(KEY, VECTOR), indexes=(Index("v", "FLAT", "COSINE"),), alias="raw"
)
FIRST = replace(SECOND, name="raw_v1")


@pytest.fixture(params=["lite", "2.3"])
def milvus_url(request, farm):
    server = farm.shared("milvus", request.param)
    empty_milvus(server)
    return server.url


only_lite = pytest.mark.parametrize("milvus_url", ["lite"], indirect=True)


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


@pytest.fixture
def release(milvus_url):
    """Apply declarations, and return what became of them."""

    def apply(*declared):
        blueprint = Blueprint("raw", "Raw.", collections=declared)
        store = MilvusBootstrapper(milvus_url, blueprint)
        result = BootstrapOrchestrator([store]).run()
        store.close()
        result.raise_for_failure()
        return result

    return apply


@pytest.fixture
def place(milvus_url):
    """A blueprint of these collections, and its settings."""

    def make(*declared):
        blueprint = Blueprint("raw", "Raw.", collections=declared)
        return blueprint, Settings.load(blueprint, environ={"MILVUS_URL": milvus_url})

    return make


def row(number, **more):
    return {"id": number, "v": [1.0, 2.0, 3.0, number], **more}


def made_elsewhere(client, name="raw_v1", rows=50):
    """A collection as another tool makes it, without an alias."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=4)
    index = client.prepare_index_params()
    index.add_index("v", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema)
    client.create_index(name, index)
    client.load_collection(name)
    client.insert(name, [row(number) for number in range(rows)])


def rows_of(client, name="raw"):
    options = {"output_fields": ["*"], "limit": 4000, "consistency_level": "Strong"}
    return {each["id"]: dict(each) for each in client.query(name, filter="id >= 0", **options)}


def leads_to(client, alias="raw"):
    return client.describe_alias(alias)["collection_name"]


def test_a_missing_alias_is_made_for_the_rows_that_are_there(client, release, place):
    made_elsewhere(client)
    blueprint, settings = place(SECOND)
    store = MilvusBootstrapper(settings.need("milvus"), blueprint)
    [planned] = [each for each in store.plan().changes if each.kind == "alias"]
    assert planned.detail.startswith("leads to raw_v1, an earlier version of raw_v2")
    release(SECOND)
    assert leads_to(client) == "raw_v1"
    assert [(each.kind, each.is_awaited) for each in store.verify()] == [("alias", True)]
    [done] = vector.upgrade(blueprint, settings)
    assert (done.copied, done.is_moved, leads_to(client)) == (50, True, "raw_v2")
    assert len(rows_of(client)) == 50
    assert store.verify() == []
    store.close()


def test_an_alias_is_not_chosen_between_two_versions_with_rows(client, release):
    made_elsewhere(client)
    release(replace(SECOND, alias=""))
    client.insert("raw_v2", [row(1)])
    with pytest.raises(StoreConflict, match="raw_v2 has rows, and an earlier version raw_v1"):
        release(SECOND)
    client.create_alias("raw_v2", "other")
    release(SECOND)
    assert leads_to(client) == "raw_v2"


def test_a_version_with_more_rows_than_the_one_behind_the_alias_is_not_pruned(
    client, release, place
):
    release(SECOND)
    made_elsewhere(client)
    client.insert("raw_v2", [row(7, v=[9.0, 9.0, 9.0, 9.0]), row(1000)])
    blueprint, settings = place(SECOND)
    told = []
    assert vector.upgrade(blueprint, settings, on_note=told.append) == []
    assert any("`is-db-bootstrap vector upgrade raw --from raw_v1`" in note for note in told)
    for prune in (vector.prunable, lambda *each: vector.prune(*each, ["raw_v1"])):
        with pytest.raises(StoreConflict, match="raw_v1 is not dropped: it has 50 rows") as caught:
            prune(blueprint, settings)
        assert "--from raw_v1" in caught.value.hint
    assert client.has_collection("raw_v1")
    [done] = vector.upgrade(blueprint, settings, "raw", source="raw_v1")
    assert (done.copied, done.present, done.was_there, done.notes) == (49, 1, True, ())
    found = rows_of(client)
    assert len(found) == 51
    assert list(found[7]["v"]) == [9.0] * 4  # what applications wrote meanwhile stays
    client.release_collection("raw_v1")
    with pytest.raises(StoreConflict, match="raw_v1 is not loaded, so its rows cannot be counted"):
        vector.prunable(blueprint, settings)
    client.load_collection("raw_v1")
    assert vector.prune(blueprint, settings, ["raw_v1"]) == ["raw_v1"]
    with pytest.raises(StoreConflict, match="raw_v1 is no earlier version"):
        vector.upgrade(blueprint, settings, "raw", source="raw_v1")


TITLE = Field("title", "VARCHAR", max_length=50)
HEADLINE = Field("headline", "VARCHAR", max_length=50, nullable=True)


@only_lite
def test_a_nullable_field_of_another_type_is_refused_before_the_first_row(client, release, place):
    release(replace(FIRST, fields=(KEY, VECTOR, Field("score", "INT64"))))
    client.insert("raw_v1", [row(number, score=number) for number in range(5)])
    score = Field("score", "DOUBLE", nullable=True)
    declared = replace(SECOND, fields=(KEY, VECTOR, score))
    release(declared)
    with pytest.raises(StoreConflict, match="score is INT64 there and DOUBLE is declared"):
        vector.upgrade(*place(declared))
    silent = replace(declared, reembed=lambda rows: [{} for _ in rows])
    with pytest.raises(ChangeFailed, match="score is of another type there"):
        vector.upgrade(*place(silent))
    assert rows_of(client, "raw_v2") == {}
    made = replace(declared, reembed=lambda rows: [{"score": float(r["score"])} for r in rows])
    [done] = vector.upgrade(*place(made))
    assert done.is_moved
    assert [each["score"] for each in rows_of(client).values()] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_field_is_left_behind_only_when_it_is_named(client, release, place):
    release(replace(FIRST, fields=(KEY, VECTOR, TITLE)))
    client.insert("raw_v1", [row(number, title=f"t{number}") for number in range(5)])
    release(SECOND)
    with pytest.raises(StoreConflict, match="no field for these of raw_v1: title") as caught:
        vector.upgrade(*place(SECOND))
    assert "--drop-fields title" in caught.value.hint
    assert rows_of(client, "raw_v2") == {}
    [done] = vector.upgrade(*place(SECOND), drop_fields=frozenset({"title"}))
    assert (done.copied, done.is_moved) == (5, True)
    [old] = vector.prunable(*place(SECOND))
    assert old.only_here == ("title",)


@only_lite
def test_a_dynamic_value_is_copied_to_the_field_that_is_declared_for_it(client, release, place):
    release(replace(FIRST, dynamic=True))
    rows = [row(number, cat=f"c{number}", extra=number) for number in range(4)]
    client.insert("raw_v1", [*rows, row(4)])
    cat = Field("cat", "VARCHAR", max_length=20, nullable=True)
    declared = replace(SECOND, fields=(KEY, VECTOR, cat))
    release(declared)
    with pytest.raises(StoreConflict, match="no field for these of raw_v1: extra"):
        vector.upgrade(*place(declared))
    [done] = vector.upgrade(*place(declared), drop_fields=frozenset({"extra"}))
    assert (done.copied, done.failed, done.is_moved) == (5, 0, True)
    found = [each["cat"] for each in rows_of(client).values()]
    assert found == ["c0", "c1", "c2", "c3", None]


@only_lite
def test_a_dynamic_value_that_comes_meanwhile_is_not_left_behind_in_silence(client, release, place):
    release(replace(FIRST, dynamic=True))
    client.insert("raw_v1", [row(number) for number in range(4)])

    def disturbed(rows):
        if all(each["id"] < 50 for each in rows):
            client.upsert("raw_v1", [row(50, late="news")])
        return [{} for _ in rows]

    declared = replace(SECOND, reembed=disturbed)
    release(declared)
    [done] = vector.upgrade(*place(declared), batch=10)
    assert (done.copied, done.failed, done.is_moved) == (4, 1, False)
    assert [(each.key, each.reason) for each in done.failures] == [
        ("50", "there is no field for late")
    ]


def test_rows_of_a_partition_that_is_not_declared_are_not_merged(client, release, place):
    release(replace(FIRST, partition_names=("red", "blue", "empty")))
    client.insert("raw_v1", [row(number) for number in range(5)], partition_name="red")
    client.insert("raw_v1", [row(number) for number in range(10, 15)], partition_name="blue")
    declared = replace(SECOND, partition_names=("red",))
    release(declared)
    with pytest.raises(StoreConflict, match="does not declare: blue") as caught:
        vector.upgrade(*place(declared))
    assert "partition_names=('red', 'blue')" in caught.value.hint
    assert rows_of(client, "raw_v2") == {}
    both = replace(SECOND, partition_names=("red", "blue"))
    release(both)
    [done] = vector.upgrade(*place(both))
    assert (done.copied, done.is_moved) == (10, True)


DISK = Field("disk_quota_name", "VARCHAR", max_length=50)


def test_a_page_that_is_refused_in_whole_does_not_keep_other_rows_away(client, release, place):
    release(replace(FIRST, fields=(KEY, VECTOR, DISK)))
    rows = [row(n, disk_quota_name="x" * (5 + 5 * (n % 30 >= 10))) for n in range(30)]
    client.insert("raw_v1", rows)
    declared = replace(SECOND, fields=(KEY, VECTOR, replace(DISK, max_length=6)))
    release(declared)
    [done] = vector.upgrade(*place(declared), batch=10)
    assert (done.copied, done.failed, done.is_moved) == (10, 20, False)
    assert "length" in done.failures[0].reason
    client.delete("raw_v1", filter="id < 10")
    client.delete("raw_v2", filter="id < 10")
    with pytest.raises(ChangeFailed, match="refused all of 20 rows"):
        vector.upgrade(*place(declared), batch=10)
    client.upsert("raw_v1", [row(n, disk_quota_name="short") for n in range(20, 30)])
    [done] = vector.upgrade(*place(declared), batch=10)
    assert (done.copied, done.failed) == (10, 10)
    [done] = vector.upgrade(*place(declared), batch=10, move_anyway=True)
    assert done.is_moved


BLUEPRINT = """\
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index

FIELDS = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=4))
LONGER = (FIELDS[0], Field("v", "FLOAT_VECTOR", dim=8))
INDEXES = (Index("v", "FLAT", "COSINE"),)
BLUEPRINT = Blueprint("raw", "Raw.", collections=(
    Collection("one_v2", fields=FIELDS, indexes=INDEXES, alias="one"),
    Collection("two_v2", fields=LONGER, indexes=INDEXES, alias="two"),
    Collection("raw_v2", fields=FIELDS, indexes=INDEXES, alias="raw"),
))
"""


def command(url, folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *words, "-b", str(folder)],
        env={**os.environ, "MILVUS_URL": url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@only_lite
def test_a_collection_that_fails_hides_nothing_of_the_others(client, milvus_url, tmp_path):
    (tmp_path / "blueprint.py").write_text(BLUEPRINT, encoding="utf-8")
    for name in ("one_v1", "two_v1", "raw_v1"):
        made_elsewhere(client, name, rows=3)
    applied = command(milvus_url, tmp_path, "apply")
    assert applied.returncode == 0, applied.stderr
    done = command(milvus_url, tmp_path, "vector", "upgrade")
    assert done.returncode == 6
    assert "one_v1 to one_v2: 3 rows written" in done.stdout
    assert "raw_v1 to raw_v2: 3 rows written" in done.stdout
    assert "v is FLOAT_VECTOR[4] there and FLOAT_VECTOR[8] is declared" in done.stderr
    assert [leads_to(client, each) for each in ("one", "two", "raw")] == [
        "one_v2",
        "two_v1",
        "raw_v2",
    ]
    client.alter_alias("one_v2", "raw")
    shown = command(milvus_url, tmp_path, "vector", "status", "raw")
    assert "alias raw leads to one_v2, which is no version of raw_v2" in shown.stdout
    told = command(milvus_url, tmp_path, "vector", "status", "raw", "-o", "json")
    [raw] = json.loads(told.stdout)["collections"]
    assert raw["target"] == "one_v2"
