"""The self-test of all stores and its command: one line a check, nothing left, exit 0 or 3."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import psycopg
import pytest
import redis

from commands import command, run_here
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

on_redis = pytest.mark.redis


@pytest.fixture
def four(postgres_url, neo4j_url, milvus_url, redis_url):
    """Addresses of four stores that are at novel_genesis."""
    environ = {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }
    assert command("apply", environ=environ)[0] == 0
    return environ


@pytest.mark.postgres
@pytest.mark.neo4j
@pytest.mark.milvus
@on_redis
def test_every_check_has_a_line_and_nothing_is_left(four):
    code, out, _ = command("selftest", environ=four)
    assert code == 0
    assert out[-1].startswith("novel_genesis: selftest ")
    assert {line.split()[0] for line in out[:-1]} == {"postgres", "neo4j", "milvus", "redis"}
    assert {line.split()[1] for line in out[:-1]} == {"ok"}
    document = json.loads("\n".join(command("selftest", "--output", "json", environ=four)[1]))
    assert (document["exit_code"], len(document["checks"])) == (0, len(out) - 1)
    assert command("selftest", "--quiet", environ=four) == (0, [], "")
    with redis.Redis.from_url(four["REDIS_URL"]) as client:
        assert set(client.keys("*")) == {
            b"is-db-bootstrap:conventions:novel_genesis",
            b"is-db-bootstrap:memory:novel_genesis",
        }
    assert command("verify", "--strict", environ=four)[0] == 0


@pytest.mark.postgres
def test_a_store_that_is_not_as_declared_is_exit_3_before_anything_is_tried(migrated):
    url = migrated("context_service")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP INDEX idx_agents_status")
    code, out, _ = command(
        "selftest", "--blueprint", "context_service", environ={"POSTGRES_URL": url}
    )
    assert code == 3
    assert any("idx_agents_status" in line for line in out)
    assert not any(" finds a row" in line for line in out)


def test_a_store_that_is_down_has_the_exit_code_of_every_run():
    environ = {"POSTGRES_URL": "postgresql://u:p@127.0.0.1:1/x"}
    assert command("selftest", "--blueprint", "mplp", "--timeout", "0.5", environ=environ)[0] == 4


@pytest.mark.postgres
def test_a_trigger_that_does_nothing_any_more_is_seen(migrated):
    """The catalogue compares the function's text, so this one is made to look the same."""
    from is_db_bootstrap.stores.postgres.selftest import SelfTest

    with psycopg.connect(migrated("context_service")) as connection:
        connection.execute("ALTER TABLE agents DISABLE TRIGGER trg_agents_set_updated_at")
        connection.execute(
            "CREATE TRIGGER trg_agents_other BEFORE UPDATE ON agents FOR EACH ROW WHEN "
            "(false) EXECUTE FUNCTION set_updated_at()"
        )
        proofs = {p.name: p for p in SelfTest(connection, "public", ["agents"]).proofs()}
    assert proofs["agents.trg_agents_other fires"].ok is None


@on_redis
@pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)
@pytest.mark.parametrize(
    "name", [n for n in blueprint_names() if "redis" in load_blueprint(n).stores]
)
def test_every_convention_is_tried(redis_url, name):
    store = RedisBootstrapper(redis_url, load_blueprint(name))
    BootstrapOrchestrator([store]).run().raise_for_failure()
    made = list(store.selftest())
    store.close()
    declared = load_blueprint(name)
    assert [p for p in made if not p.ok] == []
    assert len(made) == len(declared.keys) + len(declared.channels)


@on_redis
def test_a_self_test_that_is_ended_in_the_middle_leaves_no_lasting_key(redis_url):
    keys = tuple(KeyPattern(f"k{n}", f"k{n}:{{id}}", "hash", 60, "app", "x") for n in range(3))
    store = RedisBootstrapper(redis_url, Blueprint("b", "for tests", keys=keys))
    checks = store.selftest()
    next(checks)
    checks.close()
    store.close()
    with redis.Redis.from_url(redis_url) as client:
        assert client.keys("*") == []


@on_redis
def test_a_self_test_that_a_store_ends_in_the_middle_still_writes_its_report(
    redis_url, tmp_path, monkeypatch
):
    checks = RedisBootstrapper.selftest

    def end_early(store):
        yield next(checks(store))
        raise StoreUnavailable("redis", "The connection was lost.", hint="Run again.")

    environ, words = {"REDIS_URL": redis_url}, ("-b", "novel_genesis", "--only", "redis")
    assert run_here(("apply", *words), tmp_path, environ)[0] == 0
    monkeypatch.setattr(RedisBootstrapper, "selftest", end_early)
    file = tmp_path / "result.json"
    call = ("selftest", *words, "-o", "junit", "--result-file", str(file))
    code, out, err = run_here(call, tmp_path, environ)
    assert (code, err.count("The connection was lost.")) == (4, 1), err
    [suite] = ET.fromstring(out)
    assert (suite.get("name"), suite.get("tests"), suite.get("errors")) == ("redis", "2", "1")
    assert suite.find("testcase/error").text == "The connection was lost.\nRun again."
    assert json.loads(file.read_text())["exit_code"] == 4
