"""The files of TLS that settings name are looked at before anything is opened.

Each address leads to a port where nothing listens. A command that went there would end with 4.
"""

import os
import shutil
from pathlib import Path

import pytest

from certificates import KEY_PASSWORD, Certificates
from commands import run_here
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.settings import ClientCertificate, Settings, StoreUrl
from is_db_bootstrap.settings.tls_files import expired_on
from is_db_bootstrap.stores.kinds import KINDS

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

URLS = {
    "postgres": "postgresql://u@127.0.0.1:1/x",
    "neo4j": "bolt://127.0.0.1:1",
    "milvus": "https://127.0.0.1:1",
    "redis": "rediss://127.0.0.1:1",
}
#: Those whose client opens an encrypted key.
OPENING = [store for store in STORE_ORDER if KINDS[store].opens_keys]
SMALL = Blueprint("small", "a test")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


def environ(store, certificates, client="client", **more):
    prefix = store.upper()
    return {
        f"{prefix}_URL": URLS[store],
        f"{prefix}_CA_FILE": certificates.pem("ours"),
        f"{prefix}_CERT_FILE": certificates.pem(client),
        f"{prefix}_KEY_FILE": certificates.key(client),
    } | {f"{prefix}_{name}": str(value) for name, value in more.items()}


def missing(folder):
    return folder / "nowhere.pem"


def a_folder(folder):
    return folder


def no_pem(folder):
    (folder / "text").write_text("hello")
    (folder / "text").chmod(0o600)
    return folder / "text"


#: A setting, what it is set to, and the message.
WRONG_FILES = [
    ("CA_FILE", missing, "there is no file {file} for {prefix}_CA_FILE"),
    ("CERT_FILE", missing, "there is no file {file} for {prefix}_CERT_FILE"),
    ("KEY_FILE", missing, "there is no file {file} for {prefix}_KEY_FILE"),
    ("CA_FILE", a_folder, "{file} for {prefix}_CA_FILE is not a file"),
    ("KEY_FILE", a_folder, "{file} for {prefix}_KEY_FILE is not a file"),
    ("CA_FILE", no_pem, "{file} for {prefix}_CA_FILE has no certificate in PEM form"),
    ("CERT_FILE", no_pem, "{file} for {prefix}_CERT_FILE has no certificate in PEM form"),
    ("KEY_FILE", no_pem, "{file} for {prefix}_KEY_FILE has no private key in PEM form"),
]


@pytest.mark.parametrize("store", STORE_ORDER)
@pytest.mark.parametrize("wrong", WRONG_FILES)
def test_a_file_that_cannot_be_used_ends_with_2(certificates, tmp_path, store, wrong):
    name, make, words = wrong
    file = make(tmp_path)
    given = environ(store, certificates, **{name: file})
    args = ("wait", "-b", "novel_genesis", "--only", store)
    code, out, err = run_here(args, tmp_path, given)
    told = " ".join(err.split())
    assert (code, out) == (2, "")
    assert words.format(file=file, prefix=store.upper()) in told


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this is not Linux")
@pytest.mark.parametrize("name", ["CA_FILE", "CERT_FILE", "KEY_FILE"])
def test_a_file_that_cannot_be_read_is_named(certificates, name):
    """Root reads every file, but nobody reads the first byte of a process's memory."""
    given = environ("redis", certificates, **{name: "/proc/self/mem"})
    with pytest.raises(ConfigurationError, match=f"for REDIS_{name} cannot be read: "):
        Settings.load(SMALL, environ=given)


def refused(store, given):
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(SMALL, environ=given)
    return str(caught.value)


@pytest.mark.parametrize("store", STORE_ORDER)
@pytest.mark.parametrize(("left_out", "told"), [("CERT", "CERT"), ("KEY", "KEY")])
def test_a_certificate_and_a_key_go_together(certificates, store, left_out, told):
    given = environ(store, certificates)
    del given[f"{store.upper()}_{left_out}_FILE"]
    assert f"{store.upper()}_{told}_FILE is not." in refused(store, given)


@pytest.mark.parametrize("store", STORE_ORDER)
def test_a_key_password_without_a_key_is_refused(store):
    given = {f"{store.upper()}_URL": URLS[store], f"{store.upper()}_KEY_PASSWORD": KEY_PASSWORD}
    told = refused(store, given)
    assert f"{store.upper()}_KEY_PASSWORD is set, but no key" in told
    assert KEY_PASSWORD not in told


@pytest.mark.parametrize("store", STORE_ORDER)
def test_a_key_of_another_certificate_is_refused(certificates, store):
    given = environ(store, certificates, KEY_FILE=certificates.key("server"))
    assert "does not belong to the certificate" in refused(store, given)


@pytest.mark.parametrize("store", STORE_ORDER)
def test_an_encrypted_key_without_its_password_is_refused(certificates, store):
    told = refused(store, environ(store, certificates, "encrypted"))
    assert "is encrypted" in told
    assert f"{store.upper()}_KEY_PASSWORD_FILE" in told


@pytest.mark.parametrize("store", STORE_ORDER)
def test_a_password_that_opens_no_key_is_refused_and_not_told(certificates, store):
    told = refused(store, environ(store, certificates, "encrypted", KEY_PASSWORD="wrong-secret"))
    assert "the password does not open the key" in told
    assert "wrong-secret" not in told


@pytest.mark.parametrize("store", OPENING)
def test_an_encrypted_key_with_its_password_is_taken(certificates, store):
    given = environ(store, certificates, "encrypted", KEY_PASSWORD=KEY_PASSWORD)
    found = Settings.load(SMALL, environ=given).stores[store]
    assert found.certificate == certificates.client("encrypted")


@pytest.mark.parametrize("store", sorted(set(STORE_ORDER) - set(OPENING)))
def test_a_client_that_opens_no_encrypted_key_is_given_none(certificates, store):
    given = environ(store, certificates, "encrypted", KEY_PASSWORD=KEY_PASSWORD)
    told = refused(store, given)
    assert "reads no encrypted key" in told
    assert "openssl pkey -in KEY -out PLAIN" in told
    assert KEY_PASSWORD not in told


@pytest.mark.parametrize("store", STORE_ORDER)
@pytest.mark.parametrize(("mode", "is_taken"), [(0o600, True), (0o400, True), (0o644, False)])
def test_a_key_that_others_can_read_is_refused_as_libpq_does(
    certificates, tmp_path, store, mode, is_taken
):
    key = tmp_path / "key.pem"
    shutil.copy(certificates.key("client"), key)
    key.chmod(mode)
    given = environ(store, certificates, KEY_FILE=key)
    if is_taken:
        assert Settings.load(SMALL, environ=given).stores[store].certificate
    else:
        told = refused(store, given)
        assert "can be read by others (its mode is 0644)" in told
        assert "chmod 600" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(("owner", "is_taken"), [("root", True), ("nobody", False)])
def test_a_group_may_read_a_key_of_root_as_kubernetes_mounts_it(
    certificates, tmp_path, owner, is_taken
):
    key = tmp_path / "key.pem"
    shutil.copy(certificates.key("client"), key)
    key.chmod(0o440)
    shutil.chown(key, owner)
    given = environ("redis", certificates, KEY_FILE=key)
    if is_taken:
        assert Settings.load(SMALL, environ=given).stores["redis"].certificate
    else:
        assert "can be read by others" in refused("redis", given)


def test_certificate_and_key_may_stand_in_one_file(certificates, tmp_path):
    both = tmp_path / "both.pem"
    parts = [Path(certificates.key("client")), Path(certificates.pem("client"))]
    both.write_text("".join(part.read_text() for part in parts))
    both.chmod(0o600)
    given = environ("redis", certificates, CERT_FILE=both, KEY_FILE=both)
    found = Settings.load(SMALL, environ=given).stores["redis"]
    assert found.certificate == ClientCertificate(str(both), str(both))


# --- beside an address


#: What an address says that contradicts a certificate of ours, and the message.
AGAINST = [
    ("postgres", "postgresql://h/x?sslmode=prefer", "sslmode=prefer, which does not check"),
    ("postgres", "postgresql://h/x?sslcert=/other.pem", "says sslcert"),
    ("redis", "redis://h", "redis:// uses no TLS"),
    ("redis", "rediss://h?ssl_cert_reqs=none", "ssl_cert_reqs=none"),
    ("milvus", "http://h:1", "http:// uses no TLS"),
]


@pytest.mark.parametrize(("store", "url", "words"), AGAINST)
@pytest.mark.parametrize("has_ca_file", [True, False])
def test_an_address_that_contradicts_a_certificate_is_refused(
    certificates, store, url, words, has_ca_file
):
    given = environ(store, certificates, URL=url)
    if not has_ca_file:
        del given[f"{store.upper()}_CA_FILE"]
    assert words in refused(store, given)


def test_a_second_certificate_in_the_address_of_redis_is_refused(certificates):
    url = f"rediss://h?ssl_certfile={certificates.pem('client')}"
    assert "says ssl_certfile" in refused("redis", environ("redis", certificates, URL=url))


def test_milvus_shows_no_certificate_without_a_ca_file_so_that_is_refused(certificates):
    given = environ("milvus", certificates)
    del given["MILVUS_CA_FILE"]
    assert "Set MILVUS_CA_FILE" in refused("milvus", given)


# --- where they come from


@pytest.mark.parametrize("store", OPENING)
@pytest.mark.parametrize("password_as", ["text", "file"])
@pytest.mark.parametrize("source", ["environment", "env file", "TOML"])
def test_every_source_of_settings_has_the_certificate(
    certificates, tmp_path, store, source, password_as
):
    ours = certificates.client("encrypted")
    said = {
        "url": URLS[store],
        "ca_file": certificates.pem("ours"),
        "cert_file": ours.cert_file,
        "key_file": ours.key_file,
        "key_password": KEY_PASSWORD,
    }
    if password_as == "file":
        (tmp_path / "secret").write_text(f"{said.pop('key_password')}\n")
        said["key_password_file"] = str(tmp_path / "secret")
    variables = {f"{store.upper()}_{name.upper()}": value for name, value in said.items()}
    if source == "environment":
        found = Settings.load(SMALL, environ=variables)
    elif source == "env file":
        lines = "".join(f"{name}='{value}'\n" for name, value in variables.items())
        (tmp_path / "vars").write_text(lines)
        found = Settings.load(SMALL, environ={}, env_file=tmp_path / "vars")
    else:
        lines = "".join(f'{name} = "{value}"\n' for name, value in said.items())
        (tmp_path / "own.toml").write_text(f"[{store}]\n{lines}")
        found = Settings.load(SMALL, environ={}, file=tmp_path / "own.toml")
    url = found.stores[store]
    assert (url.ca_file, url.certificate) == (said["ca_file"], ours)
    assert KEY_PASSWORD not in repr(found)
    assert KEY_PASSWORD not in repr(url.certificate)


def test_both_forms_of_the_password_are_refused(certificates, tmp_path):
    (tmp_path / "secret").write_text(KEY_PASSWORD)
    more = {"KEY_PASSWORD": KEY_PASSWORD, "KEY_PASSWORD_FILE": tmp_path / "secret"}
    told = refused("redis", environ("redis", certificates, "encrypted", **more))
    assert "REDIS_KEY_PASSWORD and its _FILE form are both set" in told


def test_the_password_of_a_key_is_taken_out_of_what_others_say(certificates):
    url = StoreUrl("redis", "rediss", "h", certificate=certificates.client("encrypted"))
    assert KEY_PASSWORD not in url.masked(f"cannot open with {KEY_PASSWORD!r} or {KEY_PASSWORD}")


def test_the_day_on_which_a_certificate_has_expired_is_known(certificates):
    assert expired_on(certificates.pem("expired-client")).startswith("20")
    assert not expired_on(certificates.pem("client"))
    assert not expired_on(certificates.key("client"))
    assert not expired_on("/nowhere.pem")
