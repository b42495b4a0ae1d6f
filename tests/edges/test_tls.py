"""The four stores with TLS, and with a certificate of the client's.

Each server is a real one, is started once, shows a certificate for `localhost`, and asks for a
certificate of ours. What is wrong is always on our side, except for a certificate that has expired:
a front that ends TLS shows that one, because no server but Redis takes another one while it runs.
"""

import os
import shutil
import time

import pytest

import tls_servers
from certificates import KEY_PASSWORD, Certificates
from commands import run_here
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
#: A blueprint of the smallest size for each store.
BLUEPRINT = """
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, KeyConvention

SMALL = Blueprint(
    "small",
    "a test",
    keys=(KeyConvention("small:{id}", "string", ttl_s=60),),
)
"""
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
    args = ("wait", "-b", "novel_genesis", "--only", store, "--timeout", TIMEOUT_S)
    code, out, err = run_here(args, folder, environ)
    return code, out + err, time.monotonic() - begun


def assert_silent(told, certificates):
    """No text of a key and no password is told."""
    assert KEY_PASSWORD not in told
    assert tls_servers.PASSWORD not in told
    for key in certificates.folder.glob("*.key"):
        body = [line for line in key.read_text().splitlines() if not line.startswith("-")]
        assert not any(line in told for line in body if len(line) > 16)


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
