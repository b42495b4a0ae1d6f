"""Milvus, on both servers: what is created, what is left alone, what is refused."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pymilvus import DataType
from pymilvus.client.connection_manager import ConnectionManager
from pymilvus.exceptions import MilvusException
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from is_db_bootstrap.blueprint import Blueprint, Index
from is_db_bootstrap.blueprints import novel_genesis
from is_db_bootstrap.blueprints.novel_genesis import vectors
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.changes import CONTRACT_PROPERTY
from is_db_bootstrap.stores.milvus.errors import exists_already
from is_db_bootstrap.stores.milvus.schema import schema
from milvus_gateway import gateway
from servers import milvus_client

pytestmark = pytest.mark.milvus


def on(*servers):
    """Run a test on these servers only."""

    def mark(test):
        test.servers = servers
        return test

    return mark


def pytest_generate_tests(metafunc):
    if "milvus_url" in metafunc.fixturenames:
        metafunc.parametrize(
            "milvus_url", getattr(metafunc.function, "servers", ("lite", "2.3")), indirect=True
        )


def novel(**settings):
    """The blueprint's Milvus part for settings without their prefix: index, ttl_seconds,
    embedding_model.
    """
    names = {
        "index": "MILVUS_INDEX",
        "ttl_seconds": "MILVUS_TTL_SECONDS",
        "embedding_model": "EMBEDDING_MODEL",
    }
    values = {f"NOVEL_GENESIS_{names[k]}": v for k, v in settings.items()}
    return novel_genesis.BLUEPRINT.resolve(values)


def altered(**changes):
    return Blueprint(
        "novel_genesis", "altered", collections=(replace(vectors.collection(), **changes),)
    )


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


@pytest.fixture
def is_lite(client):
    return "lite-3" in client.get_server_version()


@pytest.fixture
def new(milvus_url):
    opened = []

    def open_one(blueprint=None, url=milvus_url, **timing):
        opened.append(MilvusBootstrapper(url, blueprint or novel(), timing=Timing(**timing)))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def run(store, mode=Mode.APPLY):
    return BootstrapOrchestrator([store]).run(mode).stores[0]


def everything(client):
    """All that a run may change, with the number of rows."""
    return {
        name: (
            client.describe_collection(name),
            [client.describe_index(name, index) for index in sorted(client.list_indexes(name))],
            sorted(client.list_aliases(name)["aliases"]),
            client.get_load_state(name),
        )
        for name in sorted(client.list_collections())
    }


def small(client, name, *, dim=8, alias="", rows=0, **schema_options):
    schema = client.create_schema(auto_id=True, **schema_options)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dim)
    client.create_collection(name, schema=schema)
    if rows:
        client.insert(name, [{"embedding": [float(i + 1)] * dim} for i in range(rows)])
        params = client.prepare_index_params("embedding", index_type="FLAT", metric_type="IP")
        client.create_index(name, params)
        client.load_collection(name)
    if alias:
        client.create_alias(name, alias)


def chapter(axis, **fields):
    """A row whose vector is the unit vector of `axis`."""
    vector = [0.0] * vectors.DIM
    vector[axis] = 1.0
    row = {
        "novel_id": "n-1",
        "chunk_id": f"c-{axis}",
        "content_type": "scene",
        "content": f"chunk {axis}",
    }
    return {**row, "embedding": vector, "metadata": {}, "created_at": 1, **fields}


def count(client, name):
    return client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[0][
        "count(*)"
    ]


# --- the blueprint, section 9 check 16


def test_ng_16_fields_indexes_alias_and_load_are_as_declared(client, new, is_lite):
    assert run(new()).outcome is Outcome.CHANGED
    found = client.describe_collection("novel_embeddings")  # through the alias
    assert found["collection_name"] == "novel_embeddings_v1"
    fields = {f["name"]: f for f in found["fields"]}
    assert [(name, f["type"].name) for name, f in fields.items()] == [
        ("id", "INT64"),
        ("novel_id", "VARCHAR"),
        ("chunk_id", "VARCHAR"),
        ("content_type", "VARCHAR"),
        ("content", "VARCHAR"),
        ("embedding", "FLOAT_VECTOR"),
        ("metadata", "JSON"),
        ("created_at", "INT64"),
    ]
    lengths = {
        name: f["params"].get("max_length", f["params"].get("dim"))
        for name, f in fields.items()
        if f["params"]
    }
    assert lengths == {
        "novel_id": 100,
        "chunk_id": 100,
        "content_type": 50,
        "content": 8192,
        "embedding": 768,
    }
    assert fields["id"]["is_primary"]
    assert found["auto_id"]
    assert [name for name, f in fields.items() if f.get("is_partition_key")] == ["novel_id"]
    assert not found["enable_dynamic_field"]
    assert found["num_shards"] == 1
    assert found["properties"]["embedding.model"] == "unspecified"
    assert "collection.ttl.seconds" not in found["properties"]
    vector, scalar = (
        client.describe_index("novel_embeddings_v1", name) for name in ("embedding", "content_type")
    )
    assert (vector["index_type"], vector["metric_type"]) == ("IVF_FLAT", "IP")
    assert scalar["index_type"] == ("INVERTED" if is_lite else "Trie")
    assert sorted(client.list_indexes("novel_embeddings_v1")) == ["content_type", "embedding"]
    assert client.get_load_state("novel_embeddings_v1")["state"].name == "Loaded"
    if not is_lite:
        assert vector["nlist"] == "128"
        assert found["num_partitions"] == 16
        assert found["consistency_level_name"] == "Bounded"
        assert (
            found["description"]
            == "Novel content embeddings [embedding_model=unspecified; dim=768]"
        )


def test_ng_16_a_row_inserted_before_a_second_run_is_still_there_after_it(client, new):
    run(new())
    client.insert("novel_embeddings", [chapter(0), chapter(1)])
    assert run(new()).outcome is Outcome.UNCHANGED
    assert count(client, "novel_embeddings") == 2


def test_ng_16_hnsw_cosine_gives_hnsw_with_cosine(client, new, is_lite):
    run(new(novel(index="hnsw_cosine")))
    found = client.describe_index("novel_embeddings_v1", "embedding")
    assert (found["index_type"], found["metric_type"]) == ("HNSW", "COSINE")
    if not is_lite:
        assert (found["M"], found["efConstruction"]) == ("32", "200")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            {},
            {"index": "hnsw_cosine"},
            ["index type is IVF_FLAT, declared HNSW", "metric is IP, declared COSINE"],
        ),
        (
            {"embedding_model": "bge-m3"},
            {"embedding_model": "e5"},
            ["embedding model is bge-m3, declared e5"],
        ),
    ],
    ids=["profile", "model"],
)
def test_ng_16_switching_a_setting_is_a_conflict_and_changes_nothing(
    client, new, first, second, words
):
    run(new(novel(**first)))
    before = everything(client)
    result = run(new(novel(**second)))
    assert isinstance(result.exception, StoreConflict)
    for each in [
        *words,
        "declare it as novel_embeddings_v2 with the same alias",
        "`is-db-bootstrap vector upgrade`",
    ]:
        assert each in str(result.exception)
    assert new(novel(**second)).verify()
    assert everything(client) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [({}, {"ttl_seconds": 60}), ({"ttl_seconds": 60}, {}), ({"ttl_seconds": 60},) * 2],
    ids=["lifetime", "no lifetime", "the same"],
)
def test_ng_16_a_lifetime_is_changed_in_place(client, new, first, second):
    run(new(novel(**first)))
    result = run(new(novel(**second)))
    changed = [] if first == second else ["novel_embeddings_v1.collection.ttl.seconds"]
    assert [change.name for change in result.changes] == changed
    properties = client.describe_collection("novel_embeddings_v1")["properties"]
    wanted = str(second.get("ttl_seconds", 0))
    assert properties.get("collection.ttl.seconds", "0") == wanted
    status = new(novel(**second)).status()
    assert status.recorded == status.head
    assert new(novel(**second)).verify() == []


def test_ng_16_an_alias_on_a_foreign_collection_is_a_conflict_and_changes_nothing(client, new):
    small(client, "somebody_elses", alias="novel_embeddings")
    before = everything(client)
    result = run(new())
    assert isinstance(result.exception, StoreConflict)
    assert "Alias novel_embeddings points to somebody_elses, declared novel_embeddings_v1" in str(
        result.exception
    )
    assert [d.actual for d in new().verify() if d.kind == "alias"] == ["somebody_elses"]
    assert everything(client) == before


@pytest.mark.parametrize("name", ["novel_embeddings_v2", "novel_embeddings_v10"])
def test_ng_16_an_alias_on_a_later_version_is_accepted_and_left_alone(client, new, name):
    small(client, name, alias="novel_embeddings")
    before = everything(client)
    result = run(new())
    assert result.outcome is Outcome.UNCHANGED
    assert any(f"points to {name}" in note for note in result.notes)
    assert new().verify() == []
    assert name in new().status().recorded
    assert everything(client) == before


def test_model_unspecified_goes_with_every_model(new):
    assert run(new(novel(embedding_model="bge-m3"))).outcome is Outcome.CHANGED
    assert run(new(novel(embedding_model="unspecified"))).outcome is Outcome.UNCHANGED


def test_a_model_is_accepted_where_none_was_recorded(new):
    run(new())
    assert run(new(novel(embedding_model="bge-m3"))).outcome is Outcome.UNCHANGED


def test_a_lifetime_is_set_at_creation(client, new):
    run(new(novel(ttl_seconds=3600)))
    assert (
        client.describe_collection("novel_embeddings_v1")["properties"]["collection.ttl.seconds"]
        == "3600"
    )
    assert run(new(novel(ttl_seconds=3600))).outcome is Outcome.UNCHANGED


@pytest.mark.parametrize("profile", list(vectors.PROFILES))
def test_a_search_with_the_profile_s_parameters_finds_the_nearest(client, new, profile):
    run(new(novel(index=profile)))
    client.insert("novel_embeddings", [chapter(axis) for axis in range(20)])
    asked = [0.0] * vectors.DIM
    asked[7], asked[8] = 0.8, 0.6
    hits = client.search(
        "novel_embeddings",
        [asked],
        limit=2,
        search_params=vectors.SEARCH_PARAMS[profile],
        output_fields=["chunk_id"],
        consistency_level="Strong",
    )[0]
    assert [hit["entity"]["chunk_id"] for hit in hits] == ["c-7", "c-8"]
    assert hits[0]["distance"] == pytest.approx(0.8, abs=1e-3)


# --- what is there and different


def test_rows_of_another_dimension_are_refused_and_kept(client, new):
    small(client, "novel_embeddings_v1", dim=512, rows=7)
    before = everything(client)
    result = run(new())
    assert isinstance(result.exception, StoreConflict)
    assert "novel_embeddings_v1.embedding: dim is 512, declared 768" in str(result.exception)
    assert "novel_embeddings_v1.novel_id" in str(result.exception)
    assert count(client, "novel_embeddings_v1") == 7
    assert everything(client) == before


def _with_field(field, **changes):
    return tuple(
        replace(f, **changes) if f.name == field else f for f in vectors.collection().fields
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fields": _with_field("embedding", dim=512)}, "embedding: dim is 768, declared 512"),
        (
            {"fields": _with_field("content", max_length=100)},
            "content: max_length is 8192, declared 100",
        ),
        (
            {"fields": _with_field("created_at", type="INT32")},
            "created_at: type is INT64, declared INT32",
        ),
        ({"fields": _with_field("id", auto_id=False)}, "id: auto id is on, declared off"),
        (
            {"fields": _with_field("novel_id", partition_key=False)},
            "novel_id: partition key is on, declared off",
        ),
        ({"fields": _with_field("id", primary=False)}, "id: primary key is on, declared off"),
        (
            {"fields": vectors.collection().fields[:-1]},
            "created_at: the field is INT64, declared none",
        ),
        (
            {"fields": _with_field("metadata", name="extra")},
            "extra: the field is missing, declared JSON",
        ),
        ({"dynamic": True}, "dynamic field is off, declared on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_attribute_is_compared(client, new, changes, words):
    run(new())
    before = everything(client)
    with pytest.raises(StoreConflict, match="nothing is ever dropped") as caught:
        new(altered(**changes)).plan()
    assert words in str(caught.value)
    assert any(words.split(": ")[-1] in d.message for d in new(altered(**changes)).verify())
    assert everything(client) == before


def test_build_parameters_are_compared_where_the_server_reports_them(new, is_lite):
    run(new())
    other = new(altered(indexes=(Index("embedding", "IVF_FLAT", "IP", {"nlist": 64}),)))
    if is_lite:
        assert other.plan().changes == ()
    else:
        with pytest.raises(StoreConflict, match="nlist is 128, declared 64"):
            other.plan()


def test_a_collection_in_the_place_of_the_alias_is_a_conflict(client, new):
    small(client, "novel_embeddings")
    with pytest.raises(StoreConflict, match="A collection has the name novel_embeddings"):
        new().plan()


def test_an_alias_in_the_place_of_the_collection_is_a_conflict(client, new):
    small(client, "somebody_elses", alias="novel_embeddings_v1")
    with pytest.raises(StoreConflict, match="name is somebody_elses"):
        new().plan()


def test_an_index_under_another_name_is_accepted(client, new):
    store = new()
    collection, *_ = store.plan().changes
    store.apply(collection)
    params = client.prepare_index_params(
        "embedding",
        index_type="IVF_FLAT",
        metric_type="IP",
        params={"nlist": 128},
        index_name="mine",
    )
    client.create_index("novel_embeddings_v1", params)
    assert [c.name for c in new().plan().changes if c.kind == "index"] == [
        "novel_embeddings_v1.content_type"
    ]
    assert run(new()).outcome is Outcome.CHANGED
    assert run(new()).outcome is Outcome.UNCHANGED


def test_other_collections_are_no_findings(client, new):
    small(client, "somebody_elses")
    assert run(new()).outcome is Outcome.CHANGED
    assert new().verify() == []
    assert "somebody_elses" in client.list_collections()


# --- changes


def test_a_plan_names_each_change(new):
    assert [(c.kind, c.name) for c in new().plan().changes] == [
        ("collection", "novel_embeddings_v1"),
        ("index", "novel_embeddings_v1.embedding"),
        ("index", "novel_embeddings_v1.content_type"),
        ("alias", "novel_embeddings"),
        ("load", "novel_embeddings_v1"),
    ]


@pytest.mark.parametrize("flushed", [True, False])
def test_a_dropped_index_of_a_collection_with_rows_is_built_again(client, new, flushed):
    run(new())
    client.insert("novel_embeddings", [chapter(axis) for axis in range(50)])
    if flushed:
        client.flush("novel_embeddings_v1")
    client.release_collection("novel_embeddings_v1")
    client.drop_index("novel_embeddings_v1", "embedding")
    result = run(new(index_timeout_s=30))
    assert "novel_embeddings_v1.embedding" in {c.name for c in result.changes}, (
        result
    )  # Lite has dropped the other one, too
    assert result.outcome is Outcome.CHANGED, result
    assert count(client, "novel_embeddings") == 50
    assert run(new()).outcome is Outcome.UNCHANGED


@on("lite")
def test_an_index_that_is_told_as_finished_is_awaited_until_no_row_is_left(new, milvus_url):
    """Its state may be `Finished` while rows are pending (milvus#40580)."""
    looks = []

    def pending(answer):
        told = milvus_pb2.DescribeIndexResponse.FromString(answer)
        looks.append(len(told.index_descriptions))
        for each in told.index_descriptions:
            each.state = common_pb2.IndexState.Finished
            each.pending_index_rows = 7
        return told.SerializeToString()

    with gateway(milvus_url, rewrites={"DescribeIndex": pending}) as url:
        result = run(new(url=url, index_timeout_s=1))
    assert "was not built within 1 s; 7 rows left" in result.error.message, result
    assert sum(looks) > 2
    assert run(new()).outcome is Outcome.CHANGED


def test_the_result_says_that_trie_stands_in_for_inverted(new, is_lite):
    said = [note for note in run(new()).notes if "Trie instead of INVERTED" in note]
    assert len(said) == (0 if is_lite else 1)


def test_a_created_collection_carries_its_contract(client, new):
    store = new()
    run(store)
    recorded = client.describe_collection("novel_embeddings_v1")["properties"][CONTRACT_PROPERTY]
    assert recorded.startswith("novel_genesis/")
    assert store.status().recorded == store.status().head == recorded


def test_two_runs_at_once_make_one_collection(client, new):
    stores = [new() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, stores))
    assert [r.error for r in results] == [None] * 4
    assert client.list_collections() == ["novel_embeddings_v1"]
    assert run(new()).outcome is Outcome.UNCHANGED


def test_the_loser_of_two_creates_at_once_is_told_that_the_name_is_taken(client, milvus_url):
    rivals = [milvus_client(milvus_url) for _ in range(4)]

    def create(rival, name):
        try:
            rival.create_collection(name, schema=schema(vectors.collection()))
        except MilvusException as exc:
            return exc
        return None

    lost = []
    with ThreadPoolExecutor(4) as pool:
        for n in range(3):
            lost += [exc for exc in pool.map(create, rivals, [f"raced_{n}"] * 4) if exc]
            client.drop_collection(f"raced_{n}")
    for rival in rivals:
        rival.close()
    assert [exc for exc in lost if not exists_already(exc)] == []


@on("2.3")
def test_a_load_that_takes_too_long_is_told_and_the_next_run_completes_it(new):
    *others, load = new().plan().changes
    store = new(index_timeout_s=0.3)
    for change in others:
        store.apply(change)
    with pytest.raises(StoreUnavailable, match=r"not loaded within 0\.3 s; it stands at \d+ %"):
        store.apply(load)
    assert [d.kind for d in new().verify()] == ["load"]
    assert run(new()).outcome in {Outcome.CHANGED, Outcome.UNCHANGED}
    assert new().verify() == []


@on("lite")
def test_a_server_that_was_restarted_gets_its_collection_loaded_again(make_server):
    server = make_server("milvus")
    run(MilvusBootstrapper(server.url, novel()))
    server.stop()
    server.start()
    result = run(MilvusBootstrapper(server.url, novel()))
    assert result.error is None
    assert [(c.kind, c.outcome) for c in result.changes] == [("load", Outcome.CHANGED)]


# --- connections


def test_the_server_is_told_by_version_and_edition(new, is_lite):
    info = new().ping(10)
    assert (info.version, info.edition) == (
        ("3.2.2", "lite") if is_lite else ("2.3.5-lite", "standalone")
    )


def test_a_missing_database_is_told(new, milvus_url):
    with pytest.raises(ConfigurationError, match="has no such database"):
        new(url=f"{milvus_url}/nowhere").ping(10)


def test_the_default_database_may_be_named(new, milvus_url):
    assert new(url=f"{milvus_url}/default").ping(10)


@on("lite")
@pytest.mark.parametrize("other", ["redis_url", "postgres_url"])
def test_another_store_at_the_address_is_told(request, new, other):
    address = request.getfixturevalue(other).split("@")[-1].removeprefix("redis://").split("/")[0]
    with pytest.raises(ConfigurationError, match=r"Redis|PostgreSQL"):
        new(url=f"http://{address}").ping(5)


@on("lite")
def test_a_silent_listener_is_unavailable_within_the_deadline(new):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            new(url=f"http://127.0.0.1:{silent.getsockname()[1]}").ping(2)
        assert time.monotonic() - began < 6


def test_tls_at_a_server_without_is_denied_or_unavailable_and_told(new, milvus_url):
    with pytest.raises(Exception, match="TLS") as caught:
        new(url=milvus_url.replace("http:", "https:")).ping(3)
    assert "without" in str(caught.value)
    assert "http://" in str(caught.value)


@on("lite")
def test_a_file_of_authorities_that_is_missing_is_told(milvus_url, tmp_path):
    from is_db_bootstrap.settings import StoreUrl

    url = replace(
        StoreUrl.parse("milvus", milvus_url.replace("http:", "https:")),
        ca_file=str(tmp_path / "none.pem"),
    )
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        MilvusBootstrapper(url, novel()).ping(3)


def test_a_refused_alias_is_not_logged_but_other_threads_are(new, client, caplog, capfd):
    store = new()
    store.ping(10)
    assert store.plan().changes
    assert caplog.records == []
    assert capfd.readouterr().err == ""

    def fail():
        with pytest.raises(MilvusException):
            client.describe_alias("nowhere")

    failing = threading.Thread(target=fail)
    with caplog.at_level(logging.ERROR, "pymilvus"):
        failing.start()
        failing.join()
    assert any("nowhere" in record.getMessage() for record in caplog.records)


def test_a_closed_store_lets_go_and_does_not_disturb_another(new):
    before = ConnectionManager.get_instance().get_stats()["total_connections"]
    first, second = new(), new()
    first.ping(10)
    second.ping(10)
    first.close()
    assert second.plan().changes
    second.close()
    assert ConnectionManager.get_instance().get_stats()["total_connections"] == before


def test_a_failed_ping_leaves_no_connection(new, milvus_url):
    before = ConnectionManager.get_instance().get_stats()["total_connections"]
    for url in (f"{milvus_url}/nowhere", "http://127.0.0.1:1"):
        with pytest.raises((ConfigurationError, StoreUnavailable)):
            new(url=url).ping(2)
    assert ConnectionManager.get_instance().get_stats()["total_connections"] == before


@on("lite")
def test_a_server_that_goes_away_between_two_steps_ends_the_run(make_server):
    server = make_server("milvus")
    store = MilvusBootstrapper(server.url, novel())
    first, second, *_ = store.plan().changes
    store.apply(first)
    server.kill()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.apply(second)
    store.close()


def test_after_a_cancel_nothing_is_asked_until_the_next_ping(client, new):
    store = new()
    change = store.plan().changes[0]
    store.cancel()
    with pytest.raises(StoreUnavailable, match="cancelled"):
        store.apply(change)
    assert client.list_collections() == []
    store.ping(10)
    store.apply(change)


def test_a_collection_that_was_dropped_behind_its_alias_is_made_again(client, new):
    run(new())
    try:
        client.drop_collection("novel_embeddings_v1")
    except MilvusException:  # newer servers refuse it
        client.drop_alias("novel_embeddings")
        client.drop_collection("novel_embeddings_v1")
    assert run(new()).outcome is Outcome.CHANGED
    assert new().verify() == []
    assert (
        client.describe_collection("novel_embeddings")["collection_name"] == "novel_embeddings_v1"
    )
