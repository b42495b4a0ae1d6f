"""Collections that pymilvus scripts have made, and that `adopt` takes over as they are."""

from __future__ import annotations

import pytest
from pymilvus import DataType

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.changes import CONTRACT_PROPERTY
from servers import milvus_client

pytestmark = pytest.mark.milvus
both = pytest.mark.parametrize("milvus_url", ["lite", "2.3"], indirect=True)

DOCS = Collection(
    "docs_v1",
    fields=(
        Field("id", "INT64", primary=True),
        Field("embedding", "FLOAT_VECTOR", dim=8),
    ),
    indexes=(Index("embedding", "FLAT", "IP"),),
    alias="docs",
)
BLUEPRINT = Blueprint("shop", "test", collections=(DOCS,))


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


@pytest.fixture
def run(milvus_url):
    def run_mode(mode=Mode.ADOPT, *, foresees=False, accepted=()):
        store = MilvusBootstrapper(milvus_url, BLUEPRINT, timing=Timing(connect_timeout_s=60))
        engine = BootstrapOrchestrator([store], blueprint="shop", accepted=accepted)
        return engine.run(mode, foresees=foresees)

    return run_mode


def make(client, *, index="FLAT", load=True, alias="docs", **properties):
    """The collection, as a script of pymilvus makes it, with two rows."""
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=8)
    client.create_collection(
        "docs_v1", schema=schema, consistency_level="Bounded", properties=properties
    )
    rows = [{"id": number, "embedding": [float(number + 1)] * 8} for number in range(2)]
    client.insert("docs_v1", rows)
    if index:
        params = client.prepare_index_params()
        params.add_index("embedding", index, "embedding", metric_type="IP")
        client.create_index("docs_v1", params)
    if load:
        client.load_collection("docs_v1")
    else:
        client.release_collection("docs_v1")
    if alias:
        client.create_alias("docs_v1", alias)


def everything(client):
    """All of the collection but our own property, with its rows."""
    found = dict(client.describe_collection("docs_v1"))
    properties = dict(found.pop("properties", None) or {})
    properties.pop(CONTRACT_PROPERTY, None)
    found.pop("update_timestamp", None)
    found.pop("update_timestamp_str", None)
    return (
        found,
        properties,
        [client.describe_index("docs_v1", index) for index in client.list_indexes("docs_v1")],
        client.list_aliases("docs_v1")["aliases"],
        client.get_load_state("docs_v1"),
    )


def rows(client):
    return client.query(
        "docs_v1", filter="id >= 0", output_fields=["*"], consistency_level="Strong"
    )


def objects(result):
    return [(drift.kind, drift.object) for drift in result.stores[0].drifts]


@both
def test_a_collection_of_a_script_is_marked_and_nothing_else_is_changed(client, run):
    make(client, **{"collection.ttl.seconds": 0, "team": "search"})
    before, stored = everything(client), rows(client)
    foreseen = run(foresees=True)
    assert foreseen.exit_code == 0, foreseen
    assert [(each.kind, each.name) for each in foreseen.stores[0].changes] == [
        ("record", "docs_v1")
    ]
    assert everything(client) == before
    result = run()
    assert result.exit_code == 0, result
    found = dict(client.describe_collection("docs_v1").get("properties") or {})
    assert found.get(CONTRACT_PROPERTY, "").startswith("shop/"), (found, result)
    assert everything(client) == before
    assert rows(client) == stored
    assert run(Mode.VERIFY).exit_code == 0
    assert run(Mode.APPLY).stores[0].changes == ()
    assert run().outcome is Outcome.UNCHANGED


ONLY_LITE = pytest.mark.parametrize("milvus_url", ["lite"], indirect=True)


@ONLY_LITE
def test_what_differs_is_told_and_cannot_be_accepted(client, run):
    make(client, index="HNSW", alias="", load=False)
    result = run()
    assert result.exit_code == 3
    assert objects(result) == [
        ("alias", "docs"),
        ("index", "docs_v1.embedding"),
        ("load", "docs_v1"),
    ]
    names = [drift.object for drift in result.stores[0].drifts]
    accepted = run(accepted=names)
    assert accepted.exit_code == 6
    assert "`apply`" in accepted.stores[0].error.hint
    assert CONTRACT_PROPERTY not in (client.describe_collection("docs_v1").get("properties") or {})


@ONLY_LITE
def test_a_collection_of_a_newer_release_is_left_to_that_release(client, run):
    """Its alias leads to a later version, and the declared one is there too."""
    make(client, alias="")
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=16)
    client.create_collection("docs_v2", schema=schema)
    client.create_alias("docs_v2", "docs")
    result = run()
    assert result.exit_code == 6
    error = result.stores[0].error
    assert "Alias docs leads to docs_v2, a later version of docs_v1" in error.message
    assert "the version of the blueprint that declares it" in error.hint
    assert CONTRACT_PROPERTY not in (client.describe_collection("docs_v1").get("properties") or {})
    assert run(Mode.PLAN).exit_code == 0  # a note there, because nothing is recorded


@ONLY_LITE
def test_a_milvus_without_the_collection_holds_nothing_to_adopt(client, run):
    assert run().exit_code == 6
    assert client.list_collections() == []
