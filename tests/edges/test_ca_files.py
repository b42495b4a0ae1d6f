"""A CA file is never weakened by an address.

Certificates of another authority or for another host are refused. PostgreSQL and Redis speak TLS
themselves. Neo4j and Milvus stand behind a proxy that ends TLS, since neither the test's Neo4j nor
Milvus Lite is set up for it.
"""

import shutil
import socket
import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import create_engine

from commands import command
from is_db_bootstrap.access import Database
from is_db_bootstrap.blueprint import Blueprint, PoolProfile
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import (
    AccessDenied,
    BootstrapError,
    ConfigurationError,
    StoreUnavailable,
)
from is_db_bootstrap.settings import Settings, StoreUrl, Timing
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import client_arguments
from is_db_bootstrap.stores.postgres.portable import taken_apart
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.testing.clients import open_client
from tls_front import TlsFront

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]

#: Which certificate the server shows, and which authority it is checked with.
TRUSTED, OTHER_HOST, OTHER_AUTHORITY = ("here", "ours"), ("elsewhere", "ours"), ("here", "theirs")
STORES = {
    "postgres": PostgreSQLBootstrapper,
    "neo4j": Neo4jBootstrapper,
    "milvus": MilvusBootstrapper,
    "redis": RedisBootstrapper,
}


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities, and of the first a certificate for 127.0.0.1 and one for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    folder.chmod(0o755)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ours", "theirs"):
        openssl(
            "req",
            "-x509",
            *key,
            "-days",
            2,
            "-subj",
            f"/CN={name}",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.crt",
        )
    for name, host in (("here", "IP:127.0.0.1"), ("elsewhere", "DNS:elsewhere.example")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={host}\n")
        openssl(
            "req",
            *key,
            "-subj",
            f"/CN={name}",
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.csr",
        )
        openssl(
            "x509",
            "-req",
            "-in",
            folder / f"{name}.csr",
            "-CA",
            folder / "ours.crt",
            "-CAkey",
            folder / "ours.key",
            "-CAcreateserial",
            "-days",
            2,
            "-extfile",
            folder / f"{name}.ext",
            "-out",
            folder / f"{name}.crt",
        )
    return folder


@pytest.fixture(scope="module")
def tls_postgres(farm, certificates):
    """`tls_postgres("here")`: the address of one server that shows this certificate from now on."""
    server = farm.make("postgres", password="s3cret")
    at = StoreUrl.parse("postgres", f"{server.url}/postgres")

    def show(name):
        with psycopg.connect(at.reveal(scheme="postgresql"), autocommit=True) as admin:
            data = Path(admin.execute("SHOW data_directory").fetchone()[0])
            for suffix in ("crt", "key"):
                shutil.copy(certificates / f"{name}.{suffix}", data / f"server.{suffix}")
                shutil.chown(data / f"server.{suffix}", data.owner())
                (data / f"server.{suffix}").chmod(0o600)
            admin.execute("ALTER SYSTEM SET ssl = on")
            admin.execute("SELECT pg_reload_conf()")
        shown = (certificates / f"{name}.crt").read_text()
        for _ in range(100):  # the reload reaches the postmaster a little later
            with suppress(psycopg.OperationalError, AssertionError):
                assert served(at) == ssl.PEM_cert_to_DER_cert(shown)
                return at
        raise AssertionError(f"the server does not show {name}")

    yield show
    server.kill()


def served(url):
    """The certificate that the server at `url` shows, as DER."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((url.host, url.port(5432)), timeout=5) as raw:
        raw.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # SSLRequest
        assert raw.recv(1) == b"S"
        with context.wrap_socket(raw) as wrapped:
            return wrapped.getpeercert(binary_form=True)


@pytest.fixture
def secured(certificates, farm, request, tls_postgres):
    """`secured("redis", "here")`: the address of such a server, which shows this certificate."""
    fronts = []

    def open_front(store, certificate):
        if store == "postgres":
            return tls_postgres(certificate)
        server = farm.shared(store)
        fronts.append(
            TlsFront(
                server.port,
                certificates / f"{certificate}.crt",
                certificates / f"{certificate}.key",
            )
        )
        found = StoreUrl.parse(store, server.url)
        return replace(
            found,
            hosts=f"127.0.0.1:{fronts[-1].port}",
            scheme={"redis": "rediss", "milvus": "https"}.get(store, "bolt"),
        )

    yield open_front
    for front in fronts:
        front.close()


def ping(store, url):
    patient = Timing(connect_timeout_s=30)  # a machine may be slow
    opened = STORES[store](url, Blueprint(store, "a test"), timing=patient)
    try:
        return opened.ping(30)
    finally:
        opened.close()


#: What an address may say beside a CA file, and whether it is taken.
WORDS = {
    "postgres": {
        "": True,
        "sslmode=require": True,
        "sslmode=verify-full": True,
        "sslmode=": True,
        "sslmode=disable": False,
        "sslmode=allow": False,
        "sslmode=prefer": False,
        "sslmode=verify-ca": False,
        "sslrootcert=/etc/ssl/other.pem": False,
        "sslrootcert=system": False,
    },
    "redis": {
        "": True,
        "ssl_cert_reqs=required": True,
        "ssl_check_hostname=true": True,
        "ssl_cert_reqs=none": False,
        "ssl_cert_reqs=optional": False,
        "ssl_cert_reqs=none&ssl_cert_reqs=required": False,
        "ssl_check_hostname=false": False,
        "ssl_check_hostname=0": False,
        "ssl_ca_certs=/etc/ssl/other.pem": False,
        "ssl_ca_path=/etc/ssl": False,
    },
    "milvus": {"": True, "secure=true": True, "secure=false": False},
    "neo4j": {"": True},
}
EACH = [(store, words) for store, found in WORDS.items() for words in found]


@pytest.mark.parametrize(("store", "words"), EACH)
def test_beside_a_ca_file_no_word_of_an_address_lets_another_host_pass(
    secured, certificates, store, words
):
    url = secured(store, OTHER_HOST[0])
    url = replace(
        StoreUrl.parse(store, f"{url.reveal()}?{words}"), ca_file=str(certificates / "ours.crt")
    )
    expected = (AccessDenied, StoreUnavailable) if WORDS[store][words] else ConfigurationError
    with pytest.raises(expected):
        ping(store, url)


@pytest.mark.parametrize(("store", "words"), EACH)
def test_beside_a_ca_file_no_word_of_an_address_lets_another_authority_pass(
    secured, certificates, store, words
):
    url = secured(store, OTHER_AUTHORITY[0])
    url = replace(
        StoreUrl.parse(store, f"{url.reveal()}?{words}"), ca_file=str(certificates / "theirs.crt")
    )
    expected = (AccessDenied, StoreUnavailable) if WORDS[store][words] else ConfigurationError
    with pytest.raises(expected):
        ping(store, url)


@pytest.mark.parametrize(("store", "words"), [(s, w) for s, w in EACH if WORDS[s][w]])
def test_beside_a_ca_file_the_right_certificate_passes(secured, certificates, store, words):
    url = secured(store, TRUSTED[0])
    url = replace(
        StoreUrl.parse(store, f"{url.reveal()}?{words}"), ca_file=str(certificates / "ours.crt")
    )
    assert ping(store, url).version


@pytest.mark.parametrize("scheme", ["bolt+ssc", "neo4j+ssc", "bolt+s", "bolt", "neo4j"])
def test_no_scheme_of_neo4j_weakens_a_ca_file(secured, certificates, scheme):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        url = replace(
            secured("neo4j", certificate),
            scheme=scheme,
            ca_file=str(certificates / f"{authority}.crt"),
        )
        with pytest.raises((AccessDenied, StoreUnavailable)):
            ping("neo4j", url)


@pytest.mark.parametrize(
    ("store", "scheme"), [("redis", "redis"), ("milvus", "http"), ("milvus", "tcp")]
)
def test_a_scheme_without_tls_is_refused_beside_a_ca_file_by_the_store_too(
    farm, certificates, store, scheme
):
    url = StoreUrl.parse(store, farm.shared(store).url)
    with pytest.raises(ConfigurationError, match="uses no TLS"):
        ping(store, replace(url, scheme=scheme, ca_file=str(certificates / "ours.crt")))


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_pgsslmode_does_not_weaken_a_ca_file(secured, certificates, monkeypatch, mode):
    monkeypatch.setenv("PGSSLMODE", mode)
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        url = replace(
            secured("postgres", certificate), ca_file=str(certificates / f"{authority}.crt")
        )
        with pytest.raises(AccessDenied):
            ping("postgres", url)


@pytest.mark.parametrize("word", ["ssl=require", "ssl=true", "ssl=verify-full"])
def test_what_asyncpg_calls_ssl_is_checked_with_the_ca_file(secured, certificates, word):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        text = secured("postgres", certificate).reveal(scheme="postgresql+asyncpg")
        url = replace(
            StoreUrl.parse("postgres", f"{text}?{word}"),
            ca_file=str(certificates / f"{authority}.crt"),
        )
        with pytest.raises(AccessDenied):
            ping("postgres", url)


@pytest.mark.parametrize("word", ["ssl=prefer", "ssl=false", "ssl=disable", "ssl=allow"])
def test_what_asyncpg_calls_ssl_is_refused_when_it_weakens_the_ca_file(certificates, word):
    url = StoreUrl.parse("postgres", f"postgresql+asyncpg://u@127.0.0.1:1/x?{word}")
    with pytest.raises(ConfigurationError, match="does not check the server's certificate"):
        ping("postgres", replace(url, ca_file=str(certificates / "ours.crt")))


def test_an_sslrootcert_of_the_address_is_used_to_check_and_not_passed_over(secured, certificates):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        text = secured("postgres", certificate).reveal()
        with pytest.raises(AccessDenied):
            ping(
                "postgres",
                StoreUrl.parse("postgres", f"{text}?sslrootcert={certificates / authority}.crt"),
            )
    text = secured("postgres", TRUSTED[0]).reveal()
    assert ping(
        "postgres", StoreUrl.parse("postgres", f"{text}?sslrootcert={certificates / 'ours.crt'}")
    ).version
    with pytest.raises(ConfigurationError, match="does not check the server's certificate"):
        ping(
            "postgres",
            StoreUrl.parse(
                "postgres", f"{text}?sslrootcert={certificates / 'ours.crt'}&sslmode=prefer"
            ),
        )


def test_an_authority_in_the_address_of_redis_is_not_switched_off_there(certificates):
    url = f"rediss://127.0.0.1:1?ssl_ca_certs={certificates / 'ours.crt'}&ssl_cert_reqs=none"
    with pytest.raises(ConfigurationError, match="ssl_cert_reqs=none"):
        ping("redis", StoreUrl.parse("redis", url))


#: Each way in which libpq, or we, come to a CA file.
#: Each returns a query and what the settings say.
def by_settings(file, _):
    return "", str(file)


def by_address(file, _):
    return f"sslrootcert={file}", ""


def by_variable(file, environ):
    environ.setenv("PGSSLROOTCERT", str(file))
    return "", ""


def by_service_of_the_address(file, environ):
    write_service(file, environ)
    return "service=checked", ""


def by_service_of_the_environment(file, environ):
    write_service(file, environ)
    environ.setenv("PGSERVICE", "checked")
    return "", ""


def by_system(file, environ):
    environ.setenv("SSL_CERT_FILE", str(file))
    return "sslrootcert=system", ""


def write_service(file, environ):
    services = file.parent / f"{file.stem}.conf"
    services.write_text(f"[checked]\nsslrootcert={file}\nsslmode=require\n")
    environ.setenv("PGSERVICEFILE", str(services))


WAYS = [
    by_settings,
    by_address,
    by_variable,
    by_service_of_the_address,
    by_service_of_the_environment,
    by_system,
]
CHECKED = ("", "sslmode=require", "sslmode=verify-full")
REFUSED = ("sslmode=disable", "sslmode=allow", "sslmode=prefer", "sslmode=verify-ca")


def with_words(url, way, words, file, environ):
    query, ca_file = way(file, environ)
    asked = "&".join(part for part in (query, words) if part)
    return replace(StoreUrl.parse("postgres", f"{url.reveal()}?{asked}"), ca_file=ca_file)


@pytest.mark.parametrize(
    # PGSSLROOTCERT alone forces nothing on this machine.
    ("way", "words"),
    [(way, words) for way in WAYS for words in CHECKED if words or way is not by_variable],
)
def test_whichever_way_a_ca_file_comes_the_host_name_is_checked(
    secured, certificates, monkeypatch, way, words
):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY, TRUSTED):
        at = secured("postgres", certificate)
        with monkeypatch.context() as environ:  # the fixture connects without it
            url = with_words(at, way, words, certificates / f"{authority}.crt", environ)
            if (certificate, authority) == TRUSTED:
                assert ping("postgres", url).version
            else:
                with pytest.raises(AccessDenied):
                    ping("postgres", url)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("words", REFUSED)
def test_whichever_way_a_ca_file_comes_no_address_switches_the_check_off(
    certificates, monkeypatch, way, words
):
    nobody = StoreUrl.parse("postgres", "postgresql://u@127.0.0.1:1/x")
    url = with_words(nobody, way, words, certificates / "ours.crt", monkeypatch)
    with pytest.raises(ConfigurationError, match=f"says {words}, which does not check"):
        ping("postgres", url)


@pytest.mark.parametrize(
    ("way", "mode"),
    [
        (way, mode)
        for way in WAYS
        for mode in ("disable", "allow", "prefer", "require", "verify-ca")
        if mode in {"require", "verify-ca"} or way is not by_variable
    ],
)
def test_pgsslmode_weakens_no_ca_file_whichever_way_it_comes(
    secured, certificates, monkeypatch, way, mode
):
    at = secured("postgres", OTHER_HOST[0])
    monkeypatch.setenv("PGSSLMODE", mode)
    url = with_words(at, way, "", certificates / f"{OTHER_HOST[1]}.crt", monkeypatch)
    with pytest.raises(AccessDenied):
        ping("postgres", url)


HERE = ("127.0.0.1", "127.9.9.9", "localhost", "[::1]", "%2Ftmp", "", "localhost,127.0.0.1")
ELSEWHERE = ("db.example", "10.0.0.7", "[fd00::a]", "localhost,db.example", "localhost.example")


def tls_arguments(monkeypatch, file, host, words="", ca_file="", **environ):
    """What of TLS a client is given beside PGSSLROOTCERT."""
    monkeypatch.setenv("PGSSLROOTCERT", str(file))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    url = StoreUrl.parse("postgres", f"postgresql://u@{host}/x?{words}")
    found = client_arguments(replace(url, ca_file=ca_file))
    return {name: found[name] for name in ("sslmode", "sslrootcert") if name in found}


@pytest.mark.parametrize("host", HERE)
def test_pgsslrootcert_alone_forces_no_tls_on_this_machine(certificates, monkeypatch, host):
    assert tls_arguments(monkeypatch, certificates / "ours.crt", host) == {}


@pytest.mark.parametrize(
    ("host", "words", "environ"),
    [(host, "", {}) for host in ELSEWHERE]
    + [
        ("localhost", "hostaddr=10.0.0.7", {}),
        ("localhost", "", {"PGHOSTADDR": "10.0.0.7"}),
        ("", "", {"PGHOST": "db.example"}),
        ("localhost", "sslmode=require", {}),
        ("localhost", "sslcert=/own.pem", {}),
        ("localhost", "", {"PGSSLMODE": "require"}),
    ],
)
def test_pgsslrootcert_is_checked_with_elsewhere_and_where_tls_is_asked_for(
    certificates, monkeypatch, host, words, environ
):
    file = certificates / "ours.crt"
    found = tls_arguments(monkeypatch, file, host, words, **environ)
    assert found == {"sslmode": "verify-full", "sslrootcert": str(file)}


def test_a_ca_file_that_is_named_is_checked_with_on_this_machine_too(certificates, monkeypatch):
    ours, theirs = str(certificates / "ours.crt"), str(certificates / "theirs.crt")
    expected = {"sslmode": "verify-full", "sslrootcert": ours}
    assert tls_arguments(monkeypatch, theirs, "localhost", ca_file=ours) == expected
    assert tls_arguments(monkeypatch, theirs, "localhost", f"sslrootcert={ours}") == expected


def test_pgsslrootcert_lets_a_server_of_this_machine_without_tls_be_used(
    farm, certificates, monkeypatch
):
    monkeypatch.setenv("PGSSLROOTCERT", str(certificates / "ours.crt"))
    text = f"{farm.shared('postgres').url}/postgres"
    assert ping("postgres", StoreUrl.parse("postgres", text)).version
    with pytest.raises(AccessDenied) as caught:
        ping("postgres", StoreUrl.parse("postgres", f"{text}?sslmode=require"))
    assert "PGSSLROOTCERT" in caught.value.hint


AUTHORITIES = {
    "ssl_ca_certs": str,
    "ssl_ca_data": lambda file: quote(file.read_text(), safe=""),
}


@pytest.mark.parametrize("option", AUTHORITIES)
def test_an_authority_in_the_address_of_redis_checks_the_host_name(secured, certificates, option):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        words = f"{option}={AUTHORITIES[option](certificates / f'{authority}.crt')}"
        text = secured("redis", certificate).reveal()
        with pytest.raises((AccessDenied, StoreUnavailable)):
            ping("redis", StoreUrl.parse("redis", f"{text}?{words}"))
    words = f"{option}={AUTHORITIES[option](certificates / f'{TRUSTED[1]}.crt')}"
    text = secured("redis", TRUSTED[0]).reveal()
    assert ping("redis", StoreUrl.parse("redis", f"{text}?{words}")).version


@pytest.mark.parametrize(
    ("store", "text", "told"),
    [
        ("redis", "redis://h?ssl_ca_certs=/ca.pem", "redis://, which uses no TLS"),
        ("redis", "unix:///tmp/s?ssl_ca_path=/ca", "unix://, which uses no TLS"),
        ("redis", "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=no", "the host's name"),
        ("redis", "rediss://h?ssl_ca_path=/ca&ssl_cert_reqs=none", "server's certificate"),
        ("milvus", "https://h?server_pem_path=/ca.pem", "give the file as MILVUS_CA_FILE"),
        ("milvus", "https://h?ca_pem_path=/ca.pem", "give the file as MILVUS_CA_FILE"),
        ("neo4j", "neo4j://h?trusted_certificates=/ca.pem", "give the file as NEO4J_CA_FILE"),
    ],
)
def test_a_ca_file_in_an_address_that_would_not_be_used_is_refused(store, text, told):
    with pytest.raises(ConfigurationError, match=told):
        ping(store, StoreUrl.parse(store, text))


@pytest.mark.parametrize("store", STORES)
def test_the_client_of_a_fixture_checks_with_the_ca_file_too(secured, certificates, store):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        url = secured(store, certificate)
        url = replace(url, ca_file=str(certificates / f"{authority}.crt"))
        with pytest.raises(Exception, match=r"(?i)certificate|ssl|fail|connect"):
            used(store, url)
    url = replace(secured(store, TRUSTED[0]), ca_file=str(certificates / f"{TRUSTED[1]}.crt"))
    used(store, url)


def used(store, url):
    client, close = open_client(store, url, "public")
    try:
        if store == "postgres":
            client.connect().close()
        elif store == "neo4j":
            client.verify_connectivity()
        elif store == "milvus":
            client.list_collections()
        else:
            client.ping()
    finally:
        close()


@pytest.mark.parametrize(
    "words",
    [
        "ssl_check_hostname=false",
        "ssl_verify_cert=false",
        "ssl_verify_cert=true",
        "ssl_verify_identity=true",
        "ssl_disabled=true",
    ],
)
def test_a_ca_file_of_mariadb_is_not_weakened_by_its_address(words):
    with pytest.raises(ConfigurationError, match=f"names a CA file, but says {words}"):
        taken_apart(f"mysql+pymysql://me:secret@h/x?ssl_ca=/ca.pem&{words}")
    address = taken_apart("mysql+pymysql://me:secret@h/x?ssl_ca=/ca.pem")
    _, arguments = create_engine(address).dialect.create_connect_args(address)
    assert arguments["ssl"] == {"ca": "/ca.pem"}  # with which PyMySQL checks both


async def test_access_checks_with_the_ca_file_too(secured, certificates):
    for certificate, authority in (OTHER_HOST, OTHER_AUTHORITY):
        at = replace(
            secured("postgres", certificate), ca_file=str(certificates / f"{authority}.crt")
        )
        database = Database(at, profile=PoolProfile(min_size=1, max_size=1))
        with pytest.raises(BootstrapError):
            await database.open()
    database = Database(
        replace(at, query=(("sslmode", "prefer"),)), profile=PoolProfile(min_size=1, max_size=1)
    )
    with pytest.raises(ConfigurationError, match="sslmode=prefer"):
        await database.open()


@pytest.mark.parametrize("store", ["postgres", "redis", "milvus"])
def test_settings_refuse_in_one_line_an_address_that_weakens_its_ca_file(certificates, store):
    weak = {
        "postgres": "postgresql://h/x?sslmode=require&sslmode=disable",
        "redis": "rediss://h?ssl_cert_reqs=none",
        "milvus": "https://h?secure=false",
    }[store]
    environ = {
        f"{store.upper()}_URL": weak,
        f"{store.upper()}_CA_FILE": str(certificates / "ours.crt"),
    }
    with pytest.raises(ConfigurationError, match="a CA file is set"):
        Settings.load(load_blueprint("novel_genesis"), environ=environ)


def test_a_weakened_ca_file_ends_the_command_with_2(certificates):
    environ = {
        "POSTGRES_URL": "postgresql://u:p@127.0.0.1:1/x?sslmode=prefer",
        "POSTGRES_CA_FILE": str(certificates / "ours.crt"),
    }
    code, out, err = command("status", "-b", "context_service", environ=environ)
    assert (code, out) == (2, [])
    assert len(err.splitlines()) == 1
    assert "sslmode=prefer" in err
