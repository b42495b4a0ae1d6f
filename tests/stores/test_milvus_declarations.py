"""What Milvus 2.6 and 3 offer can be declared, is made and compared, and is refused in words where
a server cannot.
"""

from __future__ import annotations

import pytest

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Function, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.stores.milvus.abilities import check
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.schema import contract
from servers import milvus_client

pytestmark = pytest.mark.milvus
KEY = Field("id", "INT64", primary=True)
RICH = Collection(
    "rich_v1",
    (
        KEY,
        Field(
            "text",
            "VARCHAR",
            max_length=200,
            params={"enable_analyzer": True, "analyzer_params": {"type": "standard"}},
        ),
        Field("words", "SPARSE_FLOAT_VECTOR"),
        Field("meaning", "FLOAT_VECTOR", dim=8),
        Field("picture", "FLOAT_VECTOR", dim=4),
        Field("manual", "SPARSE_FLOAT_VECTOR"),
        Field("rank", "INT64", nullable=True),
        Field("kind", "VARCHAR", max_length=20, default="note"),
        Field("tags", "ARRAY", element_type="VARCHAR", max_capacity=4, max_length=10),
    ),
    (
        Index("words", "SPARSE_INVERTED_INDEX", "BM25", {"bm25_k1": 1.2, "bm25_b": 0.75}),
        Index("meaning", "HNSW", "COSINE", {"M": 8, "efConstruction": 32}),
        Index("picture", "AUTOINDEX", "L2"),
        Index("manual", "SPARSE_INVERTED_INDEX", "IP"),
        Index("kind", "INVERTED"),
    ),
    alias="rich",
    functions=(Function("bm25", "BM25", ("text",), ("words",)),),
    partition_names=("old", "new"),
    properties={"mmap.enabled": "true"},
)


def store(url, *collections):
    return MilvusBootstrapper(url, Blueprint("declared", "for tests", collections=collections))


@pytest.fixture
def client(milvus_url):
    client = milvus_client(milvus_url)
    yield client
    client.close()


def test_everything_that_lite_can_do_is_made_compared_and_tried(milvus_url, client):
    made = store(milvus_url, RICH)
    result = BootstrapOrchestrator([made]).run()
    assert result.exit_code == 0
    kinds = [c.kind for c in result.stores[0].changes]
    assert kinds == ["collection", "partition", "partition", *["index"] * 5, "alias", "load"]
    assert BootstrapOrchestrator([made]).run().outcome == "unchanged"
    assert {"old", "new"} <= set(client.list_partitions("rich_v1"))
    described = client.describe_collection("rich_v1")
    assert [f["name"] for f in described["functions"]] == ["bm25"]
    tried = list(made.selftest())
    assert [p for p in tried if not p.ok] == []
    assert sum("searched by" in p.name for p in tried) == 4
    assert client.list_collections() == ["rich_v1"]
    made.close()


def test_texts_are_found_by_their_words(milvus_url, client):
    made = store(milvus_url, RICH)
    BootstrapOrchestrator([made]).run().raise_for_failure()
    row = {
        "text": "the keeper of the light",
        "meaning": [0.1] * 8,
        "picture": [0.1] * 4,
        "manual": {1: 1.0},
        "tags": ["a"],
    }
    client.insert("rich", [row | {"id": 1}, row | {"id": 2, "text": "a boat at sea"}])
    found = client.search(
        "rich",
        ["boat"],
        anns_field="words",
        limit=1,
        output_fields=["kind", "rank"],
        consistency_level="Strong",
    )
    assert (
        found[0][0]["id"],
        found[0][0]["entity"]["kind"],
        found[0][0]["entity"].get("rank"),
    ) == (2, "note", None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda fields: [f if f.name != "rank" else Field("rank", "INT64") for f in fields],
            "rich_v1.rank: nullable is on, declared off",
        ),
        (
            lambda fields: [
                f if f.name != "kind" else Field("kind", "VARCHAR", max_length=20, default="other")
                for f in fields
            ],
            "default is 'note', declared 'other'",
        ),
        (
            lambda fields: [
                f
                if f.name != "tags"
                else Field("tags", "ARRAY", element_type="INT64", max_capacity=4)
                for f in fields
            ],
            "element type is VARCHAR, declared INT64",
        ),
        (
            lambda fields: [
                f if f.name != "picture" else Field("picture", "FLOAT_VECTOR", dim=5)
                for f in fields
            ],
            "dim is 4, declared 5",
        ),
    ],
)
def test_a_field_that_is_made_otherwise_is_a_conflict(milvus_url, change, words):
    from dataclasses import replace

    BootstrapOrchestrator([store(milvus_url, RICH)]).run().raise_for_failure()
    result = BootstrapOrchestrator(
        [store(milvus_url, replace(RICH, fields=tuple(change(RICH.fields))))]
    ).run()
    assert result.exit_code == 6
    assert words in result.stores[0].error.message


def test_a_missing_function_is_a_conflict(milvus_url):
    from dataclasses import replace

    plain = replace(RICH, functions=(), indexes=RICH.indexes[1:])
    BootstrapOrchestrator([store(milvus_url, plain)]).run().raise_for_failure()
    result = BootstrapOrchestrator([store(milvus_url, RICH)]).run()
    assert result.exit_code == 6
    assert "the function is missing, declared BM25" in result.stores[0].error.message


def test_a_missing_partition_is_planned_and_drift(milvus_url, client):
    made = store(milvus_url, RICH)
    BootstrapOrchestrator([made]).run().raise_for_failure()
    client.release_collection("rich_v1")
    client.drop_partition("rich_v1", "old")
    client.load_collection("rich_v1")
    assert [d.object for d in made.verify()] == ["rich_v1.old"]
    assert [c.name for c in made.plan().changes if c.kind == "partition"] == ["rich_v1.old"]
    assert BootstrapOrchestrator([made]).run().outcome == "changed"
    assert "old" in client.list_partitions("rich_v1")


REFUSED_BY_LITE = [
    (
        Field("v", "FLOAT16_VECTOR", dim=8),
        Index("v", "HNSW", "L2"),
        "the field type FLOAT16_VECTOR",
    ),
    (
        Field("v", "BFLOAT16_VECTOR", dim=8),
        Index("v", "FLAT", "L2"),
        "the field type BFLOAT16_VECTOR",
    ),
    (Field("v", "INT8_VECTOR", dim=8), Index("v", "HNSW", "COSINE"), "the field type INT8_VECTOR"),
    (
        Field("v", "BINARY_VECTOR", dim=8),
        Index("v", "BIN_FLAT", "HAMMING"),
        "the field type BINARY_VECTOR",
    ),
    (Field("f", "VARCHAR", max_length=9), Index("f", "BITMAP"), "the scalar index BITMAP"),
    (
        Field("f", "VARCHAR", max_length=9),
        Index("f", "NGRAM", params={"min_gram": 2, "max_gram": 3}),
        "the scalar index NGRAM",
    ),
    (Field("f", "INT64"), Index("f", "STL_SORT"), "the scalar index STL_SORT"),
    (
        Field("f", "JSON"),
        Index("f", "INVERTED", params={"json_path": "f['a']", "json_cast_type": "double"}),
        "an index on a JSON field",
    ),
]


@pytest.mark.parametrize(
    ("field", "index", "what"), REFUSED_BY_LITE, ids=[what for _, _, what in REFUSED_BY_LITE]
)
def test_what_lite_cannot_do_is_refused_before_anything_is_made(
    milvus_url, client, field, index, what
):
    fields = (
        (KEY, field) if "VECTOR" in field.type else (KEY, Field("w", "FLOAT_VECTOR", dim=4), field)
    )
    result = BootstrapOrchestrator([store(milvus_url, Collection("c_v1", fields, (index,)))]).run()
    assert result.exit_code == 6
    assert f"does not support {what}" in result.stores[0].error.message
    assert "c_v1." in result.stores[0].error.object
    assert client.list_collections() == []


@pytest.mark.parametrize("milvus_url", ["2.3"], indirect=True)
def test_what_an_old_server_cannot_do_is_refused_with_the_release_that_can(milvus_url, client):
    for field, index, release in (
        (Field("v", "SPARSE_FLOAT_VECTOR"), Index("v", "SPARSE_INVERTED_INDEX", "IP"), "2.4"),
        (Field("v", "INT8_VECTOR", dim=8), Index("v", "HNSW", "L2"), "2.6"),
        (Field("f", "INT64", nullable=True), Index("w", "FLAT", "L2"), "2.5"),
        (Field("f", "INT64", clustering_key=True), Index("w", "FLAT", "L2"), "2.4"),
    ):
        fields = (KEY, Field("w", "FLOAT_VECTOR", dim=4), field)
        result = BootstrapOrchestrator(
            [store(milvus_url, Collection("c_v1", fields, (index,)))]
        ).run()
        assert result.exit_code == 6
        assert f"It needs Milvus {release} or newer." in result.stores[0].error.hint
    assert client.list_collections() == []


@pytest.mark.parametrize("milvus_url", ["2.3"], indirect=True)
def test_partitions_binary_vectors_and_arrays_work_on_an_old_server_too(milvus_url, client):
    old = Collection(
        "old_v1",
        (
            KEY,
            Field("v", "BINARY_VECTOR", dim=64),
            Field("tags", "ARRAY", element_type="INT64", max_capacity=3),
        ),
        (Index("v", "BIN_IVF_FLAT", "JACCARD", {"nlist": 4}),),
        partition_names=("p",),
    )
    made = store(milvus_url, old)
    BootstrapOrchestrator([made]).run().raise_for_failure()
    assert BootstrapOrchestrator([made]).run().outcome == "unchanged"
    assert [p for p in made.selftest() if not p.ok] == []
    assert client.list_collections() == ["old_v1"]


def test_every_release_is_believed_when_it_is_not_known():
    check(Collection("c_v1", (KEY, Field("v", "INT8_VECTOR", dim=8))), (), "nightly", lite=False)
    with pytest.raises(StoreConflict):
        check(
            Collection("c_v1", (KEY, Field("v", "INT8_VECTOR", dim=8))), (2, 5), "2.5.4", lite=False
        )


def test_the_contract_of_an_older_declaration_stays_the_same():
    one = Collection(
        "c_v1", (KEY, Field("v", "FLOAT_VECTOR", dim=8)), (Index("v", "HNSW", "IP", {"M": 8}),)
    )
    key = (
        "Field(name='id', type='INT64', primary=True, auto_id=False, partition_key=False, "
        "dim=None, max_length=None)"
    )
    vector = (
        "Field(name='v', type='FLOAT_VECTOR', primary=False, auto_id=False, "
        "partition_key=False, dim=8, max_length=None)"
    )
    assert (
        contract(one) == f"('c_v1', ({key}, {vector}), [('v', 'HNSW', 'IP', [('M', 8)])], False, 0)"
    )
