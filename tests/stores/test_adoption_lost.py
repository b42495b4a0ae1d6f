"""Four stores that are adopted, and what `adopt` and `repair` say of one that was lost since."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import neo4j
import psycopg
import pytest
import redis
from pymilvus import DataType

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl
from servers import milvus_client

pytestmark = [pytest.mark.postgres, pytest.mark.neo4j, pytest.mark.milvus, pytest.mark.redis]

UNIQUE = "CREATE CONSTRAINT user_id IF NOT EXISTS FOR (n:User) REQUIRE n.id IS UNIQUE"
TABLE = "CREATE TABLE account (id integer PRIMARY KEY)"
REVISION = f'''"""accounts"""
from alembic import op

revision = "a1"
down_revision = None


def upgrade():
    op.execute("{TABLE}")


def downgrade():
    op.execute("DROP TABLE account")
'''
STORES = ("postgres", "neo4j", "milvus", "redis")


def collection(name):
    return Collection(
        f"{name}_v1",
        fields=(Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=8)),
        indexes=(Index("v", "FLAT", "IP"),),
        alias=name,
    )


class Four:
    """A blueprint of four stores on real servers."""

    def __init__(self, folder, **urls):
        (folder / "migrations").mkdir()
        (folder / "migrations" / "a1.py").write_text(REVISION)
        (folder / "cypher").mkdir()
        (folder / "cypher" / "V001__unique.cypher").write_text(f"{UNIQUE};\n")
        self.urls = urls
        self.blueprint = Blueprint(
            "shop",
            "for tests",
            migrations=folder / "migrations",
            cypher=folder / "cypher",
            collections=(collection("docs"), collection("tags")),
            keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "x"),),
        )

    def run(self, mode, *, foresees=False, approved=None, **flags):
        settings = Settings.load(self.blueprint, environ={}, flags=self.urls)
        engine = app.orchestrator(self.blueprint, settings, RunOptions(**flags))
        return engine.run(mode, foresees=foresees, approved=approved)

    def sql(self, text, database=None):
        url = self.urls["postgres_url"]
        if database:
            url = f"{url.rpartition('/')[0]}/{database}"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(text)
            return cursor.fetchall() if cursor.description else []

    def cypher(self, text):
        url = StoreUrl.parse("neo4j", self.urls["neo4j_url"])
        auth = (url.username, url.password)
        with neo4j.GraphDatabase.driver(
            f"bolt://{url.hosts}", auth=auth, notifications_min_severity="OFF"
        ) as driver:
            return [dict(row) for row in driver.execute_query(text).records]

    @contextmanager
    def vectors(self):
        url = self.urls["milvus_url"]
        client = milvus_client(url)
        yield client
        client.close()

    def redis(self):
        return redis.Redis.from_url(self.urls["redis_url"])

    def records(self):
        """What each store remembers, to the letter."""
        with self.vectors() as client:
            milvus = {
                name: client.describe_collection(name).get("properties")
                for name in client.list_collections()
            }
        with self.redis() as client:
            keys = client.keys("is-db-bootstrap:*")
            cache = {key: client.get(key) for key in keys}
        return {
            "postgres": self.sql("SELECT * FROM is_db_bootstrap.memory"),
            "neo4j": self.cypher("MATCH (n:__IsDbBootstrapMemory) RETURN properties(n) AS p"),
            "milvus": milvus,
            "redis": cache,
        }

    # --- what a test does to a store

    def make_by_hand(self):
        name = self.urls["postgres_url"].rpartition("/")[2]
        self.sql(f'CREATE DATABASE "{name}"', "postgres")
        self.sql(TABLE)
        self.cypher(UNIQUE)
        self.cypher("CREATE (:User {id: 1})")
        with self.vectors() as client:
            for name in ("docs", "tags"):
                schema = client.create_schema()
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("v", DataType.FLOAT_VECTOR, dim=8)
                client.create_collection(f"{name}_v1", schema=schema, consistency_level="Bounded")
                params = client.prepare_index_params()
                params.add_index("v", "FLAT", "v", metric_type="IP")
                client.create_index(f"{name}_v1", params)
                client.load_collection(f"{name}_v1")
                client.create_alias(f"{name}_v1", name)
        with self.redis() as client:
            client.set("cart:1", "x", ex=60)

    def lose_postgres(self):
        self.sql("DROP SCHEMA is_db_bootstrap, public CASCADE")
        self.sql("CREATE SCHEMA public")

    def lose_neo4j(self):
        self.lose_nodes()
        self.cypher("DROP CONSTRAINT user_id")

    def lose_nodes(self):
        """Constraints and indexes stay."""
        self.cypher("MATCH (n) DETACH DELETE n")

    def lose_milvus(self):
        for name in ("docs", "tags"):
            self.lose_collection(name)

    def lose_collection(self, name="tags"):
        with self.vectors() as client:
            client.drop_alias(name)
            client.drop_collection(f"{name}_v1")


@pytest.fixture
def four(tmp_path, postgres_url, neo4j_url, milvus_url, redis_url):
    return Four(
        tmp_path,
        postgres_url=postgres_url,
        neo4j_url=neo4j_url,
        milvus_url=milvus_url,
        redis_url=redis_url,
    )


def outcomes(result):
    return {store.store: store.outcome for store in result.stores}


def made(result):
    return [
        (store.store, change.kind)
        for store in result.stores
        for change in store.changes
        if change.outcome is Outcome.CHANGED
    ]


def test_an_apply_after_an_adoption_changes_and_records_nothing(four):
    four.make_by_hand()
    adopted = four.run(Mode.ADOPT)
    assert adopted.exit_code == 0, adopted
    assert outcomes(adopted) == dict.fromkeys(STORES, Outcome.CHANGED)
    before = four.records()
    for mode in (Mode.PLAN, Mode.APPLY, Mode.ADOPT):
        again = four.run(mode)
        assert outcomes(again) == dict.fromkeys(STORES, Outcome.UNCHANGED), again
        assert made(again) == []
    assert four.records() == before


@pytest.mark.parametrize(
    ("store", "lose"),
    [
        ("postgres", Four.lose_postgres),
        ("neo4j", Four.lose_neo4j),
        ("neo4j", Four.lose_nodes),
        ("milvus", Four.lose_milvus),
        ("milvus", Four.lose_collection),
    ],
)
def test_a_lost_store_is_told_by_adopt_and_repair_as_by_plan(four, store, lose):
    assert four.run(Mode.APPLY).exit_code == 0
    lose(four)
    told = four.run(Mode.PLAN).store(store).error
    assert told.kind == "reset"
    looks = {
        "adopt": four.run(Mode.ADOPT),
        "adopt, look": four.run(Mode.ADOPT, foresees=True),
        "repair": four.run(Mode.REPAIR),
    }
    for name, result in looks.items():
        assert result.exit_code == 8, (name, result)
        error = result.store(store).error
        assert (error.kind, error.message) == (told.kind, told.message)
        is_there = lose in {Four.lose_nodes, Four.lose_collection}
        adopts = f"`is-db-bootstrap adopt --accept-reset {store}`." in error.hint
        assert (adopts, told.hint.split("If ")[-1] in error.hint) == (
            is_there and name != "repair",
            True,
        )
        assert not result.store(store).drifts
        assert [each.store for each in result.stores if each.error] == [store]
        assert made(result) == []
    assert four.run(Mode.PLAN).exit_code == 8


def test_a_reset_that_is_accepted_lets_adopt_take_the_store_as_it_is(four):
    assert four.run(Mode.APPLY).exit_code == 0
    four.lose_nodes()
    wrong = four.run(Mode.ADOPT, accept_reset=("milvus",))
    assert wrong.exit_code == 2
    assert "there is no reset to accept" in wrong.store("milvus").error.message
    done = four.run(Mode.ADOPT, accept_reset=("neo4j",))
    assert done.exit_code == 0, done
    assert any("is taken as it is" in note for note in done.store("neo4j").notes)
    assert outcomes(four.run(Mode.APPLY)) == dict.fromkeys(STORES, Outcome.UNCHANGED)


def test_an_accepted_reset_does_not_make_a_blank_store_one_to_adopt(four):
    assert four.run(Mode.APPLY).exit_code == 0
    four.lose_neo4j()
    result = four.run(Mode.ADOPT, accept_reset=("neo4j",))
    assert result.exit_code == 6
    assert "nothing to adopt" in result.store("neo4j").error.message


def test_what_differs_and_was_never_there_is_no_loss(four):
    """A converged shop whose next release has one collection more."""
    assert four.run(Mode.APPLY).exit_code == 0
    more = (*four.blueprint.collections, collection("more"))
    four.blueprint = replace(four.blueprint, collections=more)
    result = four.run(Mode.ADOPT)
    assert result.exit_code == 3
    assert [drift.object for drift in result.store("milvus").drifts] == ["more", "more_v1"]


def test_tables_that_are_there_without_their_records_are_adopted(four):
    """The records were lost, and the tables were not, so nothing is made anew."""
    assert four.run(Mode.APPLY).exit_code == 0
    four.sql("DROP SCHEMA is_db_bootstrap CASCADE")
    four.sql("DROP TABLE alembic_version")
    done = four.run(Mode.ADOPT)
    assert done.exit_code == 0, done
    assert four.sql("SELECT version_num FROM alembic_version") == [("a1",)]
    assert outcomes(four.run(Mode.APPLY)) == dict.fromkeys(STORES, Outcome.UNCHANGED)


def test_a_store_that_is_lost_while_a_repair_asks_is_not_repaired(four):
    assert four.run(Mode.APPLY).exit_code == 0
    with four.vectors() as client:
        client.drop_alias("docs")
    look = four.run(Mode.REPAIR)
    assert [change.name for change in look.store("milvus").changes] == ["docs"]
    four.lose_nodes()
    result = four.run(Mode.REPAIR, approved=look)
    assert (result.exit_code, result.store("neo4j").error.kind) == (8, "reset")
    assert made(result) == []


def test_an_edited_revision_keeps_no_store_from_being_recorded(four):
    assert four.run(Mode.APPLY).exit_code == 0
    path = four.blueprint.migrations / "a1.py"
    path.write_text(path.read_text() + "# an edit\n")
    with four.redis() as client:
        client.delete("is-db-bootstrap:conventions:shop", "is-db-bootstrap:memory:shop")
        client.set("cart:1", "x", ex=60)
    done = four.run(Mode.ADOPT)
    assert done.exit_code == 0, done
    assert "a1 was edited after" in " ".join(done.store("postgres").notes)
    assert done.store("redis").outcome is Outcome.CHANGED
    assert b"is-db-bootstrap:memory:shop" in four.records()["redis"]
    assert outcomes(four.run(Mode.APPLY)) == dict.fromkeys(STORES, Outcome.UNCHANGED)
    [drift] = four.run(Mode.VERIFY).store("postgres").drifts
    assert drift.message == "was edited after it was applied"
