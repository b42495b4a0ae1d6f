"""PostgreSQL and Redis remember each other: what was lost is told apart from what is new."""

from __future__ import annotations

import json
import subprocess
import uuid
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from counted_wire import counted_wire
from is_db_bootstrap import app, migrate
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.memory_text import from_text
from is_db_bootstrap.errors import StoreConflict, StoreReset
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
from is_db_bootstrap.stores.redis import memory_record
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from sentinels import free_port
from servers import DEBIAN_POSTGRES_15, drop_database, empty_redis

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

KEY = "is-db-bootstrap:memory:shop"
CART = KeyPattern("cart", "cart:{id}", "string", 60, "app", "x")
REVISION = '''"""{name}"""
from alembic import op

revision = {name!r}
down_revision = {before!r}


def upgrade():
    op.execute("CREATE TABLE t_{name} (id integer PRIMARY KEY)")


def downgrade():
    op.execute("DROP TABLE t_{name}")
'''


class Shop:
    """A blueprint of two stores on real servers, whose databases a test takes away."""

    def __init__(self, folder, farm):
        self.folder = folder / "migrations"
        self.folder.mkdir()
        self.server = farm.shared("postgres", "15")
        self.cache = farm.shared("redis")
        empty_redis(self.cache)
        self.made = []
        self.database = self.new_database()
        self.blueprint = Blueprint("shop", "for tests", migrations=self.folder, keys=(CART,))
        self.add_revision("a1", None)

    def new_database(self):
        self.made.append(f"shop_{uuid.uuid4().hex[:10]}")
        return self.made[-1]

    def add_revision(self, name, before):
        (self.folder / f"{name}.py").write_text(REVISION.format(name=name, before=before))

    @property
    def urls(self):
        return {
            "postgres_url": f"{self.server.url}/{self.database}",
            "redis_url": f"{self.cache.url}/0",
        }

    def run(self, mode=Mode.APPLY, blueprint=None, urls=None, **options):
        chosen = blueprint or self.blueprint
        flags = {**self.urls, **(urls or {})}
        flags = {n: u for n, u in flags.items() if n.partition("_")[0] in chosen.stores}
        settings = Settings.load(chosen, environ={}, flags=flags)
        engine = app.orchestrator(chosen, settings, RunOptions(**options))
        return engine.run(mode)

    def converge(self, **options):
        result = self.run(**options)
        assert result.exit_code == 0, result.stores
        return result

    def sql(self, *statements, database=None):
        url = f"{self.server.url}/{database or self.database}"
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement)
            return found.fetchall() if found.description else []

    def admin(self, *statements):
        return self.sql(*statements, database="postgres")

    def lose_database(self):
        drop_database(self.server, self.database)
        self.admin(f"CREATE DATABASE {self.database}")

    def redis(self):
        return redis.Redis.from_url(f"{self.cache.url}/0", decode_responses=True)

    def records(self):
        """Each record, in PostgreSQL and in Redis."""
        texts = self.sql("SELECT record FROM is_db_bootstrap.memory ORDER BY key")
        with self.redis() as client:
            lines = (client.get(KEY) or "").split("\n")
        return [from_text(text) for (text,) in texts], [from_text(each) for each in lines if each]


@pytest.fixture
def shop(tmp_path, farm):
    found = Shop(tmp_path, farm)
    yield found
    for name in found.made:
        drop_database(found.server, name)
    empty_redis(found.cache)


def changes(result):
    return {store.store: [(c.kind, c.outcome) for c in store.changes] for store in result.stores}


def errors(result):
    return {store.store: store.error.kind for store in result.stores if store.error}


def notes(result, name):
    return " ".join(result.store(name).notes)


UNCHANGED = {"postgres": [], "redis": []}


def test_a_converged_pair_remembers_each_other_and_the_second_run_writes_nothing(shop):
    first = shop.converge()
    assert changes(first) == {
        "postgres": [("database", "changed"), ("revision", "changed")],
        "redis": [("conventions", "changed")],
    }
    [of_postgres], [of_redis] = shop.records()
    assert of_postgres == of_redis
    assert (of_postgres.run_id, list(of_postgres.members)) == (
        first.run_id,
        ["postgres", "redis"],
    )
    assert "postgres:postgres@" not in shop.sql("SELECT record FROM is_db_bootstrap.memory")[0][0]
    again = shop.converge()
    assert changes(again) == UNCHANGED
    assert shop.records() == ([of_postgres], [of_postgres])


@pytest.mark.parametrize("mode", [Mode.APPLY, Mode.PLAN, Mode.VERIFY])
def test_a_database_that_was_lost_is_not_made_anew_in_silence(shop, mode):
    shop.converge()
    shop.lose_database()
    result = shop.run(mode)
    assert (result.exit_code, errors(result)) == (8, {"postgres": "reset"})
    error = result.store("postgres").error
    assert "is blank, though it was converged on 20" in error.message
    assert "as redis remembers" in error.message
    assert "--accept-reset postgres" in error.hint
    assert shop.sql("SELECT 1 FROM pg_namespace WHERE nspname = 'is_db_bootstrap'") == []


def test_an_accepted_reset_is_made_anew_and_the_next_run_has_nothing_to_do(shop):
    shop.converge()
    shop.lose_database()
    result = shop.converge(accept_reset=("postgres",))
    assert changes(result)["postgres"] == [("revision", "changed")]
    assert changes(result)["redis"] == [("memory", "changed")]
    assert "is made anew, as --accept-reset says" in notes(result, "postgres")
    assert changes(shop.converge()) == UNCHANGED


def test_a_schema_that_was_dropped_is_told_by_the_records_of_its_own_database(shop):
    shop.converge()
    shop.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    result = shop.run()
    assert (result.exit_code, result.store("postgres").error.object) == (8, "schema public")
    assert "as postgres and redis remember" in result.store("postgres").error.message
    shop.converge(accept_reset=("postgres",))
    assert changes(shop.converge()) == UNCHANGED


def test_a_downgrade_to_nothing_is_no_loss(shop):
    shop.converge()
    shop.sql("DROP TABLE t_a1", "DELETE FROM alembic_version")
    assert changes(shop.converge())["postgres"] == [("revision", "changed")]


@pytest.mark.parametrize("mode", [Mode.APPLY, Mode.PLAN])
def test_a_reset_that_did_not_happen_cannot_be_accepted(shop, mode):
    shop.converge()
    before = shop.records()
    result = shop.run(mode, accept_reset=("postgres",))
    assert (result.exit_code, errors(result)) == (2, {"postgres": "configuration"})
    assert shop.records() == before


def test_a_first_run_in_a_stack_that_was_thrown_away_as_a_whole_is_a_first_run(shop):
    shop.converge()
    drop_database(shop.server, shop.database)
    empty_redis(shop.cache)
    result = shop.converge()
    assert [store.notes for store in result.stores if store.notes] in ([], [result.stores[0].notes])
    assert [kind for kind, _ in changes(result)["postgres"]] == ["database", "revision"]


def test_another_environment_beside_a_shared_redis_is_a_first_run(shop):
    shop.converge()
    first, shop.database = shop.database, shop.new_database()
    result = shop.converge()
    assert changes(result)["redis"] == [("memory", "changed")]
    _, of_redis = shop.records()
    assert len({record.key for record in of_redis}) == 2
    assert changes(shop.converge()) == UNCHANGED
    shop.database = first
    assert changes(shop.converge()) == UNCHANGED
    shop.lose_database()
    assert errors(shop.run()) == {"postgres": "reset"}


def test_a_database_restored_from_a_dump_beside_a_kept_redis_is_recognised(shop, tmp_path):
    shop.converge()
    url, dump = shop.urls["postgres_url"], tmp_path / "dump.sql"
    subprocess.run([pg("pg_dump"), "--file", dump, url], check=True)
    shop.lose_database()
    subprocess.run([pg("psql"), "--quiet", "-v", "ON_ERROR_STOP=1", "-f", dump, url], check=True)
    result = shop.converge()
    assert changes(result) == {
        "postgres": [("memory", "changed")],
        "redis": [("memory", "changed")],
    }
    assert "it was restored, copied or replaced" in notes(result, "postgres")
    assert changes(shop.converge()) == UNCHANGED


def pg(name):
    """A client program of the server's version."""
    if not DEBIAN_POSTGRES_15.is_dir():
        pytest.skip("PostgreSQL 15 is not installed (postgresql-15)")
    return DEBIAN_POSTGRES_15 / name


@pytest.mark.parametrize("has_own_redis", [True, False], ids=["own Redis", "shared Redis"])
def test_a_copied_database_is_a_new_environment(shop, has_own_redis):
    shop.converge()
    copy = shop.new_database()
    shop.admin(f"CREATE DATABASE {copy} TEMPLATE {shop.database}")
    if has_own_redis:
        empty_redis(shop.cache)
    shop.database = copy
    result = shop.converge()
    assert errors(result) == {}
    assert changes(result)["postgres"] == [("memory", "changed")]
    assert changes(shop.converge()) == UNCHANGED


def test_a_refreshed_staging_database_of_the_same_name_is_recorded_anew(shop):
    shop.converge()
    production, staging = shop.database, shop.new_database()
    shop.admin(f"CREATE DATABASE {staging} TEMPLATE {production}")
    drop_database(shop.server, production)
    shop.admin(f"ALTER DATABASE {staging} RENAME TO {production}")
    result = shop.converge()
    assert "it was restored, copied or replaced" in notes(result, "postgres")
    assert changes(shop.converge()) == UNCHANGED


def test_a_store_that_the_blueprint_gets_later_is_no_loss(shop):
    alone = replace(shop.blueprint, keys=())
    shop.converge(blueprint=alone)
    result = shop.converge()
    assert changes(result) == {
        "postgres": [("memory", "changed")],
        "redis": [("conventions", "changed")],
    }
    [of_postgres], [of_redis] = shop.records()
    assert of_postgres == of_redis
    assert {*of_redis.members} == {"postgres", "redis"}


def test_a_store_that_one_release_lacks_is_remembered_for_the_others(shop):
    shop.converge()
    alone = replace(shop.blueprint, keys=())
    shop.converge(blueprint=alone)
    assert [sorted(record.members) for record in shop.records()[0]] == [["postgres", "redis"]]
    assert changes(shop.converge(blueprint=alone)) == {"postgres": []}


def test_a_blank_redis_is_a_cache_that_is_recorded_again_with_a_note(shop):
    shop.converge()
    empty_redis(shop.cache)
    result = shop.converge()
    assert changes(result)["redis"] == [("conventions", "changed")]
    assert "As a cache, it is recorded again" in notes(result, "redis")
    assert changes(shop.converge()) == UNCHANGED


def test_a_blank_redis_that_is_declared_durable_is_a_reset(shop):
    durable = replace(shop.blueprint, durable_keys=True)
    shop.converge(blueprint=durable)
    empty_redis(shop.cache)
    result = shop.run(blueprint=durable)
    assert (result.exit_code, errors(result)) == (8, {"redis": "reset"})
    with shop.redis() as client:
        assert client.keys() == []
    shop.converge(blueprint=durable, accept_reset=("redis",))
    assert changes(shop.converge(blueprint=durable)) == UNCHANGED


def test_a_redis_that_is_lost_while_the_run_waits_for_its_lock_is_not_made_anew(shop, monkeypatch):
    durable = replace(shop.blueprint, durable_keys=True)
    shop.converge(blueprint=durable)
    shop.add_revision("a2", "a1")
    take = PostgreSQLBootstrapper.try_lock

    def lock_after_loss(self, owner):
        empty_redis(shop.cache)
        return take(self, owner)

    monkeypatch.setattr(PostgreSQLBootstrapper, "try_lock", lock_after_loss)
    result = shop.run(blueprint=durable)
    assert (result.exit_code, errors(result)) == (8, {"redis": "reset"})
    assert shop.sql("SELECT to_regclass('t_a2') IS NULL") == [(True,)]
    with shop.redis() as client:
        assert client.keys() == []


def test_a_run_of_one_store_merges_and_never_removes(shop):
    shop.converge()
    shop.add_revision("a2", "a1")
    shop.converge(only=("postgres",))
    [of_postgres], [of_redis] = shop.records()
    assert of_postgres.members == of_redis.members
    assert of_postgres.fingerprint != of_redis.fingerprint
    shop.lose_database()
    assert errors(shop.run()) == {"postgres": "reset"}


def test_a_run_of_one_store_first_is_joined_by_the_next_one(shop):
    shop.converge(only=("postgres",))
    shop.converge(only=("redis",))
    shop.converge()
    assert changes(shop.converge()) == UNCHANGED


BROKEN = ("not a record", '{"format": 1}')


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_record_is_a_conflict_that_names_the_way_out(shop, text):
    shop.converge()
    shop.sql(f"UPDATE is_db_bootstrap.memory SET record = '{text}'")
    result = shop.run()
    assert (result.exit_code, errors(result)) == (6, {"postgres": "conflict"})
    error = result.store("postgres").error
    assert error.object == "is_db_bootstrap.memory"
    shop.sql(error.hint.partition("run again: ")[2])
    assert changes(shop.converge())["postgres"] == [("memory", "changed")]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_record_in_redis_is_a_conflict_that_names_the_way_out(shop, text):
    shop.converge()
    with shop.redis() as client:
        client.set(KEY, text)
        result = shop.run()
        assert (result.exit_code, errors(result)) == (6, {"redis": "conflict"})
        assert f"redis-cli DEL {KEY}" in result.store("redis").error.hint
        assert client.get(KEY) == text
        client.delete(KEY)
    assert changes(shop.converge())["redis"] == [("memory", "changed")]


def test_a_key_of_another_type_is_a_conflict(shop):
    shop.converge()
    with shop.redis() as client:
        client.delete(KEY)
        client.hset(KEY, "a", "b")
    result = shop.run()
    assert (result.exit_code, errors(result)) == (6, {"redis": "conflict"})
    assert result.store("redis").error.object == KEY


def test_a_record_of_a_newer_version_is_neither_believed_nor_overwritten(shop):
    shop.converge()
    newer = '{"format": 99, "key": "k", "version": "7.1", "shape": "unknown"}'
    shop.sql(f"UPDATE is_db_bootstrap.memory SET record = '{newer}'")
    with shop.redis() as client:
        client.set(KEY, newer)
    result = shop.converge()
    for name in ("postgres", "redis"):
        assert "was written by version 7.1 of is-db-bootstrap" in notes(result, name)
    assert newer in [text for (text,) in shop.sql("SELECT record FROM is_db_bootstrap.memory")]
    with shop.redis() as client:
        assert newer in client.get(KEY).split("\n")
    assert changes(shop.converge()) == UNCHANGED


def test_a_database_that_only_newer_records_may_remember_is_not_made_anew_in_silence(shop):
    shop.converge()
    with shop.redis() as client:
        client.set(KEY, client.get(KEY).replace('"format": 1', '"format": 2'))
    shop.lose_database()
    for mode in (Mode.PLAN, Mode.APPLY, Mode.VERIFY):
        result = shop.run(mode)
        assert (result.exit_code, errors(result)) == (8, {"postgres": "reset"})
        told = result.store("postgres").error.message
        assert "redis keeps records of a newer version of is-db-bootstrap" in told
    assert shop.sql("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
    result = shop.converge(accept_reset=("postgres",))
    assert "Nobody knows whether it was lost" in notes(result, "postgres")
    assert changes(shop.converge()) == UNCHANGED


def test_a_record_of_a_newer_version_under_our_key_is_left(shop):
    shop.converge()
    newer = "replace(record, '\"format\": 1', '\"format\": 2')"
    shop.sql(f"UPDATE is_db_bootstrap.memory SET record = {newer}")
    [(key, text)] = shop.sql("SELECT key, record FROM is_db_bootstrap.memory")
    shop.add_revision("a2", "a1")
    result = shop.converge()
    assert "which is newer. It is left alone and not believed" in notes(result, "postgres")
    rows = shop.sql("SELECT key, record FROM is_db_bootstrap.memory")
    assert (key, text) in rows
    assert len({row[0] for row in rows}) == 2
    assert changes(shop.converge()) == UNCHANGED


def test_a_newer_record_of_our_key_in_redis_is_left(shop):
    shop.converge()
    with shop.redis() as client:
        newer = client.get(KEY).replace('"format": 1', '"format": 2')
        client.set(KEY, newer)
        shop.add_revision("a2", "a1")
        shop.converge()
        lines = client.get(KEY).split("\n")
    assert newer in lines
    assert len({json.loads(line)["key"] for line in lines}) == 2
    assert changes(shop.converge()) == UNCHANGED


def test_a_full_redis_renews_its_record_and_drops_no_other(shop, monkeypatch):
    monkeypatch.setattr(memory_record, "MOST_RECORDS", 1)
    shop.converge()
    with shop.redis() as client:
        [first] = client.get(KEY).split("\n")
        shop.add_revision("a2", "a1")
        assert "takes no more" not in notes(shop.converge(), "redis")
        [renewed] = client.get(KEY).split("\n")
        assert json.loads(renewed)["key"] == json.loads(first)["key"]
        assert renewed != first
        shop.database = shop.new_database()
        for outcome in ("changed", "unchanged"):
            result = shop.converge()
            assert result.outcome == outcome
            assert "Redis remembers 1 deployment and takes no more" in notes(result, "redis")
        assert client.get(KEY).split("\n") == [renewed]


def kept_from_system(shop, role):
    """The address of the database for a role that may not ask which server it is."""
    shop.admin(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    shop.sql(
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC",
        f"GRANT ALL ON SCHEMA public, is_db_bootstrap TO {role}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public, is_db_bootstrap TO {role}",
    )
    host = shop.server.url.rpartition("@")[2].removeprefix("postgresql://")
    return f"postgresql://{role}:x@{host}/{shop.database}"


def test_roles_of_which_one_does_not_see_the_server_do_not_fight_over_the_record(shop):
    shop.converge()
    before = shop.records()
    role = f"team_{uuid.uuid4().hex[:8]}"
    try:
        urls = {"postgres_url": kept_from_system(shop, role)}
        for given in (urls, {}, urls):
            result = shop.converge(urls=given)
            assert changes(result) == UNCHANGED
            assert "was restored" not in notes(result, "postgres")
            is_told = "Which server this is could not be seen" in notes(result, "postgres")
            assert is_told == bool(given)
        assert shop.records() == before
        [remedy] = [n for n in shop.run(urls=urls).store("postgres").notes if "GRANT" in n]
        shop.sql(remedy.partition("run: ")[2])
        assert "could not be seen" not in notes(shop.converge(urls=urls), "postgres")
    finally:
        drop_database(shop.server, shop.database)
        shop.admin(f"DROP ROLE {role}")


def test_a_copied_database_is_known_by_its_number_where_its_server_is_not_seen(shop):
    shop.converge()
    copy = shop.new_database()
    role = f"team_{uuid.uuid4().hex[:8]}"
    shop.admin(f"CREATE DATABASE {copy} TEMPLATE {shop.database}")
    shop.database, first = copy, shop.database
    try:
        urls = {"postgres_url": kept_from_system(shop, role)}
        assert changes(shop.converge(urls=urls))["postgres"] == [("memory", "changed")]
        # Now the administrator sees what this role did not: one record more, and then no more.
        assert changes(shop.converge())["postgres"] == [("memory", "changed")]
        assert changes(shop.converge(urls=urls)) == UNCHANGED
    finally:
        drop_database(shop.server, copy)
        shop.admin(f"DROP ROLE {role}")
        shop.database = first


def test_a_record_that_may_not_be_written_is_a_note_and_takes_no_lock(shop, farm, monkeypatch):
    shop.cache = farm.shared("redis", "7")
    empty_redis(shop.cache)
    shop.converge()
    with shop.redis() as client:
        client.delete(KEY)
        user = f"team_{uuid.uuid4().hex[:8]}"
        client.acl_setuser(
            user, enabled=True, passwords=["+x"], commands=["+@all"], keys=["is-db-bootstrap:*"]
        )
        client.execute_command("ACL", "SETUSER", user, "resetkeys", "%R~" + KEY)
        for each in ("conventions", "lock", "probe", "selftest"):
            client.execute_command("ACL", "SETUSER", user, f"~is-db-bootstrap:{each}:*")
        try:
            host = shop.cache.url.removeprefix("redis://").rpartition("@")[2]
            urls = {"redis_url": f"redis://{user}:x@{host}/0"}
            taken = []
            lock = RedisBootstrapper.try_lock
            monkeypatch.setattr(
                RedisBootstrapper, "try_lock", lambda *a: taken.append("lock") or lock(*a)
            )
            for mode in (Mode.APPLY, Mode.PLAN, Mode.APPLY):
                result = shop.run(mode, urls=urls)
                assert (result.exit_code, result.outcome) == (0, "unchanged"), result
                assert "is not remembered here" in notes(result, "redis")
            assert taken == []
        finally:
            client.acl_deluser(user)


def test_a_role_that_may_not_make_our_schema_is_a_note_and_no_failure(shop):
    role = f"team_{uuid.uuid4().hex[:8]}"
    shop.admin(f"CREATE ROLE {role} LOGIN PASSWORD 'x'", f"CREATE DATABASE {shop.database}")
    try:
        shop.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
        host = shop.server.url.rpartition("@")[2].removeprefix("postgresql://")
        urls = {"postgres_url": f"postgresql://{role}:x@{host}/{shop.database}"}
        result = shop.converge(urls=urls)
        assert f"{role} may not write to the schema is_db_bootstrap" in notes(result, "postgres")
        again = shop.converge(urls=urls)
        assert changes(again) == UNCHANGED
        assert "is not remembered here" in notes(again, "postgres")
        assert changes(shop.run(Mode.PLAN, urls=urls)) == UNCHANGED
        [remedy] = [n.partition("run: ")[2] for n in again.store("postgres").notes if "run: " in n]
        shop.sql(remedy)
        assert changes(shop.converge(urls=urls))["postgres"] == [("memory", "changed")]
    finally:
        drop_database(shop.server, shop.database)
        shop.admin(f"DROP ROLE {role}")


def test_a_plan_that_another_role_has_left_is_no_failure_when_it_is_remembered(shop):
    role = f"team_{uuid.uuid4().hex[:8]}"
    shop.admin(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        shop.converge()
        shop.sql(
            "UPDATE is_db_bootstrap.lineage SET planned = revisions",
            "DELETE FROM is_db_bootstrap.memory",
            f"GRANT SELECT ON alembic_version TO {role}",
            f"GRANT CREATE, USAGE ON SCHEMA public, is_db_bootstrap TO {role}",
            f"GRANT ALL ON is_db_bootstrap.memory TO {role}",
        )
        host = shop.server.url.rpartition("@")[2].removeprefix("postgresql://")
        urls = {"postgres_url": f"postgresql://{role}:x@{host}/{shop.database}"}
        assert changes(shop.converge(urls=urls))["postgres"] == [("memory", "changed")]
    finally:
        drop_database(shop.server, shop.database)
        shop.admin(f"DROP ROLE {role}")


def test_a_store_that_was_lost_beside_records_that_the_role_may_not_read_is_made_with_a_note(shop):
    durable = replace(shop.blueprint, durable_keys=True)
    shop.converge(blueprint=durable)
    empty_redis(shop.cache)
    role = f"team_{uuid.uuid4().hex[:8]}"
    shop.admin(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        shop.sql(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
            "REVOKE ALL ON is_db_bootstrap.memory FROM PUBLIC",
        )
        host = shop.server.url.rpartition("@")[2].removeprefix("postgresql://")
        urls = {"postgres_url": f"postgresql://{role}:x@{host}/{shop.database}"}
        for mode in (Mode.PLAN, Mode.APPLY):
            result = shop.run(mode, blueprint=durable, urls=urls)
            assert result.exit_code == 0, result
            assert f"{role} may not read the records" in notes(result, "postgres")
            assert "Whether postgres remembers this store could not be seen" in notes(
                result, "redis"
            )
        assert "nobody knows whether this store was lost" in notes(result, "redis")
    finally:
        drop_database(shop.server, shop.database)
        shop.admin(f"DROP ROLE {role}")


def test_a_connection_that_is_lost_before_the_record_fails_and_the_next_run_writes_it(
    shop, monkeypatch
):
    shop.converge()
    kept = shop.records()[1]
    shop.add_revision("a2", "a1")
    remember = PostgreSQLBootstrapper.remember

    def cut_off(self, memory):
        shop.admin(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{shop.database}'"
        )
        with monkeypatch.context() as patch:
            patch.setattr(RunSessions, "reader", lambda sessions: sessions._looking)
            return remember(self, memory)

    with monkeypatch.context() as patch:
        patch.setattr(PostgreSQLBootstrapper, "remember", cut_off)
        result = shop.run()
    assert (result.exit_code, errors(result)) == (4, {"postgres": "unavailable"})
    assert changes(result)["postgres"] == [("revision", "changed")]
    again = shop.converge()
    assert changes(again)["postgres"] == [("memory", "changed")]
    assert shop.records()[1] != kept
    assert changes(shop.converge()) == UNCHANGED


def made_by(shop):
    """A bootstrapper that has no lock, and what a first run of its own schema has made.

    To it, the server is another one than that of the lock.
    """
    shop.converge()
    store = PostgreSQLBootstrapper(shop.urls["postgres_url"], shop.blueprint, schema="own")
    found = BootstrapOrchestrator([store]).run()
    assert found.exit_code == 0, found
    another = PostgreSQLBootstrapper(shop.urls["postgres_url"], shop.blueprint, schema="own")
    return another, [c for c in found.stores[0].changes if c.outcome == "changed"]


def lost(store, made):
    return [change.name for change in store.lost_changes(made)]


def test_what_another_primary_does_not_have_is_told_of_each_kind(shop):
    shop.add_revision("a2", "a1")
    store, made = made_by(shop)
    assert [each.name for each in made] == ["own", "a1", "a2"]
    assert lost(store, made) == []
    [a2] = [each for each in made if each.name == "a2"]
    moves = [replace(a2, kind="downgrade"), replace(a2, kind="stamp"), replace(a2, kind="accept")]
    assert [each.kind for each in store.lost_changes(moves)] == ["downgrade"]
    stamps = [replace(a2, kind="stamp", name=each) for each in ("a1", "base")]
    assert store.lost_changes(stamps) == stamps
    with pytest.raises(StoreConflict, match="Nothing tells whether index account is there"):
        store.lost_changes([replace(a2, kind="index", name="account")])
    shop.sql("UPDATE own.alembic_version SET version_num = 'a1'")
    assert lost(store, made) == ["a2"]
    shop.sql("DROP SCHEMA own CASCADE")
    assert lost(store, made) == ["own", "a1", "a2"]
    drop_database(shop.server, shop.database)
    assert lost(store, made) == ["own", "a1", "a2"]
    shop.admin(f"CREATE DATABASE {shop.database}")


def test_an_unknown_newer_revision_of_another_primary_takes_nothing_back(shop):
    store, made = made_by(shop)
    shop.sql("UPDATE own.alembic_version SET version_num = 'b7'")
    with pytest.raises(StoreConflict, match="records b7, which this version does not know"):
        store.lost_changes(made)


def test_two_blueprints_in_one_schema_are_a_conflict_and_nothing_is_lost(shop, tmp_path):
    shop.converge()
    before = shop.records()
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "b1.py").write_text(REVISION.format(name="b1", before=None))
    other = Blueprint("other", "another one", migrations=folder)
    result = shop.run(blueprint=other)
    assert (result.exit_code, errors(result)) == (6, {"postgres": "conflict"})
    assert "carries the blueprint shop, not other" in result.store("postgres").error.message
    assert shop.records() == before
    assert shop.sql("SELECT to_regclass('t_a1') IS NOT NULL") == [(True,)]


def test_an_older_release_beside_a_newer_record_writes_nothing(shop):
    shop.converge()
    shop.add_revision("a2", "a1")
    shop.converge()
    before = shop.records()
    (shop.folder / "a2.py").unlink()
    older = shop.converge()
    assert changes(older) == UNCHANGED
    assert shop.records() == before


def test_without_verify_nothing_is_recorded_and_a_note_says_so(shop):
    result = shop.run(verify=False)
    assert result.exit_code == 0
    assert "is not recorded, because nothing was verified" in notes(result, "postgres")
    with shop.redis() as client:
        assert client.get(KEY) is None
    assert changes(shop.run(verify=False)) == UNCHANGED
    assert changes(shop.converge())["redis"] == [("memory", "changed")]


def test_a_missing_record_is_a_change_that_plan_lists(shop):
    shop.converge()
    with shop.redis() as client:
        client.delete(KEY)
    assert changes(shop.run(Mode.PLAN))["redis"] == [("memory", "planned")]
    result = shop.converge()
    assert changes(result) == {"postgres": [], "redis": [("memory", "changed")]}


def test_a_status_tells_what_is_remembered_and_what_was_lost(shop):
    first = shop.converge()
    status = shop.run(Mode.STATUS)
    assert f"run {first.run_id}" in notes(status, "postgres")
    assert "together: postgres, redis" in notes(status, "redis")
    shop.lose_database()
    status = shop.run(Mode.STATUS)
    assert status.exit_code == 0
    assert "is blank, though it was converged" in notes(status, "postgres")


def test_a_run_with_nothing_to_do_asks_postgresql_nothing_more_for_its_memory(shop):
    shop.converge()
    counts = []
    for remembers in (False, True):
        with counted_wire(shop.urls["postgres_url"]) as wire:
            urls = {"postgres_url": wire.url}
            assert changes(shop.converge(urls=urls, remembers=remembers)) == UNCHANGED
            counts.append(wire.statements)
    assert counts[0] == counts[1] > 0


def test_a_run_with_nothing_to_do_writes_nothing_and_takes_no_lock(shop, monkeypatch):
    shop.converge()
    taken = []
    for store in (PostgreSQLBootstrapper, RedisBootstrapper):
        monkeypatch.setattr(store, "try_lock", lambda *_: taken.append("lock"))
        monkeypatch.setattr(store, "remember", lambda *_: taken.append("memory"))
    assert changes(shop.converge()) == UNCHANGED
    assert taken == []


def own_project(shop, tmp_path):
    """The folder of the blueprint, for the command."""
    folder = tmp_path / "project"
    folder.mkdir()
    shop.folder.rename(folder / "migrations")
    (folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint, KeyPattern\n"
        "CART = KeyPattern('cart', 'cart:{id}', 'string', 60, 'app', 'x')\n"
        "BLUEPRINT = Blueprint('shop', 'x', keys=(CART,))\n"
    )
    return folder


def test_the_command_ends_with_8_and_accepts_a_reset(shop, tmp_path, command):
    folder = own_project(shop, tmp_path)
    addresses = [f"--postgres-url={shop.urls['postgres_url']}"]
    addresses.append(f"--redis-url={shop.urls['redis_url']}")
    arguments = ["--blueprint", folder, "--output", "json", *addresses]
    assert command("apply", *arguments)[0] == 0
    shop.lose_database()
    code, document = command("apply", *arguments)
    assert (code, document["exit_code"]) == (8, 8)
    assert document["stores"][0]["error"]["kind"] == "reset"
    assert command("apply", *arguments, "--accept-reset", "redis")[0] == 2
    assert command("apply", *arguments, "--accept-reset", "postgres")[0] == 0
    code, document = command("apply", *arguments)
    assert (code, document["outcome"]) == (0, "unchanged")


def test_the_way_out_of_a_reset_can_be_pasted_and_is_about_the_stores_of_its_run(
    shop, tmp_path, command
):
    folder = own_project(shop, tmp_path)
    addresses = [f"--{store[:-4]}-url={url}" for store, url in shop.urls.items()]
    arguments = ["--blueprint", folder, "--output", "json", *addresses]
    assert command("apply", *arguments)[0] == 0
    shop.lose_database()
    ways = [command(*words, *arguments)[1] for words in (["plan", "--only", "postgres"], ["adopt"])]
    hints = [way["stores"][0]["error"]["hint"] for way in ways]
    [narrow, wide] = [hint.split("`")[1].split()[1:] for hint in hints]
    # There is nothing to adopt.
    assert wide == ["apply", "--accept-reset", "postgres"]
    assert narrow == ["apply", "--only", "postgres", "--accept-reset", "postgres"]
    code, document = command(*narrow, *arguments)
    assert code == 0
    assert [each["store"] for each in document["stores"]] == ["postgres"]
    assert command("apply", *arguments)[0] == 0


# --- runs from code, as the README has them


def from_code(shop, mode=Mode.APPLY, **options):
    """A run of bare bootstrappers, to which nobody gives a fingerprint."""
    stores = [
        PostgreSQLBootstrapper(shop.urls["postgres_url"], shop.blueprint),
        RedisBootstrapper(shop.urls["redis_url"], shop.blueprint),
    ]
    return BootstrapOrchestrator(stores, **options).run(mode)


@pytest.mark.parametrize("mode", [Mode.APPLY, Mode.PLAN, Mode.VERIFY])
def test_a_run_from_code_does_not_make_a_lost_database_anew(shop, mode):
    shop.converge()
    drop_database(shop.server, shop.database)
    result = from_code(shop, mode)
    assert (result.exit_code, errors(result)) == (8, {"postgres": "reset"})
    assert "as redis remembers" in result.store("postgres").error.message
    assert shop.admin(f"SELECT 1 FROM pg_database WHERE datname = '{shop.database}'") == []


def test_a_run_from_code_makes_an_accepted_loss_anew_and_records_nothing(shop):
    shop.converge()
    shop.lose_database()
    with shop.redis() as client:
        before = client.get(KEY)
        result = from_code(shop, accept_reset=["postgres"])
        assert (result.exit_code, changes(result)) == (
            0,
            {"postgres": [("revision", "changed")], "redis": []},
        )
        assert client.get(KEY) == before
    assert shop.sql("SELECT to_regclass('is_db_bootstrap.memory') IS NULL") == [(True,)]
    again = from_code(shop)
    assert changes(again) == UNCHANGED
    assert "is not the store that was converged" not in notes(again, "postgres")


def test_a_first_run_from_code_records_nothing_and_the_next_one_has_nothing_to_do(shop):
    assert from_code(shop).exit_code == 0
    with shop.redis() as client:
        assert client.get(KEY) is None
    assert changes(from_code(shop)) == UNCHANGED


# --- `migrate`, whose only store is PostgreSQL


@pytest.fixture
def settings(shop):
    return Settings.load(shop.blueprint, environ={}, flags=shop.urls)


@pytest.mark.parametrize("move", [migrate.init, migrate.upgrade])
def test_a_lost_database_is_not_filled_by_a_migrate_command(shop, settings, move):
    shop.converge()
    shop.lose_database()
    with pytest.raises(StoreReset, match="as redis remembers") as failed:
        move(shop.blueprint, settings=settings)
    way_out = "`is-db-bootstrap apply --only postgres --accept-reset postgres`."
    assert way_out in failed.value.hint
    assert shop.sql("SELECT to_regclass('t_a1') IS NULL") == [(True,)]
    assert shop.run(only=("postgres",), accept_reset=("postgres",)).exit_code == 0
    assert move(shop.blueprint, settings=settings).revisions == ()


@pytest.mark.parametrize("move", [migrate.init, migrate.upgrade])
def test_a_lost_schema_that_the_database_itself_remembers_is_not_filled_by_migrate(
    shop, settings, move
):
    shop.converge()
    shop.sql("DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    with pytest.raises(StoreReset, match=r"schema public of .* is gone"):
        move(shop.blueprint, settings=settings)


def test_migrate_init_does_not_create_a_database_that_was_lost(shop, settings):
    shop.converge()
    drop_database(shop.server, shop.database)
    with pytest.raises(StoreReset):
        migrate.init(shop.blueprint, settings=settings)
    assert shop.admin(f"SELECT 1 FROM pg_database WHERE datname = '{shop.database}'") == []


def test_migrate_fills_a_new_database_and_records_nothing_of_the_stores(shop, settings):
    assert migrate.init(shop.blueprint, settings=settings).revisions == ("a1",)
    shop.add_revision("a2", "a1")
    assert migrate.upgrade(shop.blueprint, settings=settings).revisions == ("a2",)
    with shop.redis() as client:
        assert client.keys() == []
    assert shop.sql("SELECT to_regclass('is_db_bootstrap.memory') IS NULL") == [(True,)]


def test_migrate_goes_down_to_nothing_and_up_again_without_a_question_about_losses(shop, settings):
    shop.converge()
    assert migrate.downgrade(shop.blueprint, "base", settings=settings).revisions == ("a1",)
    assert migrate.upgrade(shop.blueprint, settings=settings).revisions == ("a1",)
    assert changes(shop.converge()) == UNCHANGED


def test_a_stamp_records_revisions_also_where_the_version_table_was_lost(shop, settings):
    shop.converge()
    shop.sql("DROP TABLE alembic_version")
    assert migrate.stamp(shop.blueprint, "a1", settings=settings).revisions == ("a1",)
    assert changes(shop.converge())["postgres"] == []


def test_a_migrate_that_cannot_ask_another_store_goes_on_and_says_so(shop):
    urls = {**shop.urls, "redis_url": f"redis://127.0.0.1:{free_port()}/0"}
    settings = Settings.load(shop.blueprint, environ={}, flags=urls)
    migrated = migrate.init(shop.blueprint, settings=settings)
    assert migrated.revisions == ("a1",)
    assert "redis, which this run leaves out, could not be asked" in " ".join(migrated.notes)


def test_a_migrate_command_ends_with_8_for_a_store_that_was_lost(
    shop, tmp_path, command, monkeypatch
):
    monkeypatch.setenv("REDIS_URL", shop.urls["redis_url"])
    folder = own_project(shop, tmp_path)
    address = ["--blueprint", folder, "--output", "json", "--url", shop.urls["postgres_url"]]
    apply = ["--blueprint", folder, "--output", "json"]
    apply.append(f"--postgres-url={shop.urls['postgres_url']}")
    assert command("apply", *apply)[0] == 0
    shop.lose_database()
    for move in ("init", "upgrade"):
        code, document = command("migrate", move, *address)
        assert (code, document["exit_code"], document["error"]["kind"]) == (8, 8, "reset")


@pytest.fixture
def command():
    """The installed command: its exit code and its JSON document."""
    program = Path(subprocess.sys.executable).parent / "is-db-bootstrap"

    def call(*arguments):
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, json.loads(done.stdout)

    return call
