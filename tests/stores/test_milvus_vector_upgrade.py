"""`vector`: rows are copied or embedded again, nothing is lost, and the alias moves in one step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from is_db_bootstrap import app, vector
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.errors import ChangeFailed, LockTimeout, StoreConflict
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import empty_milvus, milvus_client

pytestmark = pytest.mark.milvus

TEXT = Field("text", "VARCHAR", max_length=100)
FIRST = Collection(
    "docs_v1",
    fields=(
        Field("id", "VARCHAR", primary=True, max_length=40),
        TEXT,
        Field("v", "FLOAT_VECTOR", dim=4),
    ),
    indexes=(Index("v", "FLAT", "L2"),),
    alias="docs",
)
#: Keys that have to be written with care in a filter, in no order.
KEYS = [f'k"{number * 7 % 30:02}\\é' for number in range(30)]


def embed(rows):
    return [{"v": [float(len(row["text"]))] * 8} for row in rows]


SECOND = replace(
    FIRST,
    name="docs_v2",
    fields=(*FIRST.fields[:2], Field("v", "FLOAT_VECTOR", dim=8)),
    reembed=embed,
)
COPIED = replace(FIRST, name="docs_v2", indexes=(Index("v", "FLAT", "COSINE"),))


@pytest.fixture(params=["lite", "2.3"])
def milvus_url(request, farm):
    server = farm.shared("milvus", request.param)
    empty_milvus(server)
    return server.url


@pytest.fixture
def client(milvus_url):
    plain = milvus_client(milvus_url)
    yield plain
    plain.close()


def blueprint_of(declared):
    return Blueprint("docs", "Documents.", collections=(declared,))


def settings_of(url, declared):
    return Settings.load(blueprint_of(declared), environ={"MILVUS_URL": url})


@pytest.fixture
def release(milvus_url, client):
    """Apply a declaration. The first one is there, with thirty rows."""

    def apply(declared):
        store = MilvusBootstrapper(milvus_url, blueprint_of(declared))
        result = BootstrapOrchestrator([store]).run()
        store.close()
        result.raise_for_failure()
        return result.store("milvus")

    apply(FIRST)
    client.insert("docs_v1", [row(key) for key in KEYS])
    return apply


def row(key, text="some text"):
    return {"id": key, "text": text, "v": [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture
def upgrade(milvus_url):
    def call(declared, **options):
        settings = settings_of(milvus_url, declared)
        [done] = vector.upgrade(blueprint_of(declared), settings, batch=10, **options)
        return done

    return call


def texts(client, name="docs"):
    found = client.query(
        name, filter="", output_fields=["id", "text"], consistency_level="Strong", limit=1000
    )
    return {each["id"]: each["text"] for each in found}


def leads_to(client):
    return client.describe_alias("docs")["collection_name"]


@pytest.mark.parametrize("declared", [SECOND, COPIED], ids=["embedded again", "copied"])
def test_every_row_is_in_the_new_version_and_the_alias_leads_there(
    client, release, upgrade, milvus_url, declared
):
    told = release(declared)
    assert leads_to(client) == "docs_v1"
    assert any("`is-db-bootstrap vector upgrade`" in note for note in told.notes)
    store = MilvusBootstrapper(milvus_url, blueprint_of(declared))
    assert [(drift.kind, drift.actual) for drift in store.verify()] == [("alias", "docs_v1")]
    follower = BootstrapOrchestrator([store], lock=LockPolicy(follow=True))
    codes = [follower.run().exit_code, BootstrapOrchestrator([store]).run(Mode.VERIFY).exit_code]
    assert codes == [3, 3]
    assert BootstrapOrchestrator([store]).run().exit_code == 0
    seen = []
    done = upgrade(declared, on_progress=seen.append)
    assert (done.copied, done.present, done.failed, done.is_moved) == (30, 0, 0, True)
    assert (done.source_rows, done.target_rows, done.sampled, done.differing) == (30, 30, 30, ())
    assert (seen[-1].done, seen[-1].total) == (30, 30)
    assert leads_to(client) == "docs_v2"
    assert texts(client) == dict.fromkeys(KEYS, "some text")
    assert store.verify() == []
    assert store.plan().changes == ()
    store.close()
    settings = settings_of(milvus_url, declared)
    assert vector.upgrade(blueprint_of(declared), settings) == []


def test_an_alias_that_moves_by_hand_is_no_drift(release, milvus_url):
    declared = replace(SECOND, alias_moves="by hand")
    release(declared)
    store = MilvusBootstrapper(milvus_url, blueprint_of(declared))
    assert store.verify() == []
    assert any("declared to move by hand" in note for note in store.plan().notes)
    store.close()


def broken(rows):
    raise ValueError("no model")


@pytest.mark.parametrize(
    ("reembed", "words"),
    [
        (lambda rows: [{"v": [1.0] * 5} for _ in rows], "v has 5 components, declared 8"),
        (lambda rows: [{"v": [float("nan")] * 8} for _ in rows], "is not finite"),
        (lambda rows: [{} for _ in rows], "there is no value for v"),
        (lambda _: [], "0 rows returned for 1"),
        (broken, "ValueError: no model"),
    ],
    ids=["dimension", "NaN", "nothing", "too few", "an exception"],
)
def test_a_function_that_makes_no_row_at_all_is_told_before_more_is_read(
    client, release, upgrade, reembed, words
):
    declared = replace(SECOND, reembed=reembed)
    release(declared)
    with pytest.raises(ChangeFailed) as caught:
        upgrade(declared)
    assert "Not one of the first 10 rows" in str(caught.value)
    assert words in str(caught.value)
    assert leads_to(client) == "docs_v1"
    assert texts(client, "docs_v2") == {}


def test_rows_that_fail_are_named_and_counted_and_made_by_the_next_call(client, release, upgrade):
    bad = {KEYS[3]: "NaN", KEYS[8]: "raise", KEYS[15]: "short"}

    def picky(rows):
        if any(bad.get(each["id"]) == "raise" for each in rows):
            raise RuntimeError("this row")
        sizes = {"short": [1.0], "NaN": [float("inf")] * 8}
        return [{"v": sizes.get(bad.get(each["id"]), [1.0] * 8)} for each in rows]

    declared = replace(SECOND, reembed=picky)
    release(declared)
    done = upgrade(declared)
    assert (done.copied, done.failed, done.is_moved) == (27, 3, False)
    assert {row.key for row in done.failures} == set(bad)
    assert "3 rows could not be written." in done.notes
    assert leads_to(client) == "docs_v1"
    again = upgrade(declared)
    assert (again.copied, again.present, again.failed, again.is_moved) == (0, 27, 3, False)
    bad.clear()
    done = upgrade(declared)
    assert (done.copied, done.present, done.failed, done.is_moved) == (3, 27, 0, True)


def test_rows_that_the_server_refuses_are_named(client, release, upgrade):
    client.insert("docs_v1", [row("long", "x" * 90)])
    declared = replace(
        COPIED, fields=(FIRST.fields[0], replace(TEXT, max_length=50), COPIED.fields[2])
    )
    release(declared)
    done = upgrade(declared)
    assert (done.copied, done.failed, done.is_moved) == (30, 1, False)
    assert [each.key for each in done.failures] == ["long"]
    assert upgrade(declared, move_anyway=True).is_moved


def test_rows_of_every_shape_are_copied_into_their_partitions(client, release, upgrade, milvus_url):
    is_lite = "lite-3" in client.get_server_version()
    other = ([] if is_lite else [Field("bits", "BINARY_VECTOR", dim=16)])[:1]
    shapes = Collection(
        "shapes_v1",
        fields=(
            Field("id", "INT64", primary=True),
            Field("tags", "ARRAY", element_type="VARCHAR", max_length=9, max_capacity=4),
            Field("more", "JSON"),
            Field("small", "INT8"),
            Field("v", "FLOAT_VECTOR", dim=4),
        ),
        indexes=(Index("v", "FLAT", "L2"),),
        alias="shapes",
        dynamic=True,
        partition_names=("archive",),
    )
    if other:  # one vector field a collection before 2.4
        fields = (*shapes.fields[:-1], replace(other[0], name="v"))
        shapes = replace(shapes, fields=fields, indexes=(Index("v", "BIN_FLAT", "HAMMING"),))
    release(shapes)
    vector_of = {True: b"\x01\x02", False: [1.0, 2.0, 3.0, 4.0]}[bool(other)]
    for number, partition in enumerate(["archive", "_default"]):
        rows = [
            {
                "id": number * 100 + each - 5,
                "tags": ["a", "b"],
                "more": {"deep": [1, {"x": None}]},
                "small": -3,
                "v": vector_of,
                "free": f"dynamic {each}",
            }
            for each in range(15)
        ]
        client.insert("shapes_v1", rows, partition_name=partition)
    wider = [
        replace(each, type="INT32") if each.name == "small" else each for each in shapes.fields
    ]
    second = replace(shapes, name="shapes_v2", fields=tuple(wider))
    release(second)
    done = upgrade(second)
    assert (done.copied, done.failed, done.differing, done.is_moved) == (30, 0, (), True)
    for partition in ("archive", "_default"):
        read = [
            client.query(
                name,
                filter="",
                output_fields=["*"],
                partition_names=[partition],
                consistency_level="Strong",
                limit=100,
            )
            for name in ("shapes_v1", "shapes_v2")
        ]
        before, after = (sorted(map(dict, rows), key=lambda each: each["id"]) for rows in read)
        assert len(after) == 15
        assert after == before


def test_rows_under_keys_of_the_server_are_copied_once_and_not_compared(client, release, upgrade):
    fields = (Field("id", "INT64", primary=True, auto_id=True), *FIRST.fields[1:])
    first = replace(FIRST, name="logs_v1", fields=fields, alias="logs")
    release(first)
    client.insert("logs_v1", [{"text": f"line {n}", "v": [n, 0, 0, 1]} for n in range(25)])
    second = replace(first, name="logs_v2")
    release(second)
    done = upgrade(second)
    assert (done.copied, done.target_rows, done.sampled, done.is_moved) == (25, 25, 0, True)
    client.alter_alias("logs_v1", "logs")
    with pytest.raises(StoreConflict, match="makes its own keys and has rows already"):
        upgrade(second)
    assert (
        len(client.query("logs_v2", filter="id > 0", limit=100, consistency_level="Strong")) == 25
    )


def test_rows_that_cannot_be_copied_are_refused_with_what_to_declare(client, release, upgrade):
    declared = replace(SECOND, reembed=None)
    release(declared)
    with pytest.raises(StoreConflict) as caught:
        upgrade(declared)
    assert "v is FLOAT_VECTOR[4] there and FLOAT_VECTOR[8] is declared" in str(caught.value)
    assert "reembed=" in caught.value.hint
    assert leads_to(client) == "docs_v1"


def test_vectors_of_another_model_are_not_copied(release, upgrade):
    declared = replace(COPIED, model="large")
    old = replace(FIRST, model="small")
    release(old)  # a model that was not recorded fits every one
    release(declared)
    done = upgrade(declared)
    assert done.is_moved
    third = replace(COPIED, name="docs_v3", model="huge")
    release(third)
    with pytest.raises(StoreConflict, match="its vectors are of the model large, and huge is"):
        upgrade(third)


def test_rows_that_come_change_or_go_meanwhile_are_copied_or_told(client, release, upgrade):
    calls = []

    def disturbed(rows):
        calls.append(len(rows))
        if len(calls) == 2:
            client.insert("docs_v1", [row("a new one")])
        return embed(rows)

    declared = replace(SECOND, reembed=disturbed)
    release(declared)
    done = upgrade(declared)
    assert (done.copied, done.source_rows, done.target_rows, done.is_moved) == (31, 31, 31, True)
    rolled = vector.rollback(blueprint_of(declared), settings_of(_url(client), declared))
    assert [(each.source, each.target) for each in rolled] == [("docs_v2", "docs_v1")]
    client.upsert("docs_v1", [row(KEYS[0], "another text")])
    client.delete("docs_v1", filter=f"id == {json.dumps(KEYS[1], ensure_ascii=False)}")
    done = upgrade(declared)
    assert (done.copied, done.present, done.is_moved) == (1, 29, False)
    assert "docs_v2 has 1 row that docs_v1 does not have" in done.notes[0]
    assert texts(client, "docs_v2")[KEYS[0]] == "another text"
    assert KEYS[1] in texts(client, "docs_v2")
    assert leads_to(client) == "docs_v1"


def _url(client):
    return client._config.uri


def test_a_second_pass_writes_the_rows_that_fit_a_filter_again(client, release, upgrade):
    release(SECOND)
    assert not upgrade(SECOND, keep_alias=True).is_moved
    client.upsert("docs_v1", [row(KEYS[0], "changed"), row(KEYS[1], "changed")])
    done = upgrade(SECOND, where='text == "changed"')
    assert (done.copied, done.is_moved) == (2, True)
    assert [texts(client)[key] for key in KEYS[:2]] == ["changed"] * 2


def test_an_alias_that_somebody_moves_meanwhile_is_left_there(client, release, upgrade):
    release(COPIED)
    client.create_collection("docs_v0", dimension=4)

    def moved(rows):
        client.alter_alias("docs_v0", "docs")
        return [{} for _ in rows]

    with pytest.raises(StoreConflict, match="somebody has moved it"):
        upgrade(replace(COPIED, reembed=moved))
    assert leads_to(client) == "docs_v0"
    assert len(texts(client, "docs_v2")) == 30


@pytest.mark.parametrize("milvus_url", ["lite"], indirect=True)
def test_the_lock_of_postgresql_keeps_a_second_command_away(
    client, release, milvus_url, migrated, tmp_path
):
    release(COPIED)
    (tmp_path / "versions").mkdir()
    blueprint = replace(blueprint_of(COPIED), migrations=tmp_path)
    environ = {"MILVUS_URL": milvus_url, "POSTGRES_URL": migrated("novel_genesis")}
    settings = Settings.load(blueprint, environ=environ)
    other = app.bootstrapper("postgres", settings.need("postgres"), blueprint, settings)
    lock = other.try_lock("another run")
    notes = []
    with pytest.raises(LockTimeout, match="another run"):
        vector.upgrade(blueprint, settings, on_note=notes.append)
    assert leads_to(client) == "docs_v1"
    lock.release()
    other.close()
    [done] = vector.upgrade(blueprint, settings, on_note=notes.append)
    assert done.is_moved
    assert notes == []


KILLED = """\
import os, pathlib, time
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index

CALLS = []


def embed(rows):
    CALLS.append(len(rows))
    waits = pathlib.Path(__file__).with_name("waits")
    if len(CALLS) == 3 and waits.exists():
        print("third page", flush=True)
        time.sleep(600)
    return [{"v": [1.0] * 8} for _ in rows]


BLUEPRINT = Blueprint("docs", "Documents.", collections=(Collection(
    "docs_v2",
    fields=(
        Field("id", "VARCHAR", primary=True, max_length=40),
        Field("text", "VARCHAR", max_length=100),
        Field("v", "FLOAT_VECTOR", dim=8),
    ),
    indexes=(Index("v", "FLAT", "L2"),),
    alias="docs",
    reembed=embed,
),))
"""


def command(url, folder, *words, **options):
    called = [sys.executable, "-m", "is_db_bootstrap", "vector", *words, "-b", str(folder)]
    environment = {**os.environ, "MILVUS_URL": url}
    return subprocess.run(
        called,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
        **options,
    )


def test_a_killed_command_goes_on_where_it_ended_and_old_versions_are_pruned_when_asked(
    client, release, milvus_url, tmp_path
):
    release(SECOND)
    (tmp_path / "blueprint.py").write_text(KILLED, encoding="utf-8")
    waits = Path(tmp_path / "waits")
    waits.touch()
    words = ["vector", "upgrade", "--batch", "10", "-b", str(tmp_path), "--milvus-url", milvus_url]
    with subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        told = next(line for line in running.stderr if "third page" in line)
        running.send_signal(signal.SIGKILL)
    assert told
    assert len(texts(client, "docs_v2")) == 20
    waits.unlink()
    done = command(milvus_url, tmp_path, "upgrade", "--batch", "10", "-o", "json")
    assert done.returncode == 0, done.stderr
    [upgraded] = json.loads(done.stdout)["upgraded"]
    assert (upgraded["copied"], upgraded["present"], upgraded["is_moved"]) == (10, 20, True)
    assert "docs_v2: 30 of 30 rows" in done.stderr
    assert "No store can lend a lock" in done.stderr

    shown = command(milvus_url, tmp_path, "status", "-o", "json")
    [docs] = json.loads(shown.stdout)["collections"]
    assert [(each["name"], each["rows"]) for each in docs["versions"]] == [
        ("docs_v1", 30),
        ("docs_v2", 30),
    ]
    assert docs["target"] == "docs_v2"
    asked = command(milvus_url, tmp_path, "prune")
    assert asked.returncode == 2
    assert "This drops docs_v1 (30 rows)" in asked.stderr
    assert client.has_collection("docs_v1")
    pruned = command(milvus_url, tmp_path, "prune", "--yes")
    assert (pruned.returncode, pruned.stdout) == (0, "dropped docs_v1 (30 rows)\n")
    assert client.list_collections() == ["docs_v2"]
    back = command(milvus_url, tmp_path, "rollback")
    assert back.returncode == 6
    assert leads_to(client) == "docs_v2"
