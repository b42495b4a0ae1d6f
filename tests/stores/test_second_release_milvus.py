"""The second release of collections: changed in place, beside, or refused with words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import milvus_client

pytestmark = pytest.mark.milvus

KEY = Field("id", "INT64", primary=True)
TEXT = Field("text", "VARCHAR", max_length=100)
KIND = Field("kind", "VARCHAR", max_length=20)
VECTOR = Field("v", "FLOAT_VECTOR", dim=4)
FIRST = Collection(
    "docs_v1",
    fields=(KEY, TEXT, KIND, VECTOR),
    indexes=(Index("v", "FLAT", "L2"),),
    alias="docs",
    model="small",
    ttl_seconds=86_400,
    properties={"mmap.enabled": True},
)


def run(store):
    return BootstrapOrchestrator([store]).run().store("milvus")


def with_fields(*fields):
    return replace(FIRST, fields=fields)


@pytest.fixture(params=["lite", "2.3"])
def milvus_url(request, farm):
    from servers import empty_milvus

    server = farm.shared("milvus", request.param)
    empty_milvus(server)
    return server.url


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


@pytest.fixture
def is_lite(client):
    return "lite-3" in client.get_server_version()


@pytest.fixture
def release(milvus_url):
    """Run a declaration; the first release is there already, with three rows."""
    opened = []

    def open_store(declared):
        blueprint = Blueprint("docs", "Documents.", collections=(declared,))
        store = MilvusBootstrapper(milvus_url, blueprint)
        opened.append(store)
        return store

    assert run(open_store(FIRST)).outcome is Outcome.CHANGED
    opened[0].version_keeper().server.client.insert(
        "docs_v1",
        [{"id": n, "text": f"text {n}", "kind": "a", "v": [n, 0, 0, 1]} for n in range(3)],
    )
    yield open_store
    for store in opened:
        store.close()


def rows_of(client, name="docs"):
    found = client.query(
        name, filter="id >= 0", output_fields=["id"], consistency_level="Strong", limit=100
    )
    return sorted(row["id"] for row in found)


@pytest.mark.parametrize(
    ("second", "changes"),
    [
        (replace(FIRST, ttl_seconds=60), ["property docs_v1.collection.ttl.seconds"]),
        (replace(FIRST, ttl_seconds=0), ["property docs_v1.collection.ttl.seconds"]),
        (
            replace(FIRST, ttl_seconds=0, properties={"collection.ttl.seconds": "86400"}),
            [],
        ),
        (replace(FIRST, properties={"mmap.enabled": "True"}), []),
        (
            replace(FIRST, properties={"mmap.enabled": False}),
            ["property docs_v1.mmap.enabled"],
        ),
        (
            replace(FIRST, properties={"mmap.enabled": True, "team.owner": "search"}),
            ["property docs_v1.team.owner"],
        ),
        (
            replace(FIRST, indexes=(*FIRST.indexes, Index("kind", "INVERTED"))),
            ["index docs_v1.kind"],
        ),
        (replace(FIRST, partition_names=("archive",)), ["partition docs_v1.archive"]),
        (replace(FIRST, alias="documents"), ["alias documents"]),
        (replace(FIRST, description="other words"), []),
        (replace(FIRST, model="unspecified"), []),
    ],
    ids=[
        "a shorter lifetime",
        "no lifetime",
        "the lifetime as a property",
        "True and the text of it",
        "mmap off",
        "a new property",
        "a new index",
        "a new partition",
        "another alias",
        "another description",
        "a model that is left open",
    ],
)
def test_what_a_server_can_change_in_place_is_changed_and_verified(
    client, release, second, changes
):
    planned = release(second).plan().changes
    assert [f"{change.kind} {change.name}" for change in planned] == changes
    assert [change.nature for change in planned] == ["repeatable"] * len(changes)
    assert [drift.kind for drift in release(second).verify()] == [c.kind for c in planned]
    result = run(release(second))
    assert result.error is None
    assert [change.outcome for change in result.changes] == [Outcome.CHANGED] * len(changes)
    assert release(second).verify() == []
    assert run(release(second)).outcome is Outcome.UNCHANGED
    assert rows_of(client, second.alias) == [0, 1, 2]


NEW_VERSION = (
    "declare it as docs_v2 with the same alias",
    "`is-db-bootstrap apply`",
    "`is-db-bootstrap vector upgrade`",
)


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (with_fields(KEY, TEXT, KIND, replace(VECTOR, dim=8)), ("dim is 4", *NEW_VERSION)),
        (replace(FIRST, model="large"), ("embedding model is small", *NEW_VERSION)),
        (
            with_fields(KEY, replace(TEXT, max_length=50), KIND, VECTOR),
            ("max_length is 100, declared 50", *NEW_VERSION),
        ),
        (with_fields(KEY, TEXT, VECTOR), ("docs_v1.kind: the field is VARCHAR", *NEW_VERSION)),
        (
            with_fields(KEY, TEXT, KIND, VECTOR, Field("lang", "VARCHAR", max_length=5)),
            ("docs_v1.lang: the field is missing", *NEW_VERSION),
        ),
        (
            with_fields(replace(KEY, type="VARCHAR", max_length=40), TEXT, KIND, VECTOR),
            ("docs_v1.id: type is INT64", *NEW_VERSION),
        ),
        (replace(FIRST, dynamic=True), ("dynamic field is off", *NEW_VERSION)),
        (
            replace(FIRST, indexes=(Index("v", "FLAT", "COSINE"),)),
            (
                "metric is L2, declared COSINE",
                "release_collection('docs_v1'), drop_index('docs_v1', 'v')",
            ),
        ),
    ],
    ids=[
        "another dimension",
        "another model",
        "a shorter text",
        "a field less",
        "a field more",
        "another key",
        "the dynamic field",
        "another metric",
    ],
)
def test_what_no_server_can_change_in_place_is_refused_with_what_to_type(
    client, release, second, words
):
    with pytest.raises(StoreConflict) as caught:
        release(second).plan()
    for each in words:
        assert each in f"{caught.value.message} {caught.value.hint}"
    assert release(second).verify()
    assert rows_of(client) == [0, 1, 2]


def test_a_new_nullable_field_is_told_with_the_release_that_adds_it_and_the_call(release, is_lite):
    lang = Field("lang", "VARCHAR", max_length=5, nullable=True)
    with pytest.raises(StoreConflict) as caught:
        release(with_fields(KEY, TEXT, KIND, VECTOR, lang)).plan()
    told = f"{caught.value.message} {caught.value.hint}"
    if not is_lite:
        assert "does not support nullable fields" in told
        return
    assert "cannot add a field in place. Milvus 2.6 or newer can" in told
    call = (
        "MilvusClient.add_collection_field('docs_v1', 'lang', DataType.VARCHAR, nullable=True, "
        "max_length=5)"
    )
    assert call in told


@pytest.mark.parametrize(
    ("second", "attribute"),
    [
        (replace(FIRST, consistency="Strong"), "consistency"),
        (replace(FIRST, shards=2), "shards"),
    ],
)
def test_what_a_release_misreports_is_said_and_elsewhere_compared(
    release, is_lite, second, attribute
):
    if is_lite:
        notes = release(second).plan().notes
        assert any(f"does not tell {attribute}; not compared" in note for note in notes)
        return
    with pytest.raises(StoreConflict, match=f"{attribute} is "):
        release(second).plan()


@pytest.mark.parametrize(
    ("kind", "shards", "consistency"),
    [("a", 1, "Bounded"), ("b", 2, "Strong"), ("c", 1, "Session")],
)
def test_what_was_just_made_is_equal_to_its_declaration(milvus_url, kind, shards, consistency):
    declared = Collection(
        f"made_{kind}_v1",
        fields=(
            KEY,
            replace(KIND, partition_key=True),
            Field("tags", "ARRAY", element_type="VARCHAR", max_length=9, max_capacity=4),
            Field("more", "JSON"),
            VECTOR,
        ),
        indexes=(Index("v", "HNSW", "COSINE", {"M": "8", "efConstruction": 64.0}),),
        alias=f"made_{kind}",
        shards=shards,
        partitions=5,
        consistency=consistency,
        dynamic=True,
        properties={"collection.ttl.seconds": "060", "mmap.enabled": "TRUE"},
    )
    store = MilvusBootstrapper(milvus_url, Blueprint("made", "Made.", collections=(declared,)))
    assert run(store).error is None
    assert store.verify() == []
    assert store.plan().changes == ()
    store.close()


@pytest.mark.parametrize("milvus_url", ["2.3"], indirect=True)
def test_an_index_that_a_server_refuses_is_refused_before_the_collection_exists(milvus_url, client):
    # Milvus Lite takes every parameter.
    index = Index("v", "IVF_PQ", "L2", {"nlist": 8, "m": 3})
    declared = replace(FIRST, indexes=(index,))
    store = MilvusBootstrapper(milvus_url, Blueprint("docs", "Docs.", collections=(declared,)))
    result = run(store)
    store.close()
    assert result.error.kind == "change_failed"
    assert client.list_collections() == []


def test_a_step_that_somebody_else_has_taken_is_told_as_found(milvus_url, release):
    late = release(replace(FIRST, alias="documents", partition_names=("archive",)))
    changes = late.plan().changes
    assert (
        run(release(replace(FIRST, alias="documents", partition_names=("archive",)))).error is None
    )
    told = [late.apply(change) for change in changes]
    assert [type(remark).__name__ for remark in told] == ["MadeByOther"] * len(changes)
    assert "already" in told[0]
