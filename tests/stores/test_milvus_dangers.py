"""What a plan marks of a collection that has rows, on a real server."""

from __future__ import annotations

from dataclasses import replace

import pytest

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Change, DangerKind, Mode
from is_db_bootstrap.stores.milvus import dangers
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import milvus_client

pytestmark = pytest.mark.milvus
FIELDS = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=2))
BARE = Collection("notes_v1", FIELDS, (Index("v", "FLAT", "L2"),), load=True)


def planned(url, declared):
    store = MilvusBootstrapper(url, Blueprint("b", "for tests", collections=(declared,)))
    result = BootstrapOrchestrator([store]).run(Mode.PLAN)
    assert result.exit_code == 0
    return result.stores[0].changes


def test_an_index_a_load_and_a_time_to_live_over_rows_are_marked(milvus_url, monkeypatch):
    monkeypatch.setattr(dangers, "MANY", 3)
    assert [each.dangers for each in planned(milvus_url, BARE)] == [(), (), ()]
    store = MilvusBootstrapper(milvus_url, Blueprint("b", "for tests", collections=(BARE,)))
    assert BootstrapOrchestrator([store]).run().exit_code == 0
    client = milvus_client(milvus_url)
    client.insert("notes_v1", [{"id": i, "v": [0.1, i]} for i in range(3)])
    client.flush("notes_v1")
    expiring = replace(BARE, ttl_seconds=60)
    (change,) = planned(milvus_url, expiring)
    (found,) = change.dangers
    assert (found.kind, found.object) == (DangerKind.DROPS, "notes_v1")
    assert "of at least 3 that are there" in found.text
    client.release_collection("notes_v1")
    client.drop_index("notes_v1", "v")
    index, *_ = planned(milvus_url, BARE)
    client.close()
    assert [each.kind for each in index.dangers] == [DangerKind.LOCKS]
    assert "over at least 3 rows" in index.dangers[0].text


def test_few_rows_are_no_danger():
    change = Change("notes_v1.v", "index")
    assert dangers.dangers_of(change, "notes_v1", lambda: dangers.MANY - 1) == ()
