"""`doctor`: one page about every store, for which nothing is written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import uuid
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

import neo4j
import psycopg
import pytest
import redis

from commands import at_terminal, run_here
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus import diagnosis as milvus_diagnosis
from is_db_bootstrap.stores.milvus.diagnosis import mismatches as milvus_mismatches
from is_db_bootstrap.stores.milvus.releases import Release
from is_db_bootstrap.stores.neo4j import diagnosis as neo4j_diagnosis
from is_db_bootstrap.stores.neo4j.diagnosis import mismatches as neo4j_mismatches
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.diagnosis import diagnosis
from is_db_bootstrap.stores.redis.diagnosis import mismatches as redis_mismatches
from is_db_bootstrap.stores.redis.errors import Translation
from is_db_bootstrap.stores.redis.server import open_server
from milvus_gateway import gateway
from mute import MuteProxy
from servers import PASSWORD, drop_database, milvus_client

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

BLUEPRINT = ("-b", "helpdesk")


@pytest.fixture
def stores(migrated, redis_url):
    """The environment of a converged PostgreSQL and of a Redis that is blank."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"POSTGRES_URL": migrated("helpdesk"), "REDIS_URL": redis_url}


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def written_so_far(session, client):
    """What changes with each write: PostgreSQL's next transaction, Redis's keys and changes."""
    query = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
    state = client.info("persistence")["rdb_changes_since_last_save"]
    return session.execute(query).fetchone(), state, sorted(client.keys())


def test_doctor_writes_nothing_and_takes_no_lock(stores, tmp_path):
    with (
        psycopg.connect(stores["POSTGRES_URL"], autocommit=True) as session,
        redis.Redis.from_url(stores["REDIS_URL"]) as client,
    ):
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        before = written_so_far(session, client)
        code, page, err = run_here(("doctor", *BLUEPRINT), tmp_path, stores)
        assert code == 0, err
        assert session.execute(locks).fetchone() == (0,)
        assert written_so_far(session, client) == before
    assert "## postgres: ready" in page
    assert "## redis: ready" in page
    assert "- pending: 1 change" in page
    assert PASSWORD not in page


GRAPH = ("-b", "novel_genesis", "--only", "neo4j")
VECTORS = ("-b", "novel_genesis", "--only", "milvus")
#: Everything in a graph, and the number of its last transaction that has written.
GRAPH_QUERIES = (
    "MATCH (n) RETURN elementId(n), labels(n), properties(n) ORDER BY elementId(n)",
    "MATCH ()-[r]->() RETURN elementId(r), type(r), properties(r) ORDER BY elementId(r)",
    "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties ORDER BY name",
    "SHOW INDEXES YIELD name, type, state, labelsOrTypes, properties ORDER BY name",
    "CALL db.labels() YIELD label RETURN label ORDER BY label",
    "CALL db.propertyKeys() YIELD propertyKey RETURN propertyKey ORDER BY propertyKey",
)
LAST_WRITE = "SHOW DATABASES YIELD name, lastCommittedTxn WHERE name IN ['neo4j', 'system']"


def graph_of(driver):
    found = [driver.execute_query(query).records for query in GRAPH_QUERIES]
    found.append(driver.execute_query(LAST_WRITE, database_="system").records)
    return [[record.data() for record in records] for records in found]


@pytest.mark.neo4j
def test_doctor_writes_nothing_to_neo4j(neo4j_url, tmp_path):
    """Neither in a blank graph nor in one that was converged. The server counts what is written."""
    login, _, place = neo4j_url.partition("://")[2].rpartition("@")
    user, _, word = login.partition(":")
    environ = {"PATH": os.environ["PATH"], "NEO4J_URL": neo4j_url}
    with neo4j.GraphDatabase.driver(f"bolt://{place}", auth=(user, unquote(word))) as driver:
        for pending in ("some", "none"):
            before = graph_of(driver)
            code, page, err = run_here(("doctor", *GRAPH), tmp_path, environ)
            assert code == 0, err
            assert graph_of(driver) == before
            assert "## neo4j: ready" in page
            assert ("- pending: 0 changes" in page) is (pending == "none"), page
            if pending == "some":
                code, _, err = run_here(("apply", *GRAPH), tmp_path, environ)
                assert code == 0, err
                assert graph_of(driver) != before


def vectors_of(client):
    """Everything that a Milvus tells of its collections."""
    found = {}
    for name in sorted(client.list_collections()):
        # Milvus 2.3 lists them in any order.
        names = sorted(client.list_indexes(name))
        indexes = [client.describe_index(name, index) for index in names]
        found[name] = (
            client.describe_collection(name),
            client.list_aliases(name),
            client.list_partitions(name),
            client.get_load_state(name),
            client.get_collection_stats(name),
            indexes,
        )
    return found


#: How calls begin that change something.
CHANGES = ("Add", "Alter", "Create", "Delete", "Drop", "Flush", "Grant", "Import", "Insert", "Load")
MORE_CHANGES = ("Operate", "Release", "Rename", "Restore", "Update", "Upsert")


@pytest.mark.milvus
@pytest.mark.parametrize("milvus_url", ["lite", "2.3"], indirect=True)
def test_doctor_writes_nothing_to_milvus(milvus_url, tmp_path):
    """A way to the server notes each call, so that one which leaves no trace is seen, too."""
    sent = []
    client = milvus_client(milvus_url)
    with gateway(milvus_url, sent=sent) as url:
        environ = {"PATH": os.environ["PATH"], "MILVUS_URL": url}
        for pending in ("some", "none"):
            before = vectors_of(client)
            sent.clear()
            code, page, err = run_here(("doctor", *VECTORS), tmp_path, environ)
            assert code == 0, err
            assert sent
            assert [each for each in sent if each.startswith((*CHANGES, *MORE_CHANGES))] == []
            assert vectors_of(client) == before
            assert "## milvus: ready" in page
            assert "- in between: not seen" in page
            is_known = "Milvus Lite" not in page
            assert ("- does not fit: not seen" not in page) is is_known
            assert ("- not seen: whether pymilvus " not in page) is is_known
            assert ("- pending: 0 changes" in page) is (pending == "none")
            if pending == "some":
                code, _, err = run_here(("apply", *VECTORS), tmp_path, environ)
                assert code == 0, err
                assert "CreateCollection" in sent
                assert vectors_of(client) != before
    client.close()


def test_a_missing_database_is_told_and_not_created(farm, tmp_path):
    server = farm.shared("postgres")
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": f"{server.url}/doctor_missing"}
    code, page, err = run_here(("doctor", "-b", "mplp"), tmp_path, environ)
    assert code == 0, err
    assert "[?] target exists: open, database doctor_missing does not exist yet" in page
    assert "- privilege for apply: create the database doctor_missing: yes" in page
    with psycopg.connect(f"{server.url}/postgres") as session:
        query = "SELECT count(*) FROM pg_database WHERE datname = 'doctor_missing'"
        assert session.execute(query).fetchone() == (0,)


def test_a_store_that_fails_keeps_no_other_from_being_looked_at(stores, tmp_path):
    nobody = f"postgresql://u:hidden-word@127.0.0.1:{closed_port()}/x"
    environ = stores | {"POSTGRES_URL": nobody}
    code, page, err = run_here(("doctor", *BLUEPRINT), tmp_path, environ)
    assert code == 4, err
    assert "- ready: 1 of 2 stores" in page
    assert "[ ] port answers: no, postgresql://" in page
    assert "waiting may help" in page
    assert "next: Is the server running" in page
    assert "## redis: ready" in page
    code, only, err = run_here(("doctor", *BLUEPRINT, "--only", "redis"), tmp_path, environ)
    assert code == 0, err
    assert "## postgres" not in only
    code, out, err = run_here(("doctor", *BLUEPRINT, "-o", "json"), tmp_path, environ)
    found = json.loads(out)
    assert (code, found["exit_code"], found["mode"]) == (4, 4, "doctor")
    [first, second] = found["stores"]
    assert first["diagnosis"] is None
    assert [rung["ok"] for rung in first["rungs"]] == [True, False]
    assert second["diagnosis"]["clock_difference_s"] is not None
    assert found["machine"]["tool"]
    assert "hidden-word" not in page + only + out + err


def test_the_page_is_the_same_on_a_terminal_and_in_a_pipe(stores, tmp_path):
    args = ("doctor", *BLUEPRINT, "--only", "redis")
    _, piped, _ = run_here(args, tmp_path, stores)
    code, shown = at_terminal(*args, folder=tmp_path, environ=stores)
    assert code == 0
    page = shown[shown.index("# is-db-bootstrap doctor") :].replace("\r\n", "\n")
    assert _without_figures(page) == _without_figures(piped)


def _without_figures(page):
    """The page without what differs from one look to the next."""
    moving = r"^- (looked at|run|clock|running for|memory|connections): .*$"
    return re.sub(moving, r"- \1", page, flags=re.MULTILINE)


def test_the_page_says_who_has_set_what_and_shows_no_secret(stores, tmp_path):
    environ = stores | {
        "IS_DB_BOOTSTRAP_LEASE": "30",
        "https_proxy": "http://me:hidden-word@proxy.example:3128",
        "no_proxy": "127.0.0.1,localhost",
    }
    args = ("doctor", *BLUEPRINT, "--timeout", "7")
    code, page, err = run_here(args, tmp_path, environ)
    assert code == 0, err
    assert "- timeout_s: 7 (--timeout)" in page
    assert "- lease_s: 30 (IS_DB_BOOTSTRAP_LEASE)" in page
    assert "- grace_s: 5 (default)" in page
    assert "- https_proxy: http://proxy.example:3128" in page
    assert re.search(r"^- address of redis: .* \(REDIS_URL\)$", page, re.MULTILINE)
    assert "hidden-word" not in page + err
    assert PASSWORD not in page + err


def test_a_lock_that_is_held_is_shown_with_its_holder(stores, tmp_path):
    """Who holds it is asked of the server, and nobody waits for it."""
    with redis.Redis.from_url(stores["REDIS_URL"]) as client:
        client.set("is-db-bootstrap:lock:helpdesk", "somebody", ex=60)
        try:
            args = ("doctor", *BLUEPRINT, "--only", "redis")
            code, page, err = run_here(args, tmp_path, stores)
        finally:
            client.delete("is-db-bootstrap:lock:helpdesk")
    assert code == 0, err
    assert "- lock: held by " in page
    assert "- lock: held by nobody" not in page


def test_a_port_forward_in_between_shows(stores, tmp_path):
    """As a proxy and a NAT do: the server sees another address than this machine has."""
    port = int(stores["REDIS_URL"].rpartition(":")[2].partition("/")[0])
    proxy = MuteProxy(port)
    try:
        environ = stores | {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        args = ("doctor", *BLUEPRINT, "--only", "redis")
        code, page, err = run_here(args, tmp_path, environ)
    finally:
        proxy.close()
    assert code == 0, err
    assert "- in between: A proxy, a port-forward or a NAT: the server sees us at " in page


@pytest.fixture
def reader(stores):
    """The address of a role with what `grants --for verify` prints, and its name."""
    url = stores["POSTGRES_URL"]
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        admin.execute(f"GRANT SELECT ON alembic_version TO {role}")
        login = f"{role}:{quote(PASSWORD, safe='')}"
        yield url.replace(urlsplit(url).netloc.rpartition("@")[0], login), role
        admin.execute(f"DROP OWNED BY {role}")
        admin.execute(f"DROP ROLE {role}")


def test_a_role_for_verify_is_told_apart_from_one_for_apply(reader, tmp_path):
    """Such a role may create nothing and is ready. What apply needs is told as of apply."""
    url, role = reader
    args = ("doctor", *BLUEPRINT, "--only", "postgres")
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": url}
    code, page, err = run_here(args, tmp_path, environ)
    assert code == 0, err
    assert "## postgres: ready" in page
    assert "- privilege for verify: use schema public: yes" in page
    assert '- privilege for verify: read "public"."alembic_version": yes' in page
    lacking = f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}";'
    assert (
        "- privilege for apply: create tables in schema public: no. To grant it to a role for "
        f"apply: {lacking}"
    ) in page
    assert "For verify alone, nothing is lacking." in page
    for line in page.splitlines():
        assert "CREATE" not in line or "for apply" in line or "For apply" in line, line
    code, _, err = run_here(("wait", *BLUEPRINT, "--only", "postgres"), tmp_path, environ)
    assert code == 0, err


def test_a_role_that_lacks_what_verify_needs_is_told_that_too(reader, stores, tmp_path):
    url, role = reader
    with psycopg.connect(stores["POSTGRES_URL"], autocommit=True) as admin:
        admin.execute(f"REVOKE SELECT ON alembic_version FROM {role}")
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": url}
    args = ("doctor", *BLUEPRINT, "--only", "postgres")
    code, page, err = run_here(args, tmp_path, environ)
    assert code == 5, err
    statement = f'GRANT SELECT ON "public"."alembic_version" TO "{role}";'
    assert f"For verify alone: {statement}" in page
    assert f"To grant it to a role for verify: {statement}" in page


def test_a_user_of_redis_is_told_just_the_right_that_is_missing(stores, tmp_path):
    """A user who reads what was recorded is ready, and gets no advice to write for verify."""
    with redis.Redis.from_url(stores["REDIS_URL"]) as client:
        client.execute_command(
            "ACL", "SETUSER", "looker", "reset", "on", ">pw", "~*", "+@all", "-set"
        )
        place = urlsplit(stores["REDIS_URL"]).netloc.rpartition("@")[2]
        environ = stores | {"REDIS_URL": f"redis://looker:pw@{place}"}
        args = ("doctor", *BLUEPRINT, "--only", "redis")
        try:
            code, page, err = run_here(args, tmp_path, environ)
            assert code == 5, err
            assert "- privilege for verify: read our records, and who holds the lock: yes" in page
            told = "ACL SETUSER looker +set"
            assert f"lock: no. To grant it to a role for apply: {told}." in page
            assert page.count(told) >= 2
            applied = run_here(("apply", *BLUEPRINT, "--only", "redis"), tmp_path, stores)
            assert applied[0] == 0, applied
            code, page, err = run_here(args, tmp_path, environ)
            assert code == 0, err
            assert "schema-capable: no, may read our records, and write none" in page
            waited = run_here(("wait", *BLUEPRINT, "--only", "redis"), tmp_path, environ)
            assert waited[0] == 0, waited
        finally:
            client.execute_command("ACL", "DELUSER", "looker")


def test_a_clock_that_redis_does_not_tell_is_not_taken_for_ours(redis_url):
    """A proxy, or a server that only speaks the protocol, may leave it out of INFO."""
    store = RedisBootstrapper(redis_url, load_blueprint("helpdesk"))
    try:
        store.ping(10)
        assert store.diagnose().clock_difference_s is not None
        info = {name: text for name, text in store._server.info.items() if "time_usec" not in name}
        store._server = replace(store._server, info=info)
        found = store.diagnose()
    finally:
        store.close()
    assert found.clock_difference_s is None
    assert "the clock, which this server leaves out of INFO" in found.unseen


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [("3.0.2", "3.0.4", True), ("2.6.2", "2.6.17", True), ("3.0.2", "2.5.4", False)],
)
def test_a_pymilvus_fits_servers_of_its_own_release(client, server, fits):
    assert bool(list(milvus_mismatches(client, server))) is not fits


@pytest.mark.parametrize(
    ("driver", "server", "fits"),
    [("6.4.1", "5.26.30", True), ("5.26.0", "2026.08.1", True), ("4.4.1", "5.26.30", False)],
)
def test_a_driver_of_neo4j_fits_the_servers_that_it_is_made_for(driver, server, fits):
    assert bool(list(neo4j_mismatches(driver, server))) is not fits


@pytest.mark.parametrize(
    ("client", "server", "fits"),
    [
        ("8.1.0", "7.2.4", True),
        ("8.1.0", "8.8.0", True),
        ("8.1.0", "7.0.15", False),
        ("5.2.1", "6.2.14", True),
        ("5.2.1", "7.4.2", True),
        ("5.2.1", "8.0.0", False),
    ],
)
def test_a_redis_py_fits_the_servers_that_it_is_made_for(client, server, fits):
    assert bool(list(redis_mismatches(client, server))) is not fits


def test_a_pair_that_nobody_can_judge_is_unseen_and_not_taken_for_one_that_fits(redis_url):
    url = StoreUrl.parse("redis", redis_url)
    opened = open_server(url, 5, 5, Translation(url))
    known = diagnosis(url, opened, lambda: None, lambda: None)
    assert known.mismatches == tuple(
        redis_mismatches(redis.__version__, opened.info["redis_version"])
    )
    for told in ({"server_name": "valkey"}, {"dragonfly_version": "df-v1.2"}):
        other = dataclasses.replace(opened, info={**opened.info, **told})
        unknown = diagnosis(url, other, lambda: None, lambda: None)
        assert unknown.mismatches is None
        assert any("fits a server" in each for each in unknown.unseen)
    unseen = []
    assert milvus_diagnosis._judged_mismatches(Release((), "master-20260101-abc"), unseen) is None
    assert "fits Milvus master-20260101-abc" in unseen[0]
    fitting = Release((2, 3), "2.3.5")
    assert milvus_diagnosis._judged_mismatches(fitting, []) is not None


def test_a_neo4j_that_tells_no_address_of_its_own_leaves_it_open_what_stands_in_between():
    url, unseen = StoreUrl.parse("neo4j", "bolt://db:7687"), []
    assert neo4j_diagnosis._between(url, [{"address": None}], unseen) is None
    assert len(unseen) == 1
    assert neo4j_diagnosis._between(url, [{"address": "db:7687"}], unseen) == ()
    assert len(unseen) == 1


def test_a_record_that_cannot_be_read_is_no_ready_store(stores, tmp_path):
    with redis.Redis.from_url(stores["REDIS_URL"]) as client:
        client.set("is-db-bootstrap:memory:helpdesk", "nonsense")
    args = ("doctor", *BLUEPRINT, "--only", "redis")
    code, page, err = run_here(args, tmp_path, stores)
    assert code == 6, err
    assert "## redis: not ready" in page
    assert "- conflict: " in page
    assert "  next: See first that no other store is blank, because this record may be all " in page
    assert "- pending: not seen" in page
    assert "- remembered: not seen" in page
    code, out, _ = run_here((*args, "-o", "json"), tmp_path, stores)
    [store] = json.loads(out)["stores"]
    assert (code, store["error"]["kind"]) == (6, "conflict")
    assert store["diagnosis"]["pending"] is None
    assert store["diagnosis"]["remembered"] is None
    assert any("Then remove it and run again: " in each for each in store["diagnosis"]["unseen"])


def test_a_store_that_was_lost_is_named_as_plan_names_it(farm, redis_url, tmp_path):
    server = farm.shared("postgres")
    environ = {"PATH": os.environ["PATH"], "REDIS_URL": redis_url}
    environ["POSTGRES_URL"] = f"{server.url}/doctor_lost"
    try:
        code, _, err = run_here(("apply", *BLUEPRINT, "--quiet"), tmp_path, environ)
        assert code == 0, err
        drop_database(server, "doctor_lost")
        planned, _, _ = run_here(("plan", *BLUEPRINT), tmp_path, environ)
        code, page, err = run_here(("doctor", *BLUEPRINT), tmp_path, environ)
    finally:
        drop_database(server, "doctor_lost")
    assert (planned, code) == (8, 8), err
    assert "## postgres: not ready" in page
    assert "- reset: " in page
    assert "## redis: ready" in page


def test_what_another_blueprint_has_taken_is_no_ready_store(stores, tmp_path):
    """Nobody named a blueprint, and the database carries another one: apply would refuse it."""
    code, page, err = run_here(("doctor", "--only", "postgres"), tmp_path, stores)
    assert code == 6, err
    assert "## postgres: not ready" in page


def test_a_user_who_may_not_ask_leaves_it_open_what_stands_in_between(stores, tmp_path):
    with redis.Redis.from_url(stores["REDIS_URL"]) as client:
        client.execute_command("ACL SETUSER shut on >shut-word ~* &* +@all -client")
        try:
            place = stores["REDIS_URL"].rpartition("@")[2].removeprefix("redis://")
            environ = stores | {"REDIS_URL": f"redis://shut:shut-word@{place}"}
            args = ("doctor", *BLUEPRINT, "--only", "redis")
            code, page, err = run_here(args, tmp_path, environ)
        finally:
            client.execute_command("ACL DELUSER shut")
    assert code == 0, err
    assert "- in between: not seen" in page
    assert "- not seen: whether a proxy stands in between (CLIENT INFO: this user may not" in page


def test_a_clock_that_a_redis_does_not_tell_is_unknown_and_not_equal(redis_url):
    url = StoreUrl.parse("redis", redis_url)
    opened = open_server(url, 5, 5, Translation(url))
    told = diagnosis(url, opened, lambda: None, lambda: None)
    assert told.clock_difference_s is not None
    assert not any("clock" in each for each in told.unseen)
    info = {name: value for name, value in opened.info.items() if name != "server_time_usec"}
    silent = dataclasses.replace(opened, info=info)
    untold = diagnosis(url, silent, lambda: None, lambda: None)
    assert untold.clock_difference_s is None
    assert "the clock, which this server leaves out of INFO" in untold.unseen
