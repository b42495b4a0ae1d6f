"""Every exit code, each by a real run."""

import json
import signal
import socket
import threading

import psycopg
import pytest
import redis
from acceptance.conftest import finish, until

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres]
MINUTE = "SELECT pg_sleep(60)"


def only(document):
    [store] = document["stores"]
    return store


def names(document, outcome="changed"):
    return [c["name"] for c in only(document)["changes"] if c["outcome"] == outcome]


def activity(url, text="pg_sleep"):
    """Statements of other sessions that contain `text`."""
    with psycopg.connect(url.rpartition("/")[0] + "/postgres") as pg:
        query = (
            "SELECT query FROM pg_stat_activity WHERE state = 'active' AND pid <> "
            "pg_backend_pid() AND query LIKE %s"
        )
        return pg.execute(query, [f"%{text}%"]).fetchall()


MINE = ("--blueprint", "mine:BLUEPRINT", "--only", "postgres")


def test_0_as_declared(on_postgres):
    assert on_postgres("--only", "postgres").returncode == 0


def test_1_a_broken_revision_keeps_the_ones_before_and_a_run_after_the_fix_goes_on(on_postgres):
    on_postgres.own_blueprint(["CREATE TABLE a ()", "CREATE TABEL b ()", "CREATE TABLE c ()"])
    document = on_postgres.json(*MINE)
    assert document["exit_code"] == 1
    assert names(document) == [only(document)["changes"][0]["name"], "m_0001"]
    error = only(document)["error"]
    assert (error["kind"], error["object"]) == ("change_failed", "m_0002")
    assert "TABEL" in error["message"]
    on_postgres.own_blueprint(["CREATE TABLE a ()", "CREATE TABLE b ()", "CREATE TABLE c ()"])
    document = on_postgres.json(*MINE)
    assert (document["exit_code"], names(document)) == (0, ["m_0002", "m_0003"])


@pytest.mark.neo4j
def test_1_broken_cypher_in_the_second_of_three_files(command, tmp_path, neo4j_url, on_postgres):
    on_postgres.own_blueprint(
        cypher={
            "V001__a.cypher": "CREATE CONSTRAINT a IF NOT EXISTS FOR (n:A) REQUIRE n.id IS UNIQUE;\n",
            "V002__b.cypher": "CREATE CONSTRANT b IF NOT EXISTS FOR (n:B) REQUIRE n.id IS UNIQUE;\n",
            "V003__c.cypher": "CREATE CONSTRAINT c IF NOT EXISTS FOR (n:C) REQUIRE n.id IS UNIQUE;\n",
        }
    )
    graph = ("--blueprint", "mine:BLUEPRINT", "--only", "neo4j")
    document = on_postgres.json(*graph, NEO4J_URL=neo4j_url)
    assert document["exit_code"] == 1
    assert names(document) == ["V001__a.cypher"]
    assert only(document)["error"]["object"] == "V002__b.cypher"
    (tmp_path / "cypher" / "V002__b.cypher").write_text(
        "CREATE CONSTRAINT b IF NOT EXISTS FOR (n:B) REQUIRE n.id IS UNIQUE;\n"
    )
    document = on_postgres.json(*graph, NEO4J_URL=neo4j_url)
    assert (document["exit_code"], names(document)) == (0, ["V002__b.cypher", "V003__c.cypher"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--blueprint", "nobody"], "novel_genesis"),
        (["--colour"], "--colour"),
        (["--only", "oracle"], "oracle"),
        (["--only", "redis"], "REDIS_URL"),
        (["--only", "redis", "--redis-url", "redis"], "redis"),
        (["--config", "bad.toml"], "pasword"),
        (["--timeout", "soon"], "timeout"),
    ],
)
def test_2_misuse_names_what_is_wrong(on_postgres, args, said):
    (on_postgres.folder / "bad.toml").write_text('[postgres]\npasword = "x"\n')
    done = on_postgres(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_2_an_unknown_value_of_a_setting_is_told_before_any_store_is_touched(on_postgres):
    done = on_postgres("--only", "postgres", NOVEL_GENESIS_MILVUS_INDEX="flat")
    assert done.returncode == 2
    assert "ivf_flat_ip" in done.stderr
    assert activity(on_postgres.environ["POSTGRES_URL"], "alembic") == []


@pytest.mark.redis
def test_2_another_kind_of_server_at_the_address(on_postgres, redis_url):
    address = redis_url.removeprefix("redis://").partition("/")[0]
    document = on_postgres.json(
        "--only", "postgres", "--timeout", "3", POSTGRES_URL=f"postgresql://x:y@{address}/z"
    )
    assert document["exit_code"] == 2
    assert address in only(document)["error"]["message"]


def test_3_a_dropped_index_is_drift_and_named(on_postgres):
    on_postgres("--only", "postgres")
    with psycopg.connect(on_postgres.environ["POSTGRES_URL"]) as pg:
        pg.execute("DROP INDEX idx_event_outbox_topic")
    document = on_postgres.json("verify", "--only", "postgres")
    assert document["exit_code"] == 3
    assert [d["object"] for d in only(document)["drifts"]] == [
        "event_outbox.idx_event_outbox_topic"
    ]
    assert on_postgres.json("--only", "postgres")["exit_code"] == 3


def test_3_a_plan_with_changes_when_asked(on_postgres):
    assert on_postgres("plan", "--only", "postgres").returncode == 0
    assert on_postgres("plan", "--only", "postgres", "--exit-code").returncode == 3
    on_postgres("--only", "postgres")
    assert on_postgres("plan", "--only", "postgres", "--exit-code").returncode == 0


def test_4_nobody_listens(on_postgres):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://postgres@127.0.0.1:{free.getsockname()[1]}/x"
        document = on_postgres.json("--only", "postgres", "--timeout", "1", POSTGRES_URL=url)
    assert document["exit_code"] == 4
    assert 0.9 < document["duration_s"] < 5


def test_5_a_wrong_password_is_tried_once(on_postgres):
    head, _, tail = on_postgres.environ["POSTGRES_URL"].partition("@")
    url = f"{head.rpartition(':')[0]}:wrong@{tail}"
    document = on_postgres.json("--only", "postgres", "--timeout", "30", POSTGRES_URL=url)
    assert document["exit_code"] == 5
    assert document["duration_s"] < 5


def test_6_a_history_that_nobody_knows(on_postgres):
    on_postgres("--only", "postgres")
    with psycopg.connect(on_postgres.environ["POSTGRES_URL"]) as pg:
        pg.execute("UPDATE alembic_version SET version_num = 'of_another_world'")
    document = on_postgres.json("--only", "postgres")
    assert document["exit_code"] == 6
    assert "of_another_world" in only(document)["error"]["message"]


def test_7_another_run_holds_the_lock_and_is_named(on_postgres):
    url = on_postgres.environ["POSTGRES_URL"]
    on_postgres.own_blueprint([MINUTE])
    first = on_postgres.start(*MINE)
    until(lambda: activity(url))
    document = on_postgres.json(*MINE, "--timeout", "1")
    assert document["exit_code"] == 7
    error = only(document)["error"]
    assert error["kind"] == "lock_timeout"
    assert "is-db-bootstrap" in error["message"]
    assert "pid" in error["message"]
    finish(first, signal.SIGTERM)


def test_8_a_schema_that_was_lost_is_not_made_anew_unasked(on_postgres):
    url = on_postgres.environ["POSTGRES_URL"]
    on_postgres.own_blueprint(["CREATE TABLE a ()"])
    assert on_postgres(*MINE).returncode == 0
    with psycopg.connect(url) as pg:
        pg.execute("DROP SCHEMA public CASCADE")
        pg.execute("CREATE SCHEMA public")
    document = on_postgres.json(*MINE)
    assert (document["exit_code"], only(document)["error"]["kind"]) == (8, "reset")
    assert "--accept-reset postgres" in only(document)["error"]["hint"]
    assert on_postgres(*MINE, "--accept-reset", "postgres").returncode == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_statement_of_a_minute_ends_the_run_cleanly(on_postgres, signum, code):
    url = on_postgres.environ["POSTGRES_URL"]
    on_postgres.own_blueprint(["CREATE TABLE a ()", MINUTE, "CREATE TABLE c ()"])
    process = on_postgres.start(*MINE)
    until(lambda: activity(url))
    got, document, _ = finish(process, signum, timeout=20)
    assert got == code == document["exit_code"]
    assert document["outcome"] == "interrupted"
    assert "m_0001" in names(document)
    assert activity(url) == []
    with psycopg.connect(url) as pg:
        assert pg.execute("SELECT version_num FROM alembic_version").fetchone() == ("m_0001",)
        assert pg.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchone() == (0,)


def test_a_second_signal_exits_at_once(on_postgres):
    on_postgres.own_blueprint([MINUTE])
    process = on_postgres.start(*MINE)
    until(lambda: activity(on_postgres.environ["POSTGRES_URL"]))
    process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, process.send_signal, [signal.SIGTERM]).start()
    assert process.wait(timeout=3) == 143
    process.communicate()


def test_a_killed_run_is_completed_by_the_next(on_postgres):
    url = on_postgres.environ["POSTGRES_URL"]
    on_postgres.own_blueprint(
        ["CREATE TABLE a ()", "SELECT pg_sleep(3); CREATE TABLE b ()", "CREATE TABLE c ()"]
    )
    process = on_postgres.start(*MINE)
    until(lambda: activity(url))
    finish(process, signal.SIGKILL)
    document = on_postgres.json(*MINE)
    assert document["exit_code"] == 0, json.dumps(document)
    with psycopg.connect(url) as pg:
        tables = {
            r[0] for r in pg.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
    assert {"a", "b", "c"} <= tables


@pytest.mark.redis
def test_the_probe_key_is_gone_and_wait_and_plan_write_nothing(on_postgres, redis_url):
    own = {"REDIS_URL": redis_url}
    for mode in ("wait", "plan", "status", "verify"):
        on_postgres(mode, "--only", "redis", **own)
        with redis.Redis.from_url(redis_url) as client:
            assert client.dbsize() == 0
    on_postgres("--only", "redis", **own)
    with redis.Redis.from_url(redis_url) as client:
        assert sorted(client.keys()) == [
            b"is-db-bootstrap:conventions:novel_genesis",
            b"is-db-bootstrap:memory:novel_genesis",
        ]
