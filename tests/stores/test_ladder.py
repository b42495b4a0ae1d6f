"""The ladder that `wait` climbs: which rung a store stands on, and whether waiting helps."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
import uuid
from concurrent import futures
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest
import redis
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from certificates import Certificates
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.ladder import SETTLE_S
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.events import Phase
from is_db_bootstrap.results import Mode
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.members import refuse_members
from is_db_bootstrap.stores.neo4j.privileges import told_privileges
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.testing.memory import InMemoryBootstrapper
from servers import PASSWORD
from tap import Tap
from tls_front import TlsFront

BLUEPRINT = Blueprint(
    "ladder", "for tests", keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "x"),)
)
STORES = {
    "postgres": PostgreSQLBootstrapper,
    "neo4j": Neo4jBootstrapper,
    "milvus": MilvusBootstrapper,
    "redis": RedisBootstrapper,
}
SCHEMES = {"postgres": "postgresql", "neo4j": "bolt", "milvus": "http", "redis": "redis"}
WRONG = "not-the-password"


def climbed(store, url, *, deadline_s=0.3, connect_timeout_s=2.0, mode=Mode.WAIT, **options):
    """What a run that climbs found out about one store, and the rungs that it told of."""
    timing = Timing(connect_timeout_s=connect_timeout_s)
    told = []
    retry = RetryPolicy(deadline_s=deadline_s, **options)
    run = BootstrapOrchestrator(
        [STORES[store](url, BLUEPRINT, timing=timing)],
        retry=retry,
        climbs=True,
        observers=[told.append],
    )
    [found] = run.run(mode).stores
    return found, [event.rung for event in told if event.rung is not None]


def failed_rung(result):
    """The rung that a store has not reached. All rungs below are reached, none above is told."""
    *below, last = result.rungs
    assert [each.rung for each in result.rungs] == list(Rung)[: len(result.rungs)]
    assert all(each.ok is not False for each in below)
    assert last.ok is False
    # A wait that has run out of time says so before the cause.
    assert result.error.message.endswith(last.text)
    assert last.hint
    return last


@contextmanager
def silence():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as door:
        yield door.getsockname()[1]


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


@pytest.mark.parametrize("store", STORES)
def test_a_name_that_does_not_resolve_is_waited_for_and_named(store):
    found, _ = climbed(store, f"{SCHEMES[store]}://nobody.invalid:7")
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.NAME, False)
    assert "nobody.invalid" in rung.text
    assert found.exception.exit_code == 4


@pytest.mark.parametrize("store", STORES)
def test_a_port_where_nobody_listens_is_waited_for_and_named(store):
    port = closed_port()
    found, _ = climbed(store, f"{SCHEMES[store]}://127.0.0.1:{port}")
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.PORT, False)
    assert rung.text.endswith("does not answer: it refuses connections, so nothing listens there.")
    assert f"127.0.0.1:{port}" in rung.text


@pytest.mark.parametrize("store", STORES)
def test_a_port_that_takes_connections_and_says_nothing_is_no_port_that_answers(store):
    with silence() as port:
        found, _ = climbed(
            store, f"{SCHEMES[store]}://127.0.0.1:{port}", deadline_s=3, connect_timeout_s=0.5
        )
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.PORT, False)
    assert found.exception.exit_code == 4


def test_one_host_of_several_is_enough_for_a_rung():
    """So a standby that is down keeps nobody from the primary."""
    port = closed_port()
    found, _ = climbed("postgres", f"postgresql://nobody.invalid:7,127.0.0.1:{port}/x")
    rung = failed_rung(found)
    assert rung.rung is Rung.PORT
    assert found.rungs[0].text == "127.0.0.1"


def test_another_run_than_wait_looks_at_no_single_rung_of_a_store_that_answers():
    class Watched(InMemoryBootstrapper):
        def places(self):
            raise AssertionError

        rungs = server_age_s = places

    result = BootstrapOrchestrator([Watched(applied=["a"], wanted=["a"])]).run()
    assert result.ok
    assert result.stores[0].rungs == ()


def test_another_run_than_wait_names_a_host_that_does_not_resolve():
    run = BootstrapOrchestrator(
        [RedisBootstrapper("redis://nobody.invalid:7", BLUEPRINT)], retry=RetryPolicy(deadline_s=0)
    )
    [found] = run.run().stores
    assert failed_rung(found).rung is Rung.NAME


# --- login


#: What every login of a client has in it, as it is sent.
LOGINS = {"postgres": b"SCRAM-SHA-256\x00", "neo4j": b"credentials", "redis": b"AUTH"}


#: Seconds within which a wrong password is told. It takes half a second here when nobody else is at
#: work, and a second look at the server, or one wait of a client, would take more than this.
AT_ONCE_S = 3.0
#: What other work on this machine may add. Less than 9 s, which a login took once.
NOISE_S = 3.0


def assert_tried_once(store, url, tap, mode):
    """A wrong password is told within seconds, and has reached the server in one login."""
    begun = time.monotonic()
    found, _ = climbed(store, url, deadline_s=60, mode=mode)
    took_s = time.monotonic() - begun
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.LOGIN, True)
    assert found.exception.exit_code == 5
    assert found.diagnosis is None
    assert sum(sent.count(LOGINS[store]) for sent in tap.sent) == 1
    assert took_s < AT_ONCE_S + NOISE_S


@pytest.fixture
def tapped(farm, make_server):
    """`tapped("neo4j")`: a server that asks for a password, its user, and a proxy before it."""
    taps = []

    def tap(store):
        is_redis = store == "redis"
        server = make_server("redis", password=PASSWORD) if is_redis else farm.shared(store)
        taps.append(Tap(server.port))
        return taps[-1], "" if is_redis else f"{urlsplit(server.url).username}"

    yield tap
    for each in taps:
        each.close()


ASKING = [pytest.param(store, marks=getattr(pytest.mark, store)) for store in LOGINS]


@pytest.mark.parametrize("mode", [Mode.WAIT, Mode.DOCTOR])
@pytest.mark.parametrize("store", ASKING)
def test_a_wrong_password_is_tried_once_and_ends_the_wait(tapped, store, mode):
    """Three wrong ones would lock a user of Neo4j out."""
    tap, user = tapped(store)
    url = f"{SCHEMES[store]}://{user}:{WRONG}@127.0.0.1:{tap.port}"
    assert_tried_once(store, url, tap, mode)


#: Scheme and options of an address with TLS whose certificate is not checked.
WITH_TLS = {
    "postgres": ("postgresql", "/postgres?sslmode=require"),
    "neo4j": ("bolt+ssc", ""),
    "redis": ("rediss", "?ssl_cert_reqs=none"),
}
#: How libpq asks for TLS.
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("store", ASKING)
def test_a_wrong_password_through_tls_is_tried_once_and_ends_the_wait(tapped, tmp_path, store):
    """What TLS has to do with it is looked at only when TLS has failed."""
    certificates = Certificates.make(tmp_path)
    tap, user = tapped(store)
    pair = certificates.pem("server"), certificates.key("server")
    front = TlsFront(tap.port, *pair, request=SSL_REQUEST if store == "postgres" else b"")
    scheme, rest = WITH_TLS[store]
    try:
        url = f"{scheme}://{user}:{WRONG}@127.0.0.1:{front.port}{rest}"
        assert_tried_once(store, url, tap, Mode.WAIT)
    finally:
        front.close()


# --- PostgreSQL


@pytest.fixture
def postgres(farm):
    """An administrator's session, and `address(user, database)` on the session's server."""
    server = farm.shared("postgres")
    parts = urlsplit(server.url)

    def address(user, database):
        return f"postgresql://{user}:pw@{parts.hostname}:{parts.port}/{database}"

    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as admin:
        yield admin, address


@pytest.fixture
def role(postgres):
    """The name of a login without privileges. It has a database of the same name."""
    admin, _ = postgres
    name = f"ladder_{uuid.uuid4().hex[:8]}"
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw'")
    admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    yield name
    admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    admin.execute(f"DROP ROLE {name}")


@pytest.mark.postgres
def test_a_missing_database_is_open_where_the_role_may_create_it(postgres, role):
    admin, address = postgres
    refused, _ = climbed("postgres", address(role, "not_there"))
    rung = failed_rung(refused)
    assert (rung.rung, rung.is_permanent) == (Rung.SCHEMA, True)
    assert rung.hint.startswith("Let an administrator run: CREATE DATABASE")
    admin.execute(f"ALTER ROLE {role} CREATEDB")
    found, _ = climbed("postgres", address(role, "not_there"))
    assert found.error is None
    [target] = [each for each in found.rungs if each.rung is Rung.TARGET]
    assert target.ok is None
    assert "apply creates it" in target.text
    query = "SELECT FROM pg_database WHERE datname = 'not_there'"
    assert admin.execute(query).fetchone() is None


@pytest.mark.postgres
def test_a_role_that_may_not_create_tables_fails_on_the_highest_rung(postgres, role):
    admin, address = postgres
    found, _ = climbed("postgres", address(role, role))
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.SCHEMA, True)
    assert f'GRANT USAGE, CREATE ON SCHEMA "public" TO "{role}"' in rung.hint
    admin.execute(f"ALTER DATABASE {role} OWNER TO {role}")
    found, told = climbed("postgres", address(role, role))
    assert found.error is None
    assert [each.rung for each in told] == list(Rung)


@pytest.mark.parametrize("port", ["abc", "0", "65536", "5432,x"])
def test_what_is_no_port_in_the_query_of_an_address_is_a_wrong_address(port):
    found, _ = climbed("postgres", f"postgresql://u@h,h/db?port={port}")
    assert found.exception.exit_code == 2
    assert "is not a port (1 to 65535)" in found.exception.message


@pytest.mark.postgres
def test_a_role_that_only_reads_is_waited_for_on_the_rung_of_writing(postgres, role):
    admin, address = postgres
    admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    found, _ = climbed("postgres", address(role, role))
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.WRITABLE, False)
    assert "default_transaction_read_only" in rung.text


@pytest.mark.postgres
@pytest.mark.parametrize("phase", [Phase.PLAN, Phase.LOCK, Phase.REPLAN, Phase.APPLY])
def test_a_password_that_changes_under_a_run_ends_it_and_changes_nothing_by_half(
    postgres, role, tmp_path, phase
):
    """Sessions that are open stay. What needs a new one is refused, and is not tried again."""
    admin, address = postgres
    admin.execute(f"ALTER DATABASE {role} OWNER TO {role}")
    (tmp_path / "a1.py").write_text(
        "from alembic import op\nrevision = 'a1'\ndown_revision = None\n"
        "def upgrade():\n    op.execute('CREATE TABLE account (id int)')\n"
        "def downgrade():\n    pass\n"
    )
    blueprint = Blueprint("rotated", "for tests", migrations=tmp_path)

    def rotate(event):
        if event.kind == "phase" and event.phase is phase:
            admin.execute(f"ALTER ROLE {role} PASSWORD 'another'")

    def run(observers=()):
        store = PostgreSQLBootstrapper(address(role, role), blueprint)
        retry = RetryPolicy(deadline_s=60)
        return BootstrapOrchestrator([store], retry=retry, observers=observers).run()

    begun = time.monotonic()
    result = run([rotate])
    assert time.monotonic() - begun < 30
    assert result.exit_code == 5, result
    assert "password" in result.stores[0].error.message
    with psycopg.connect(address(role, role).replace(":pw@", ":another@")) as session:
        found = session.execute("SELECT to_regclass('account')").fetchone()
    assert found == (None,)
    admin.execute(f"ALTER ROLE {role} PASSWORD 'pw'")
    again = run()
    assert again.ok, again
    assert [change.name for change in again.stores[0].changes] == ["a1"]


@pytest.mark.postgres
def test_a_server_that_shuts_down_is_waited_for(make_server):
    """57P03, which a server that starts says too."""
    server = make_server("postgres", password=PASSWORD)
    session = psycopg.connect(f"{server.url}/postgres")
    try:
        os.kill(server.pid, signal.SIGTERM)  # the smart shutdown waits for our session
        found = None
        deadline = time.monotonic() + 30
        while (found is None or found.error is None) and time.monotonic() < deadline:
            found, _ = climbed("postgres", f"{server.url}/postgres", deadline_s=0)
        rung = failed_rung(found)
        assert (rung.rung, rung.is_permanent) == (Rung.LOGIN, False)
        assert "shutting down" in rung.text
    finally:
        session.close()


class FirstBoot:
    """A server that starts as the official image does for the first time.

    A server for its scripts listens on a socket only, ends, and another one listens on TCP. That
    one is held where it lets nobody in yet (57P03): it recovers until a file is there.
    """

    def __init__(self, server):
        self.server = server
        self._go = server.home / "go"
        self._usual = server.command
        self._start(listen_addresses="", unix_socket_directories=server.home)

    def _start(self, **settings):
        options = [f"-c{name}={value}" for name, value in settings.items()]
        self.server.command = lambda: [*self._usual(), *options]
        self.server.start()

    def answers_on_its_socket(self):
        address = {"host": str(self.server.home), "port": self.server.port, "user": "postgres"}
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(**address, password=PASSWORD, dbname="postgres").close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return True

    def restart(self):
        self.server.stop()
        (self.server.data / "recovery.signal").touch()
        self._start(restore_command=f"while [ ! -e {self._go} ]; do sleep 0.1; done; false")

    def let_in(self):
        self._go.touch()


@pytest.mark.postgres
def test_the_first_boot_of_an_image_is_waited_for_until_its_second_server_lets_in(farm):
    """docker-library/postgres#920: the first server is asked nothing, because it has no port."""
    server = farm.make("postgres", start=False, password=PASSWORD)
    boot = FirstBoot(server)
    assert boot.answers_on_its_socket()
    seen = []
    steps = {
        Rung.PORT: boot.restart,
        Rung.LOGIN: boot.let_in,
    }

    def observe(event):
        if event.rung is not None:
            seen.append(event.rung)

    def sleep(seconds):
        """Let the next thing happen once `wait` has said how far it has got."""
        failed = [each.rung for each in seen if each.ok is False]
        if failed and failed[-1] in steps:
            steps.pop(failed[-1])()
        time.sleep(min(seconds, 0.2))

    try:
        timing = Timing(connect_timeout_s=10)
        store = PostgreSQLBootstrapper(f"{server.url}/postgres", BLUEPRINT, timing=timing)
        retry = RetryPolicy(deadline_s=120, sleep=sleep)
        run = BootstrapOrchestrator([store], retry=retry, climbs=True, observers=[observe])
        result = run.run(Mode.WAIT)
    finally:
        server.kill()
    assert result.ok, result
    assert steps == {}
    failed = {each.rung: each for each in seen if each.ok is False}
    assert "nothing listens there" in failed[Rung.PORT].text
    assert "the database system is starting up" in failed[Rung.LOGIN].text
    assert not any(each.is_permanent for each in failed.values())


# --- Redis


@pytest.mark.redis
def test_a_replica_is_waited_for_on_the_rung_of_writing(make_server):
    server = make_server("redis")
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", closed_port())
    found, _ = climbed("redis", server.url)
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.WRITABLE, False)
    assert "read-only replica" in rung.text


@pytest.mark.redis
def test_a_user_without_the_right_to_write_our_records_fails_on_the_highest_rung(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(
            "ACL", "SETUSER", "looker", "reset", "on", ">pw", "~*", "+@all", "-set"
        )
        try:
            parts = urlsplit(redis_url)
            url = f"redis://looker:pw@{parts.hostname}:{parts.port}"
            found, _ = climbed("redis", url)
        finally:
            client.execute_command("ACL", "DELUSER", "looker")
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.SCHEMA, True)
    assert found.exception.exit_code == 5


@pytest.mark.redis
def test_a_redis_that_loads_its_data_is_waited_for_with_the_seconds_that_are_left(make_server):
    server = make_server("redis", "7")
    with redis.Redis.from_url(server.url) as client:
        client.mset({f"key:{number}": "x" * 1000 for number in range(5000)})
        client.save()
    server.kill()
    configure = server.configure

    def configure_slowly():
        configure()
        with (server.home / "redis.conf").open("a", encoding="utf-8") as file:
            # Microseconds for each key.
            file.write("key-load-delay 5000\nloading-process-events-interval-bytes 1024\n")

    server.configure = configure_slowly
    server.start()
    rung = None
    deadline = time.monotonic() + 40
    while (rung is None or rung.rung is Rung.PORT) and time.monotonic() < deadline:
        # A doctor tries once and takes its time, so no try is cut short by a deadline.
        found, _ = climbed("redis", server.url, deadline_s=5, mode=Mode.DOCTOR)
        rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.TARGET, False), rung.text
    assert "loading_eta_seconds" in rung.text


@pytest.mark.redis
def test_a_server_that_goes_away_after_its_first_success_is_not_ready_yet(make_server):
    """As the first start of an official image does. Two successes, a moment apart, are asked for."""
    server = make_server("redis")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 1:
            server.kill()
        elif not server.alive():
            server.start()
        else:
            time.sleep(min(seconds, 0.2))

    found, told = climbed("redis", server.url, deadline_s=60, sleep=sleep)
    assert pauses[0] == SETTLE_S
    assert found.error is None
    assert Rung.PORT in {each.rung for each in told if each.ok is False}
    assert pauses.count(SETTLE_S) >= 2


# --- Milvus


class Starting(grpc.GenericRpcHandler):
    """A proxy that answers, and is not ready: Milvus's words of milvus#16781."""

    def service(self, call):
        status = common_pb2.Status(
            error_code=1, code=2, reason="Milvus Proxy is not ready yet. please wait"
        )
        answers = {
            "Connect": milvus_pb2.ConnectResponse,
            "GetVersion": milvus_pb2.GetVersionResponse,
        }
        answer = answers.get(call.method.rpartition("/")[2])
        if answer is None:
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda _request, _context: answer(status=status).SerializeToString()
        )


@pytest.mark.milvus
def test_a_milvus_proxy_that_is_not_ready_is_waited_for():
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Starting(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        found, _ = climbed("milvus", f"http://127.0.0.1:{port}", deadline_s=0.5)
    finally:
        server.stop(None)
    rung = failed_rung(found)
    assert (rung.rung, rung.is_permanent) == (Rung.LOGIN, False)
    assert "Milvus Proxy is not ready yet" in rung.text


# --- all of it


@pytest.mark.parametrize(
    "store", [pytest.param(store, marks=getattr(pytest.mark, store)) for store in STORES]
)
def test_a_store_that_is_ready_stands_on_every_rung(farm, store):
    url = farm.shared(store).url
    found, told = climbed(store, url, deadline_s=60, connect_timeout_s=30)
    assert found.error is None
    assert {each.rung for each in told} == set(Rung)
    assert [each.rung for each in found.rungs] == list(Rung)
    assert all(each.ok is not False and each.text for each in found.rungs)
    assert PASSWORD not in "".join(each.text for each in found.rungs)


def test_the_place_of_a_milvus_behind_a_proxy_is_the_proxy(monkeypatch):
    monkeypatch.setenv("grpc_proxy", "http://user:secret@proxy.example:3128")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    [place] = MilvusBootstrapper("http://milvus.example:19530", BLUEPRINT).places()
    assert (place.host, place.port) == ("proxy.example", 3128)
    assert "secret" not in place.remark


def test_a_socket_is_a_place_without_a_name(tmp_path):
    path = tmp_path / "s.sock"
    found, _ = climbed("redis", f"unix://{path}")
    rung = failed_rung(found)
    assert rung.rung is Rung.PORT
    assert str(path) in rung.text
    places = PostgreSQLBootstrapper("postgresql://%2Fvar%2Frun:5433/x", BLUEPRINT).places()
    assert [str(place) for place in places] == ["/var/run/.s.PGSQL.5433"]


#: Every form of several hosts, and the places to which it leads.
FORMS = {
    "a:1,b:2/x": ["a:1", "b:2"],
    "a,b/x": ["a:5432", "b:5432"],
    "/x?host=a,b&port=1,2": ["a:1", "b:2"],
    "/x?host=a:1&host=b:2": ["a:1", "b:2"],
    "a/x?port=7": ["a:7"],
    "a,b:2/x?hostaddr=10.0.0.1,10.0.0.2": ["10.0.0.1:5432", "10.0.0.2:2"],
    "a:1/x?hostaddr=10.0.0.1": ["10.0.0.1:1"],
    "[::1]:1,b/x": ["[::1]:1", "b:5432"],
    "/x": [],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_places_of_postgres_are_those_that_its_client_is_given(form):
    places = PostgreSQLBootstrapper(f"postgresql://u@{form}", BLUEPRINT).places()
    assert [str(place) for place in places] == FORMS[form]


@pytest.mark.parametrize(
    ("store", "url", "places"),
    [
        ("redis", "redis+sentinel://a,b:7/main/0", ["a:26379", "b:7"]),
        ("redis", "redis+cluster://a,[::1]:7", ["a:6379", "[::1]:7"]),
        ("neo4j", "neo4j://a", ["a:7687"]),
        ("milvus", "https://a", ["a:443"]),
    ],
)
def test_the_places_of_other_stores_have_their_usual_port(store, url, places):
    assert [str(place) for place in STORES[store](url, BLUEPRINT).places()] == places


@pytest.mark.parametrize("address", ["bolt://One", "bolt://one:7687", "bolt://[::1]:7687"])
def test_a_server_of_neo4j_is_known_by_its_address_also_without_a_port(address):
    """So the row of this very server counts, and not that of another one."""
    mine = "[::1]:7687" if "::1" in address else "one:7687"
    rows = [
        {
            "name": "shop",
            "address": each,
            "writer": each == "two:7687",
            "access": "read-write",
            "currentStatus": "online",
            "statusMessage": "",
        }
        for each in (mine, "two:7687")
    ]
    with pytest.raises(StoreUnavailable, match=r"Its writer is two:7687"):
        refuse_members(StoreUrl.parse("neo4j", address), rows)


def test_libpq_alone_knows_the_place_of_a_service():
    url = replace(StoreUrl.parse("postgres", "postgresql:///x"), query=(("service", "mine"),))
    assert PostgreSQLBootstrapper(url, BLUEPRINT).places() == []


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("GRANTED", "index", "*"), ("GRANTED", "constraint", "*")], True),
        ([("GRANTED", "database_actions", "*")], True),
        ([("GRANTED", "index", "other"), ("GRANTED", "constraint", "*")], None),
        ([("GRANTED", "match", "*")], None),
        (
            [("GRANTED", "index", "*"), ("GRANTED", "constraint", "*"), ("DENIED", "index", "*")],
            None,
        ),
    ],
)
def test_privileges_of_neo4j_that_are_not_known_here_are_not_taken_for_missing(rows, expected):
    """Rows as the manual has them. The Enterprise Edition cannot be had here."""
    named = [dict(zip(("access", "action", "graph"), row, strict=True)) for row in rows]
    assert told_privileges(named, "neo4j").may_change_schema is expected
