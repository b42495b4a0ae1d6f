"""A repair makes what is missing and holds no data. It is asked for, and loses nothing.

The contract suite has each kind of each store. Here are the accidents: two at once, somebody else
meanwhile, a kill in the middle, rows that refuse, and changes that are pending.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from adapters.postgres import Adapter as OnPostgres
from adapters.shop import SHOP
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.events import Phase
from is_db_bootstrap.render import report
from is_db_bootstrap.results import DifferenceKind, Mode, Outcome
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from servers import milvus_client

INDEX = "CREATE INDEX idx_orders_status ON orders (status)"


def look(*stores):
    return BootstrapOrchestrator(stores).run(Mode.REPAIR)


def repair(*stores, approved=None, observers=()):
    """A look and a repair of all that it has shown."""
    engine = BootstrapOrchestrator(stores, observers=observers)
    return engine.run(Mode.REPAIR, approved=approved or look(*stores))


@pytest.fixture
def shop(postgres_url):
    """A converged PostgreSQL. `shop.open()` is a new store on it."""
    adapter = OnPostgres(postgres_url)
    store = adapter.open()
    BootstrapOrchestrator([store]).run().raise_for_failure()
    store.close()
    opened = []

    def open_store():
        opened.append(OnPostgres.open(adapter))
        return opened[-1]

    adapter.open = open_store
    yield adapter
    for store in opened:
        store.close()
    adapter.close()


# --- PostgreSQL


@pytest.mark.postgres
def test_an_index_is_built_while_others_read_and_write(shop):
    shop.client.execute("DROP INDEX idx_orders_status")
    [change] = look(shop.open()).stores[0].changes
    assert change.statements == (
        'CREATE INDEX CONCURRENTLY "idx_orders_status" ON "public"."orders" USING btree (status);',
    )
    assert (change.difference, change.actual) == (DifferenceKind.MISSING, None)
    assert change.expected == "btree (status)"
    done = repair(shop.open())
    assert (done.outcome, done.stores[0].is_verified) == (Outcome.CHANGED, True)


@pytest.mark.postgres
def test_rows_that_refuse_a_constraint_are_told_before_anything_is_made(shop):
    shop.client.execute("ALTER TABLE customers DROP CONSTRAINT uq_customers_email")
    shop.client.execute("DROP INDEX idx_orders_status")
    for _number in range(2):
        shop.client.execute("INSERT INTO customers (email) VALUES ('twice@example.org')")
    found = look(shop.open())
    [store] = found.stores
    assert [change.name for change in store.changes] == ["orders.idx_orders_status"]
    [left] = store.drifts
    assert left.not_repaired == 'At least two rows have the same "email".'
    assert "twice@example.org" not in str(found.to_dict())
    done = repair(shop.open(), approved=found)
    assert (done.exit_code, done.stores[0].outcome) == (3, Outcome.DRIFTED)
    assert [change.outcome for change in done.stores[0].changes] == [Outcome.CHANGED]


@pytest.mark.postgres
def test_what_was_not_checked_yet_is_checked_and_nothing_else_is_touched(shop):
    """A constraint and a NOT NULL of PostgreSQL 18 that somebody has added NOT VALID."""
    rows = "SELECT count(*) FROM customers"
    before = shop.client.execute(rows).fetchone()
    text = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'ck_orders_cents'"
    definition = shop.client.execute(text).fetchone()[0]
    shop.client.execute("ALTER TABLE orders DROP CONSTRAINT ck_orders_cents")
    shop.client.execute(f"ALTER TABLE orders ADD CONSTRAINT ck_orders_cents {definition} NOT VALID")
    shop.client.execute("ALTER TABLE customers ALTER email DROP NOT NULL")
    shop.client.execute("ALTER TABLE customers ADD CONSTRAINT filled NOT NULL email NOT VALID")
    found = look(shop.open())
    assert {(each.kind, each.statements) for each in found.stores[0].changes} == {
        ("column", ('ALTER TABLE "public"."customers" ALTER COLUMN "email" SET NOT NULL;',)),
        (
            "constraint",
            ('ALTER TABLE "public"."orders" VALIDATE CONSTRAINT "ck_orders_cents";',),
        ),
    }
    assert repair(shop.open(), approved=found).exit_code == 0
    assert not shop.open().verify()
    assert shop.client.execute(rows).fetchone() == before != (0,)


@pytest.mark.postgres
def test_rows_that_refuse_a_column_which_was_not_checked_are_told_before(shop):
    shop.client.execute("ALTER TABLE customers ALTER email DROP NOT NULL")
    shop.client.execute("INSERT INTO customers (email) VALUES (NULL)")
    shop.client.execute("ALTER TABLE customers ADD CONSTRAINT filled NOT NULL email NOT VALID")
    found = repair(shop.open())
    assert (found.exit_code, found.stores[0].changes) == (3, ())
    [left] = found.stores[0].drifts
    assert (left.kind, left.object) == ("column", "customers.email")
    assert "NULL" in left.not_repaired


@pytest.mark.postgres
def test_of_two_repairs_at_once_one_makes_it_and_both_end_well(shop):
    shop.client.execute("DROP INDEX idx_orders_status")
    shop.client.execute("ALTER TABLE orders DROP CONSTRAINT ck_orders_cents")
    shown = look(shop.open())
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(repair, shop.open(), approved=shown) for _number in range(2)]
    ends = [run.result() for run in runs]
    assert [end.exit_code for end in ends] == [0, 0], ends
    assert sorted(len(end.stores[0].changes) for end in ends) == [0, 2], ends
    assert not shop.open().verify()


@pytest.mark.postgres
def test_what_somebody_else_makes_meanwhile_is_found(shop):
    """Between the question and the locks, and right before the statement."""
    for moment in (Phase.WAIT, Phase.APPLY):
        shop.client.execute("DROP INDEX idx_orders_status")
        shown = look(shop.open())

        def make_it(event, moment=moment):
            if event.kind == "phase" and event.phase is moment:
                shop.client.execute(INDEX)

        done = repair(shop.open(), approved=shown, observers=[make_it])
        assert (done.exit_code, done.outcome) == (0, Outcome.UNCHANGED), done
        assert not shop.open().verify()


@pytest.mark.postgres
def test_what_a_rebuild_that_was_cut_off_has_left_goes_with_the_next_rebuild(shop):
    shop.client.execute("CREATE INDEX idx_orders_status_ccnew ON orders (status)")
    shop.client.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN "
        "('idx_orders_status'::regclass, 'idx_orders_status_ccnew'::regclass)"
    )
    shown = look(shop.open())
    assert "DROP INDEX CONCURRENTLY IF EXISTS public.idx_orders_status_ccnew;" in [
        statement for change in shown.stores[0].changes for statement in change.statements
    ]
    done = repair(shop.open(), approved=shown)
    assert done.outcome is Outcome.CHANGED, done
    query = "SELECT to_regclass('idx_orders_status_ccnew')"
    assert shop.client.execute(query).fetchone() == (None,)
    assert not shop.open().verify()


@pytest.mark.postgres
def test_what_was_not_shown_is_not_made(shop):
    shop.client.execute("DROP INDEX idx_orders_status")
    shown = look(shop.open())
    shop.client.execute("ALTER TABLE orders DROP CONSTRAINT ck_orders_cents")
    done = repair(shop.open(), approved=shown)
    assert done.exit_code == 3
    [left] = done.stores[0].drifts
    assert (left.object, left.fix) == ("orders.ck_orders_cents", "is-db-bootstrap repair")
    assert left.can_repair


@pytest.mark.postgres
def test_pending_revisions_are_left_to_apply(shop, tmp_path):
    migrations = shutil.copytree(SHOP.migrations, tmp_path / "migrations")
    (migrations / "shop_0004_more.py").write_text(
        'revision = "shop_0004"\ndown_revision = "shop_0003"\ndef upgrade(): pass\n'
    )
    shop.client.execute("DROP INDEX idx_orders_status")
    newer = replace(SHOP, migrations=migrations)
    store = PostgreSQLBootstrapper(shop.url, newer)
    found = repair(store)
    store.close()
    [store] = found.stores
    assert (found.exit_code, store.changes) == (3, ())
    assert [(each.kind, each.object, each.fix) for each in store.drifts] == [
        ("revision", "shop_0004", "is-db-bootstrap apply")
    ]
    assert any("is-db-bootstrap apply` first" in note for note in store.notes)
    recorded = shop.client.execute("SELECT version_num FROM alembic_version").fetchall()
    assert recorded == [("shop_0003",)]


#: A repair in a process of its own, which says that it has begun its change.
KILLED = """
import sys
sys.path.insert(0, {tests!r})
from adapters.shop import SHOP
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

def tell(event):
    if event.kind == "change-started":
        print("begun", flush=True)

store = PostgreSQLBootstrapper({url!r}, SHOP, seed=True)
shown = BootstrapOrchestrator([store]).run(Mode.REPAIR)
BootstrapOrchestrator([store], observers=[tell]).run(Mode.REPAIR, approved=shown)
"""


@pytest.mark.postgres
@pytest.mark.timeout(180)
def test_a_repair_that_was_killed_is_completed_by_the_next(shop):
    """The build of an index waits for an older transaction when the process is killed."""
    shop.client.execute("DROP INDEX idx_orders_status")
    code = KILLED.format(tests=str(Path(__file__).parent), url=shop.url)
    with shop.connected(shop.parsed.database) as other, other.transaction():
        other.execute("INSERT INTO orders (customer_id) SELECT id FROM customers LIMIT 1")
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline().strip() == "begun"
        _await(shop, "SELECT count(*) FROM pg_index WHERE NOT indisvalid", 1)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        building = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%'"
        _await(shop, building, 0)
    [left] = shop.open().verify()
    assert "invalid" in left.message
    assert left.can_repair
    done = repair(shop.open())
    assert (done.exit_code, done.outcome) == (0, Outcome.CHANGED), done
    assert not shop.open().verify()


def _await(shop, query, number):
    """Wait until a query counts `number`."""
    deadline = time.monotonic() + 60
    while shop.client.execute(query).fetchone() != (number,):
        assert time.monotonic() < deadline, query
        time.sleep(0.05)


# --- Neo4j


@pytest.mark.neo4j
def test_duplicates_are_told_before_a_constraint_is_made(neo4j_url):
    from adapters.neo4j import Adapter

    adapter = Adapter(neo4j_url)
    store = adapter.open()
    try:
        BootstrapOrchestrator([store]).run().raise_for_failure()
        adapter.tamper("constraint dropped")
        adapter.query("UNWIND range(1, 2) AS n CREATE (:Product {id: 'twice'}) RETURN n")
        done = repair(store)
        assert done.exit_code == 3
        [left] = done.stores[0].drifts
        assert "1 group of nodes share id" in left.not_repaired
        adapter.query("MATCH (n:Product {id: 'twice'}) DELETE n RETURN count(*)")
        assert repair(store).outcome is Outcome.CHANGED
        assert not store.verify()
    finally:
        store.close()
        adapter.close()


# --- Milvus


@pytest.mark.milvus
def test_a_collection_that_is_missing_is_left_to_apply_and_others_are_mended(milvus_url):
    first, *_rest = SHOP.collections
    other = replace(first, name="shop_other_v1", alias="shop_other", partitions=0)
    both = replace(SHOP, collections=(first, other))
    BootstrapOrchestrator([MilvusBootstrapper(milvus_url, both)]).run().raise_for_failure()
    client = milvus_client(milvus_url)
    try:
        client.drop_alias(other.alias)
        client.release_collection(first.name)
        client.drop_alias(first.alias)
        client.drop_collection(first.name)
        store = MilvusBootstrapper(milvus_url, both)
        done = repair(store)
        assert done.exit_code == 3
        assert [(c.kind, c.name) for c in done.stores[0].changes] == [("alias", "shop_other")]
        assert {each.kind for each in done.stores[0].drifts} == {"alias", "collection"}
        assert first.name not in client.list_collections()
        store.close()
    finally:
        client.close()


@pytest.mark.milvus
def test_a_verify_has_both_sides_of_what_contradicts_the_blueprint(milvus_url):
    """It stays a conflict, and the other collection is repaired all the same."""
    first, *_rest = SHOP.collections
    BootstrapOrchestrator([MilvusBootstrapper(milvus_url, SHOP)]).run().raise_for_failure()
    fields = tuple(replace(f, dim=f.dim + 8) if f.dim else f for f in first.fields)
    wider = replace(SHOP, collections=(replace(first, fields=fields),))
    store = MilvusBootstrapper(milvus_url, wider)
    told = BootstrapOrchestrator([store]).run(Mode.VERIFY)
    assert (told.exit_code, told.stores[0].error.kind) == (6, "conflict")
    text = report(told)
    assert "conflict: " in text
    assert "declared:" in text
    [drift] = [each for each in told.stores[0].drifts if each.kind == "field"]
    assert drift.difference is DifferenceKind.DIFFERENT
    assert int(drift.expected) == int(drift.actual) + 8
    left = look(store)
    assert (left.exit_code, left.outcome) == (3, Outcome.DRIFTED)
    store.close()


# --- Redis

KEYS = Blueprint(
    "lifetimes",
    "for tests",
    keys=(
        KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),
        KeyPattern("seat", "seat:{id}", "hash", 600, "app", "for tests"),
    ),
)


@pytest.mark.redis
def test_lifetimes_that_are_missing_are_set_and_no_other_is_touched(redis_url):
    store = RedisBootstrapper(redis_url, KEYS)
    BootstrapOrchestrator([store]).run().raise_for_failure()
    with redis.Redis.from_url(redis_url) as client:
        client.mset({f"cart:{number}": "x" for number in range(3)})
        client.set("cart:long", "x", ex=5000)
        client.lpush("cart:list", "x")
        found = look(store)
        [change] = found.stores[0].changes
        assert (change.kind, change.name, found.exit_code) == ("lifetime", "cart", 0)
        assert change.detail == "3 keys of cart:{id} without a lifetime"
        assert client.ttl("cart:1") == -1
        done = repair(store, approved=found)
        assert (done.exit_code, done.outcome) == (0, Outcome.CHANGED), done
        assert "3 keys of cart got a lifetime." in done.stores[0].notes
        assert 0 < client.ttl("cart:1") <= 60
        assert client.ttl("cart:long") > 60
        assert client.ttl("cart:list") == -1
    store.close()


@pytest.mark.redis
def test_a_record_that_is_missing_is_left_to_apply(redis_url):
    store = RedisBootstrapper(redis_url, KEYS)
    with redis.Redis.from_url(redis_url) as client:
        client.hset("seat:1", "a", "b")
        done = repair(store)
        assert done.exit_code == 3
        [left] = done.stores[0].drifts
        assert left.not_repaired == "`is-db-bootstrap apply` brings it about."
        assert 0 < client.ttl("seat:1") <= 600
        assert client.keys("is-db-bootstrap:conventions:*") == []
    store.close()


@pytest.mark.redis
@pytest.mark.postgres
def test_nothing_is_repaired_anywhere_while_a_store_cannot_be_looked_at(shop, redis_url):
    shop.client.execute("DROP INDEX idx_orders_status")
    store = RedisBootstrapper("redis://127.0.0.1:1/0", KEYS)
    engine = BootstrapOrchestrator([shop.open(), store], retry=RetryPolicy(deadline_s=0.5))
    assert engine.run(Mode.REPAIR).exit_code == 4
    assert shop.open().verify()
