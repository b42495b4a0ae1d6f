"""Every way to write an address of Redis: options, sockets, TLS, Sentinels and clusters."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time

import pytest
import redis
import redis.asyncio.sentinel
from redis.connection import URL_QUERY_ARGUMENT_PARSERS

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreUnavailable
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.redis.address_options import _ELSEWHERE, _FROM_PYTHON, read_options
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.connection import open_client

pytestmark = pytest.mark.redis

PROGRAM = shutil.which("redis-server", path="/usr/bin")
needs_server = pytest.mark.skipif(PROGRAM is None, reason="Debian's redis-server is not installed")
SHOP = Blueprint(
    "shop", "for tests", keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),)
)


def whole_run(url, blueprint=SHOP):
    store = RedisBootstrapper(url, blueprint)
    result = BootstrapOrchestrator([store]).run()
    assert result.outcome is Outcome.CHANGED, result
    return store


# --- options

WORKING = (
    "client_name=boot",
    "decode_responses=True",
    "decode_responses=no",
    "encoding=latin-1",
    "encoding_errors=replace",
    "health_check_interval=2",
    "lib_name=x",
    "lib_version=2",
    "max_connections=1",
    "protocol=2",
    "protocol=3",
    "retry_on_timeout=true",
    "single_connection_client=true",
    "socket_connect_timeout=5",
    "socket_keepalive=true",
    "socket_read_size=64",
    "socket_timeout=5",
    "db=1",
    "socket_timeout=5&decode_responses=1&protocol=3&client_name=boot",
)


@pytest.mark.parametrize("query", WORKING)
@pytest.mark.filterwarnings("ignore:.*lib_:DeprecationWarning")  # redis-py 8, of lib_name
def test_an_option_of_redis_py_works_for_a_run_and_for_a_fixture(redis_url, query):
    url = f"{redis_url.rpartition('/')[0]}?{query}"
    whole_run(url)
    with open_client(StoreUrl.parse("redis", url), redis) as client:
        client.set("cart:1", "x")
        is_text = "decode_responses=True" in query or "decode_responses=1" in query
        assert client.get("cart:1") == ("x" if is_text else b"x")


REFUSED = {
    "foo=bar": "is not known",
    "family=6": "is not known",
    "socket_timout=5": "Did you mean socket_timeout?",
    "socket_timeout=5s": "is no number of seconds above 0",
    "socket_timeout=0": "is no number of seconds above 0",
    "socket_connect_timeout=-1": "is no number of seconds above 0",
    "max_connections=0": "is no whole number from 1 on",
    "health_check_interval=x": "is no whole number from 0 on",
    "protocol=9": "is none of 2, 3",
    "decode_responses=perhaps": "is neither true nor false",
    "encoding=klingon": "unknown encoding",
    "encoding_errors=shrug": "unknown error handler",
    "timeout=5": "Write socket_timeout",
    "ssl=true": "rediss://",
    "ssl_cert_reqs=none": "Write rediss:// for TLS",
    "ssl_ca_certs=/x": "uses no TLS",
    "host=x": "stands before the question mark",
    "unix_socket_path=/x": "unix:///run/redis.sock",
    "service_name=x": "redis+sentinel://host:26379/NAME/0",
    "sentinel_password=x": "Write redis+sentinel://",
    "connection_class=x": "cannot be written in an address",
    "pool_class=x": "cannot be written in an address",
    "retry_on_error=TimeoutError": "cannot be written in an address",
    "client_name=a&client_name=b": "is there twice",
    "client_name=a%20b": "has a character that the server refuses there",
    "db=abc": "is not a number",
}


@pytest.mark.parametrize("query", REFUSED)
def test_an_option_that_cannot_work_is_refused_in_one_line_when_it_is_read(query):
    with pytest.raises(ConfigurationError) as refusal:
        RedisBootstrapper(f"redis://nowhere.invalid?{query}", SHOP)
    text = f"{refusal.value.message} {refusal.value.hint}"
    assert REFUSED[query] in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("ssl_cert_reqs=CERT_NONE", None),
        ("ssl_cert_reqs=optional", None),
        ("ssl_check_hostname=false", None),
        ("ssl_min_version=1.2", None),
        ("ssl_min_version=771", None),
        ("ssl_ciphers=ECDHE-ECDSA-AES256-GCM-SHA384", None),
        ("ssl_include_verify_flags=VERIFY_X509_STRICT,VERIFY_X509_PARTIAL_CHAIN", None),
        ("ssl_exclude_verify_flags=[VERIFY_X509_STRICT]", None),
        ("ssl_validate_ocsp=false", None),
        ("ssl_cert_reqs=maybe", "is none of none, optional, required"),
        ("ssl_min_version=2", "is no version of TLS"),
        ("ssl_ciphers=ROT13", "names no cipher"),
        ("ssl_include_verify_flags=NONE", "names no flag of ssl.VerifyFlags"),
        ("ssl_ca_certs=/nowhere.pem", "names a file that is not there"),
        ("ssl_certfile=/nowhere.pem", "names a file that is not there"),
        ("ssl_ca_path=/nowhere", "names a folder that is not there"),
        ("ssl_ocsp_context=x", "cannot be written in an address"),
    ],
)
def test_an_option_of_tls_is_taken_or_refused_when_it_is_read(query, words):
    def read():
        return RedisBootstrapper(f"rediss://nowhere.invalid?{query}", SHOP)

    if words is None:
        read()
        return
    with pytest.raises(ConfigurationError, match=words):
        read()


def test_every_option_that_redis_py_reads_from_an_address_is_known_here():
    def is_known(name):
        if name == "db" or name in _ELSEWHERE or name in _FROM_PYTHON:
            return True
        try:
            read_options([(name, "?")], tls=True, tcp=True, sentinels=True)
        except ConfigurationError as exc:
            return "is not known" not in exc.message
        return True

    assert [name for name in URL_QUERY_ARGUMENT_PARSERS if not is_known(name)] == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("redis://one,two/0", "names several servers"),
        ("redis+sentinel://one,two", "which of the Sentinels' services"),
        ("redis+sentinel://one/shop?cluster=true", "asks for Sentinels and for a cluster"),
        ("redis+cluster://one/3", "has only database 0"),
        ("redis+sentinel://one/shop/x", "is not a number"),
        ("redis+cluster://one?sentinel_password=x", "is one of Sentinels"),
        ("unix:///x?socket_keepalive=true", "is none of a socket"),
    ],
)
def test_an_address_that_contradicts_itself_is_refused_when_it_is_read(address, words):
    with pytest.raises(ConfigurationError, match=words):
        RedisBootstrapper(address, SHOP)


def test_an_address_of_sentinels_is_written_again_as_it_was_read():
    text = "redis+sentinel://me:secret@one:1,two/shop/3?sentinel_password=another-one"
    url = StoreUrl.parse("redis", text)
    assert (url.service, url.database) == ("shop", "3")
    assert url.reveal() == text
    assert str(url) == "redis+sentinel://me:***@one:1,two/shop/3"
    assert "another-one" not in url.masked("the password another-one was refused")


# --- servers of one's own


def free_port():
    while True:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        if port < 55_000:  # The bus of a cluster listens 10,000 above.
            return port


@pytest.fixture
def start(tmp_path):
    """`start("--port", …)`: a server of Debian's version in a folder of its own; its process."""
    made = []

    def start_one(*arguments):
        folder = tmp_path / f"server-{len(made)}"
        folder.mkdir()
        command = [PROGRAM, *arguments, "--bind", "127.0.0.1", "--dir", str(folder)]
        for _ in range(20):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            try:
                process.wait(timeout=0.3)
            except subprocess.TimeoutExpired:
                made.append(process)
                return process
        raise AssertionError(f"{command} ends at once")  # another process keeps its port

    yield start_one
    for process in made:
        process.kill()
        process.wait()


def until(condition, what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, StoreUnavailable):
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def client_at(port, **options):
    return redis.Redis(port=port, decode_responses=True, **options)


@needs_server
def test_a_socket_takes_the_options_of_every_connection(start, tmp_path):
    path = tmp_path / "r.sock"
    start("--port", "0", "--save", "", "--unixsocket", str(path))
    until(path.exists, "the socket was not there")
    whole_run(f"unix://{path}?db=2&client_name=boot&decode_responses=true&socket_timeout=3")
    with redis.Redis(unix_socket_path=str(path), db=2) as client:
        assert client.dbsize() == 1


@pytest.fixture
def watched(start, tmp_path):
    """A master, its replica and one Sentinel with a password of its own: their ports."""
    master, replica, sentinel = free_port(), free_port(), free_port()
    secret = (
        "--requirepass",
        "right",
        "--masterauth",
        "right",
        "--save",
        "",
        "--repl-diskless-sync-delay",
        "0",
    )
    start("--port", str(master), *secret)
    start(
        "--port",
        str(replica),
        *secret,
        "--replicaof",
        "127.0.0.1",
        str(master),
    )
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        "requirepass watching\n"
        f"sentinel monitor shop 127.0.0.1 {master} 1\n"
        f"sentinel known-replica shop 127.0.0.1 {replica}\n"
        "sentinel auth-pass shop right\n"
        "sentinel down-after-milliseconds shop 1000\n"
        "sentinel failover-timeout shop 2000\n"
    )
    start(str(conf), "--sentinel", "--port", str(sentinel))

    def knows_replica():
        with client_at(sentinel, password="watching") as client:
            return client.sentinel_masters()["shop"]["num-slaves"] == 1

    def is_linked():
        with client_at(replica, password="right") as client:
            return client.info("replication")["master_link_status"] == "up"

    until(is_linked, "the replica was not linked")
    until(knows_replica, "the Sentinel did not see the replica")
    return master, replica, sentinel


@needs_server
def test_the_master_of_sentinels_is_found_again_after_a_fail_over(watched):
    master, replica, sentinel = watched
    place = f"127.0.0.1:1,127.0.0.1:{sentinel}/shop/3"
    url = f"redis+sentinel://:right@{place}?sentinel_password=watching"
    store = whole_run(url)
    with client_at(master, password="right", db=3) as client:
        assert client.keys() == ["is-db-bootstrap:conventions:shop"]
    following = open_client(StoreUrl.parse("redis", url), redis, decode_responses=True)
    following.set("cart:1", "x", ex=60)

    async def read_asynchronously():
        client = open_client(StoreUrl.parse("redis", url), redis.asyncio)
        try:
            return await client.get("cart:1")
        finally:
            await client.aclose()

    assert asyncio.run(read_asynchronously()) == b"x"
    with pytest.raises(ConfigurationError, match="watch no service shelf") as wrong_name:
        RedisBootstrapper(url.replace("/shop/", "/shelf/"), SHOP).ping(5)
    assert wrong_name.value.hint == "They watch shop."
    with pytest.raises(AccessDenied):
        RedisBootstrapper(url.replace("=watching", "=guessed"), SHOP).ping(5)
    with pytest.raises(ConfigurationError, match="is a Sentinel") as plain:
        RedisBootstrapper(f"redis://:watching@127.0.0.1:{sentinel}", SHOP).ping(5)
    assert "redis+sentinel://host:26379/NAME/0, where NAME is shop" in plain.value.hint

    with client_at(sentinel, password="watching") as client:
        client.execute_command("SENTINEL FAILOVER shop")

        def has_moved():
            return client.sentinel_get_master_addr_by_name("shop")[1] == replica

        until(has_moved, "there was no fail-over")

    later = Blueprint("shop", "", keys=(*SHOP.keys, KeyPattern("o", "o:{id}", "set", 9, "a", "x")))
    store = RedisBootstrapper(url, later, timing=Timing(timeout_s=60))
    result = BootstrapOrchestrator([store]).run()
    assert result.outcome is Outcome.CHANGED, result
    with client_at(replica, password="right", db=3) as client:
        assert "o:{id}" in client.get("is-db-bootstrap:conventions:shop")
    until(lambda: following.set("cart:2", "x", ex=60), "the fixture did not follow")
    following.close()


@needs_server
def test_a_cluster_is_reached_by_any_of_its_nodes(start):
    ports = [free_port() for _ in range(3)]
    for port in ports:
        start("--port", str(port), "--save", "", "--cluster-enabled", "yes")
    for port in ports:
        until(lambda port=port: client_at(port).ping(), "a node did not start")
    nodes = [f"127.0.0.1:{port}" for port in ports]
    create = ["redis-cli", "--cluster", "create", *nodes, "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True, timeout=120)
    url = f"redis+cluster://127.0.0.1:1,{','.join(nodes)}?decode_responses=true"

    def is_ready():
        """Each node has to know by itself that all slots are served."""
        RedisBootstrapper(url, SHOP).ping(5)
        states = [client_at(port).execute_command("CLUSTER", "INFO") for port in ports]
        return all("cluster_state:ok" in str(state) for state in states) or all(
            isinstance(state, dict) and state.get("cluster_state") == "ok" for state in states
        )

    until(is_ready, "the cluster did not form")
    store = whole_run(url)
    assert store.ping(5).edition == "cluster"
    assert all(proof.ok for proof in store.selftest())
    lock = store.try_lock("this run")
    assert lock.confirm()
    assert lock.release()
    with open_client(StoreUrl.parse("redis", url), redis) as client:
        for number in range(30):
            client.set(f"cart:{number}", "x")
        assert client.get("cart:7") == "x"
    assert [drift.message for drift in store.audit()][-1] == "25 more keys of cart break it"
    one_node = f"redis://{nodes[1]}?cluster=true"
    assert BootstrapOrchestrator([RedisBootstrapper(one_node, SHOP)]).run().ok


def test_a_single_server_is_no_cluster(redis_url):
    address = redis_url.removesuffix("/0").replace("redis://", "redis+cluster://")
    with pytest.raises(ConfigurationError, match="is no cluster"):
        RedisBootstrapper(address, SHOP).ping(5)
