"""The four stores with TLS, and with a certificate of the client's.

Each server is a real one, is started once, shows a certificate for `localhost`, and asks for a
certificate of ours. What is wrong is always on our side, except for a certificate that has expired:
a front that ends TLS shows that one, because no server but Redis takes another one while it runs.
"""

import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from urllib.parse import quote

import pytest
import redis
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

import tls_servers
from certificates import KEY_PASSWORD, Certificates
from commands import run_here
from is_db_bootstrap.access import Database
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.settings.tls import tls_variables
from is_db_bootstrap.stores.postgres.connection import placeholders
from is_db_bootstrap.stores.postgres.team_driver import TeamDriver
from is_db_bootstrap.stores.redis.connection import open_client as open_redis
from is_db_bootstrap.testing.clients import open_async_client, open_client
from is_db_bootstrap.testing.session import TestSession
from is_db_bootstrap.testing.sources import GivenServers
from tls_front import TlsFront

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]
STORES = ("postgres", "neo4j", "milvus", "redis")
#: No waiting is needed for what is wrong for good. A run that waits for it takes this long.
TIMEOUT_S = 100
#: A fault is found at once. A plain Redis says nothing for as long as one attempt may take.
QUICKLY_S = 40


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secured(farm, certificates):
    """`secured("redis")`: a server that speaks TLS and asks for a client's certificate."""
    started = {}

    def start(store):
        if store not in started:
            if store == "milvus":  # two servers of 2.3 cannot run beside each other
                farm.make_way("milvus", "2.3")
            home = farm.folder / f"tls-{store}"
            started[store] = tls_servers.start(store, home, certificates)
        return started[store]

    yield start
    for server in started.values():
        server.kill()


def address(store, server):
    return server.address + ("/postgres" if store == "postgres" else "")


def environment(store, url, certificates, *, ca="ours", client="client"):
    """What a person sets for one store."""
    prefix = store.upper()
    found = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), f"{prefix}_URL": url}
    if ca:
        found[f"{prefix}_CA_FILE"] = certificates.pem(ca)
    if client:
        ours = certificates.client(client)
        found[f"{prefix}_CERT_FILE"] = ours.cert_file
        found[f"{prefix}_KEY_FILE"] = ours.key_file
        if ours.key_password:
            found[f"{prefix}_KEY_PASSWORD"] = ours.key_password
    return found


def waited(store, environ, folder):
    """`wait` for one store: exit code, everything that was said, and seconds."""
    begun = time.monotonic()
    args = ("wait", "-b", "novel_genesis", "--only", store, "--timeout", TIMEOUT_S, "-v")
    code, out, err = run_here(args, folder, environ)
    return code, out + err, time.monotonic() - begun


def assert_silent(told, certificates):
    """No text of a key and no password is told."""
    assert KEY_PASSWORD not in told
    assert tls_servers.PASSWORD not in told
    for key in certificates.folder.glob("*.key"):
        body = [line for line in key.read_text().splitlines() if not line.startswith("-")]
        assert not any(line in told for line in body if len(line) > 16)


def everything(secured, certificates):
    """The environment that names all four servers, with the key of each."""
    found = {}
    for store in STORES:
        url = secured(store).address + ("/tls_novel" if store == "postgres" else "")
        found |= environment(store, url, certificates)
    return found


# --- what is right


@pytest.mark.parametrize("store", STORES)
def test_a_server_that_asks_for_a_certificate_is_reached_with_it(
    secured, certificates, tmp_path, store
):
    url = address(store, secured(store))
    code, told, _ = waited(store, environment(store, url, certificates), tmp_path)
    assert code == 0, told
    assert_silent(told, certificates)


@pytest.mark.parametrize("store", [store for store in STORES if store != "milvus"])
@pytest.mark.parametrize("form", ["variable", "file"])
def test_an_encrypted_key_is_opened_with_its_password(secured, certificates, tmp_path, store, form):
    url = address(store, secured(store))
    environ = environment(store, url, certificates, client="encrypted")
    if form == "file":
        secret = tmp_path / "password"
        secret.write_text(f"{environ.pop(f'{store.upper()}_KEY_PASSWORD')}\n")
        environ[f"{store.upper()}_KEY_PASSWORD_FILE"] = str(secret)
    code, told, _ = waited(store, environ, tmp_path)
    assert code == 0, told
    assert_silent(told, certificates)


# A session makes a database of its own on Milvus, in which 2.3 does not show an alias in time.
@pytest.mark.parametrize("store", [store for store in STORES if store != "milvus"])
def test_a_session_of_tests_on_given_servers_shows_the_certificate(
    secured, certificates, tmp_path, store
):
    """The servers are still empty here, or the session would leave them alone.

    What the session says to the code under test is enough to reach the same store.
    """
    given = environment(store, address(store, secured(store)), certificates)
    session = TestSession(GivenServers(given))
    try:
        with session.stores(load_blueprint("novel_genesis")) as stores:
            url = stores.url(store)
            said = {f"{store.upper()}_URL": url.reveal(), **tls_variables(url)}
            code, told, _ = waited(store, environment(store, "", certificates) | said, tmp_path)
    finally:
        session.close()
    assert code == 0, told
    assert session.troubles == []


# --- what is wrong


def under_its_number(url):
    return url.replace("localhost", "127.0.0.1")


def in_plain_text(url):
    plain = url.replace("rediss:", "redis:").replace("https:", "http:")
    return f"{plain}?sslmode=disable" if plain.startswith("postgresql") else plain


#: Each fault: what is set otherwise, the cause in the message, and a word of the next step.
FAULTS = {
    "another host": (
        {"url": under_its_number},
        "the server's certificate is not for the host 127.0.0.1",
        "subjectAltName 127.0.0.1",
    ),
    "another authority": (
        {"ca": "theirs"},
        "theirs.crt has signed the server's certificate",
        "Name the file of the server's authority in {}_CA_FILE",
    ),
    "no certificate": (
        {"client": ""},
        "the server asks for a client certificate, and none is set",
        "Set {}_CERT_FILE and {}_KEY_FILE",
    ),
    "a certificate of another authority": (
        {"client": "foreign-client"},
        "the client certificate",
        "Show one that an authority of the server's has signed",
    ),
    "a certificate that has expired": (
        {"client": "expired-client"},
        "It expired on 20",
        "Have it renewed",
    ),
    "plain text": (
        {"url": in_plain_text, "ca": "", "client": ""},
        "the server speaks TLS, and the address asks for none",
        "{}_CA_FILE",
    ),
}
#: PostgreSQL speaks both on one port, and its `pg_hba.conf` refuses plain text.
IN_ITS_OWN_WORDS = {("postgres", "plain text"): "no encryption"}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("store", STORES)
def test_what_is_wrong_with_tls_ends_at_once_with_its_cause_and_the_next_step(
    secured, certificates, tmp_path, store, fault
):
    other, cause, step = FAULTS[fault]
    other = dict(other)
    url = other.pop("url", str)(address(store, secured(store)))
    environ = environment(store, url, certificates, **other)
    code, told, seconds = waited(store, environ, tmp_path)
    assert code == 5, told
    words = " ".join(told.split())
    assert IN_ITS_OWN_WORDS.get((store, fault), cause) in words
    assert step.format(store.upper(), store.upper()) in words
    assert f"{store}: TLS: no, " in words
    assert f"{store}: login: " not in words
    assert seconds < QUICKLY_S
    assert_silent(told, certificates)


@pytest.mark.parametrize("store", STORES)
def test_a_certificate_of_the_server_that_has_expired_is_told(farm, certificates, tmp_path, store):
    server = farm.shared(store)
    front = TlsFront(
        server.port,
        certificates.pem("expired-server"),
        certificates.key("expired-server"),
        request=b"\x00\x00\x00\x08\x04\xd2\x16\x2f" if store == "postgres" else b"",
    )
    try:
        scheme = {"postgres": "postgresql", "neo4j": "bolt", "milvus": "https", "redis": "rediss"}
        url = f"{scheme[store]}://localhost:{front.port}"
        environ = environment(store, url, certificates, client="")
        code, told, seconds = waited(store, environ, tmp_path)
    finally:
        front.close()
    assert code == 5, told
    assert "a certificate of the server has expired" in " ".join(told.split())
    assert "Renew the server's certificate" in " ".join(told.split())
    assert seconds < QUICKLY_S


@pytest.mark.parametrize("store", STORES)
def test_a_server_without_tls_is_told(farm, certificates, tmp_path, store):
    server = farm.shared(store)
    url = server.url.replace("127.0.0.1", "localhost")
    url = url.replace("redis:", "rediss:").replace("http:", "https:")
    environ = environment(store, url, certificates)
    code, told, seconds = waited(store, environ, tmp_path)
    assert code == 5, told
    words = " ".join(told.split())
    assert "without TLS" in words or "It most likely speaks no TLS" in words
    assert f"leave {store.upper()}_CA_FILE and {store.upper()}_CERT_FILE out" in words
    assert seconds < QUICKLY_S


# --- every connection

#: Each command that connects, in an order in which one can follow the other.
COMMANDS = (
    ("wait",),
    ("apply",),
    ("plan",),
    ("verify",),
    ("status",),
    # Milvus takes its time for one, and has the same client in all commands.
    *(("selftest", "--only", store) for store in ("postgres", "neo4j", "redis")),
    ("setup", "--yes"),
    ("redis", "audit"),
    ("vector", "status"),
    ("migrate", "current"),
    ("new", "taken", "--from-stores"),
)


@pytest.fixture(scope="module")
def applied(secured, certificates, tmp_path_factory):
    """The environment of four servers to which novel_genesis was applied, and what that said."""
    environ = everything(secured, certificates)
    environ["IS_DB_BOOTSTRAP_BLUEPRINT"] = "novel_genesis"
    code, out, err = run_here(("apply",), tmp_path_factory.mktemp("applied"), environ)
    assert code == 0, out + err
    return environ


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_shows_the_certificate(applied, certificates, tmp_path, words):
    code, out, err = run_here(words, tmp_path, applied)
    assert code in {0, 3}, out + err
    assert_silent(out + err, certificates)


def test_each_worker_of_a_fleet_shows_the_certificate(applied, certificates, tmp_path):
    targets = tmp_path / "targets.jsonl"
    entries = [{"name": name, "postgres": {"database": name}} for name in ("tls_a", "tls_b")]
    targets.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    args = ("apply", "--targets", targets, "--only", "postgres", "--jobs", 2)
    code, out, err = run_here(args, tmp_path, applied)
    assert code == 0, out + err
    assert_silent(out + err, certificates)


def stores_of(applied):
    settings = Settings.load(load_blueprint("novel_genesis"), environ=applied)
    return settings.stores


def used(store, client):
    """One answer of the server, through the client of a fixture."""
    if store == "postgres":
        return client.connect().close()
    if store == "neo4j":
        return client.verify_connectivity()
    return client.list_collections() if store == "milvus" else client.ping()


@pytest.mark.parametrize("store", STORES)
def test_the_client_of_a_fixture_shows_the_certificate(applied, store):
    client, close = open_client(store, stores_of(applied)[store], "public")
    try:
        used(store, client)
    finally:
        close()


@pytest.mark.parametrize("store", STORES)
async def test_the_client_of_an_asynchronous_fixture_shows_the_certificate(applied, store):
    client, close = open_async_client(store, stores_of(applied)[store], "public")
    try:
        if store == "postgres":
            async with client.connect() as connection:
                await connection.exec_driver_sql("SELECT 1")
        else:
            await used(store, client)
    finally:
        await close()


async def test_the_pool_of_a_service_shows_the_certificate(applied):
    async with Database.for_blueprint("novel_genesis", applied) as database:
        health = await database.check(30)
    assert health.ok, health.error


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "psycopg2", "asyncpg"])
@pytest.mark.parametrize("client", ["client", "encrypted"])
def test_the_driver_of_a_team_shows_the_certificate(secured, certificates, driver, client):
    url = StoreUrl.parse("postgres", address("postgres", secured("postgres")))
    url = replace(url, ca_file=certificates.pem("ours"), certificate=certificates.client(client))
    found = TeamDriver(driver, is_known=True).run(url, 10, is_encrypted)
    assert found is True


def is_encrypted(connection):
    query = "SELECT ssl AND client_dn IS NOT NULL FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    return connection.exec_driver_sql(query).scalar()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_address_for_an_env_py_has_the_certificate_in_it(secured, certificates, driver):
    text = address("postgres", secured("postgres"))
    url = StoreUrl.parse("postgres", text.replace("postgresql:", f"postgresql+{driver}:"))
    ours = certificates.client("encrypted")
    url = replace(url, ca_file=certificates.pem("ours"), certificate=ours)
    engine = create_engine(placeholders(url, "public")["url"], poolclass=NullPool)
    with engine.connect() as connection:
        assert is_encrypted(connection) is True


# --- Redis with Sentinels, and as a cluster


@pytest.fixture
def sentinel(secured, certificates, tmp_path):
    """The address of a Sentinel with TLS that watches the Redis with TLS."""
    server = secured("redis")
    port = free_port()
    folder = server.home / "tls"
    lines = [
        "bind 127.0.0.1",
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {folder}/server.crt",
        f"tls-key-file {folder}/server.key",
        f"tls-ca-cert-file {folder}/ca.crt",
        "tls-replication yes",
        "sentinel resolve-hostnames yes",
        "sentinel announce-hostnames yes",
        f"sentinel monitor main localhost {server.port} 1",
        f'sentinel auth-pass main "{server.password}"',
    ]
    yield from started_redis(lines, port, certificates, tmp_path, "--sentinel")


@pytest.fixture
def cluster(certificates, tmp_path):
    """The port of a cluster of one server with TLS.

    redis-py looks up the name `localhost` of such a server, so this one has a number.
    """
    port = free_port()
    lines = [
        "bind 127.0.0.1",
        "port 0",
        f"tls-port {port}",
        f"tls-cert-file {certificates.pem('numbered-server')}",
        f"tls-key-file {certificates.key('numbered-server')}",
        f"tls-ca-cert-file {certificates.pem('ours')}",
        "tls-cluster yes",
        "cluster-enabled yes",
        f"dir {tmp_path}",
    ]
    for found in started_redis(lines, port, certificates, tmp_path):
        client = plain_client(found, certificates)
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 60
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def plain_client(port, certificates, host="127.0.0.1"):
    return redis.Redis(
        host=host,
        ssl_check_hostname=False,
        port=port,
        ssl=True,
        ssl_ca_certs=certificates.pem("ours"),
        ssl_certfile=certificates.pem("client"),
        ssl_keyfile=certificates.key("client"),
    )


def started_redis(lines, port, certificates, folder, *options):
    conf = folder / "redis.conf"
    conf.write_text("\n".join(lines) + "\n")
    command = ["/usr/bin/redis-server", str(conf), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                plain_client(port, certificates).ping()
                break
            except redis.ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def check_redis_asks_for_certificate(url, certificates, folder, client):
    """See that servers of Redis let us in with a certificate, and say what they miss without."""
    environ = environment("redis", url, certificates, client=client)
    code, told, _ = waited("redis", environ, folder)
    assert code == (0 if client else 5), told
    assert client or "the server asks for a client certificate" in " ".join(told.split())
    if client:
        at = StoreUrl.parse("redis", url)
        at = replace(at, ca_file=certificates.pem("ours"), certificate=certificates.client())
        assert open_redis(at, redis).ping()


@pytest.mark.parametrize("client", ["client", ""])
def test_sentinels_and_their_master_are_shown_the_certificate(
    secured, sentinel, certificates, tmp_path, client
):
    secret = quote(secured("redis").password, safe="")
    url = f"rediss+sentinel://:{secret}@localhost:{sentinel}/main/0"
    check_redis_asks_for_certificate(url, certificates, tmp_path, client)


@pytest.mark.parametrize("client", ["client", ""])
def test_a_cluster_is_shown_the_certificate(cluster, certificates, tmp_path, client):
    url = f"rediss+cluster://127.0.0.1:{cluster}"
    check_redis_asks_for_certificate(url, certificates, tmp_path, client)


# --- the other mode of Milvus


def test_a_milvus_of_tls_mode_1_checks_no_certificate_of_ours(
    secured, farm, certificates, tmp_path
):
    """Its own certificate is checked all the same. The last test here, for it stops mode 2."""
    secured("milvus").kill()
    home = farm.folder / "tls-milvus-1"
    server = tls_servers.start("milvus", home, certificates, tls_mode=1)
    try:
        for client in ("", "client"):
            environ = environment("milvus", server.address, certificates, client=client)
            code, told, _ = waited("milvus", environ, tmp_path)
            assert code == 0, told
        for other in ({"url": under_its_number(server.address)}, {"ca": "theirs"}):
            given = {"url": server.address, "client": ""} | other
            environ = environment("milvus", certificates=certificates, **given)
            code, told, _ = waited("milvus", environ, tmp_path)
            assert code == 5, told
    finally:
        server.kill()
