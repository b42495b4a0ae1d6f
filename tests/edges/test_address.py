"""Addresses: taken apart in one place, and no part of a password shown."""

import json
import random
from pathlib import PurePath
from urllib.parse import quote

import psycopg.conninfo
import pytest
import redis.connection
from sqlalchemy.engine import make_url

from is_db_bootstrap.errors import AccessDenied, ConfigurationError
from is_db_bootstrap.settings.address import (
    SCHEMES,
    Address,
    AddressError,
    StoreUrl,
)
from is_db_bootstrap.settings.secrets import (
    forms,
    may_hold_secret,
    shown,
    without_addresses,
    without_typed,
)
from secret_words import Search, passwords

STORES = ("postgres", "neo4j", "milvus", "redis")
WORDS = list(passwords(50, seed=12))


def parts(store, text):
    url = StoreUrl.parse(store, text)
    return url.username, url.password, url.hosts, url.database


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    "password",
    ["p@ss", "a/b", "a?b", "a#b", "p@s/s?w#r:d", "@", "a:b@c/d@e", "[x]", "a b", "q\"'\\", "x?y=z"],
)
def test_the_last_at_ends_the_user_part(store, password):
    text = f"{SCHEMES[store][0]}://me:{password}@host:1234/5"
    assert parts(store, text) == ("me", password, "host:1234", "5")


@pytest.mark.parametrize("password", WORDS)
def test_any_password_is_read_back_raw_and_escaped(password):
    for store in STORES:
        escaped = f"{SCHEMES[store][0]}://me:{quote(password, safe='')}@[::1]:77/9?x_y=1"
        url = StoreUrl.parse(store, escaped)
        assert (url.password, url.host, url.port(1), url.database) == (password, "::1", 77, "9")
        assert StoreUrl.parse(store, url.reveal()) == url
        raw = StoreUrl.parse(
            store, f"{SCHEMES[store][0]}://me:{password.replace('%', '%25')}@host/9"
        )
        assert (raw.password, raw.host, raw.database) == (password, "host", "9")


@pytest.mark.parametrize("password", WORDS)
def test_clients_read_what_we_write(password):
    url = StoreUrl.parse(
        "postgres", f"postgresql://me:{quote(password, safe='')}@h:1/db?application_name=a%20b"
    )
    told = psycopg.conninfo.conninfo_to_dict(url.reveal())
    assert (told["password"], told["host"], told["dbname"], told["application_name"]) == (
        password,
        "h",
        "db",
        "a b",
    )
    assert make_url(url.reveal()).password == password
    other = StoreUrl.parse(
        "redis", f"redis://me:{quote(password, safe='')}@h:1/3?client_name=a%20b"
    )
    assert redis.connection.parse_url(other.reveal()) == {
        "username": "me",
        "password": password,
        "host": "h",
        "port": 1,
        "db": 3,
        "client_name": "a b",
    }


def test_a_socket_may_be_percent_encoded():
    url = StoreUrl.parse("postgres", "postgresql://user@%2Fvar%2Frun%2Fpostgresql/db")
    assert (url.host, url.username, url.database) == ("/var/run/postgresql", "user", "db")
    assert str(url) == "postgresql://user@%2Fvar%2Frun%2Fpostgresql/db"
    assert (
        StoreUrl.parse("redis", "unix://me:a/b@/run/redis.sock?db=2").reveal()
        == "unix://me:a%2Fb@/run/redis.sock?db=2"
    )


def test_ipv6_and_several_hosts_keep_their_ports():
    url = StoreUrl.parse("postgres", "postgresql://u:p@[2001:db8::1]:5433,[fe80::1%25eth0],b:5/db")
    assert url.servers == [("2001:db8::1", "5433"), ("fe80::1%eth0", ""), ("b", "5")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "postgresql://host/db?user=me@company&application_name=a@b",
            ("me@company", "", "host", "db"),
        ),
        ("postgresql://u:p@host:5432/db?application_name=a@b", ("u", "p", "host:5432", "db")),
        (
            "postgresql://localhost:5432/db?user=me@company",
            ("me@company", "", "localhost:5432", "db"),
        ),
        ("postgresql://host/db?password=a%2Bb+c", ("", "a+b+c", "host", "db")),
        ("postgresql://me@company:p@host", ("me@company", "p", "host", "")),
    ],
)
def test_an_at_in_a_known_option_is_no_end_of_the_user_part(text, expected):
    assert parts("postgres", text) == expected


@pytest.mark.parametrize(
    "text", ["postgresql://localhost:5432/my@db", "postgresql://u:12/secret@host"]
)
def test_what_can_be_read_in_two_ways_is_refused(text):
    with pytest.raises(ConfigurationError, match="two ways") as caught:
        StoreUrl.parse("postgres", text, "POSTGRES_URL")
    assert "secret" not in str(caught.value)


def malformed(scheme, word):
    """Addresses as people break them, with a password in them."""
    yield f"{scheme}:/me:{word}@host"
    yield f"{scheme}//me:{word}@host/db"
    yield f"nope://me:{word}@host/db"
    yield f"{scheme}://me:{word}"
    yield f"{scheme}://me:{word}@ho st/db"
    yield f"{scheme}://me:{word}@host:{word}/db"
    yield f"{scheme}://host:{word}/db"
    yield f"{scheme}://me:{word}@host:99999/db"
    yield f"{scheme}://host/db?password=x&{word}"
    yield f"{scheme}://me:{word}@"
    yield f"me:{word}@host/db"


def said_of(store, text, word):
    """What is said of `text`, and the part of the password that must not be in it."""
    try:
        url = StoreUrl.parse(store, text)
    except ConfigurationError as exc:
        return f"{exc} {exc!r} {exc.__cause__!r}", word
    # Without a host, what stands behind the last @ of a password is one.
    return f"{url} {url!r}", word.rpartition("@")[0]


@pytest.mark.parametrize("store", STORES)
def test_a_malformed_address_is_refused_without_any_part_of_it(store):
    search, refused = Search(), 0
    for word in WORDS:
        for text in malformed(SCHEMES[store][0], word):
            told, secret = said_of(store, text, word)
            refused += secret == word
            assert search.leaks(told, secret) == [], text
    assert refused > len(WORDS) * 8


def test_random_texts_never_end_in_another_error():
    rng = random.Random(4)
    characters = "ab1:@/?#%[]&=,. ä\\'\""
    for _ in range(20_000):
        text = "postgresql://" + "".join(rng.choices(characters, k=rng.randrange(0, 14)))
        try:
            url = StoreUrl.parse("postgres", text)
        except ConfigurationError:
            continue
        assert StoreUrl.parse("postgres", url.reveal()) == url, text


@pytest.mark.parametrize(
    "text",
    ["redis://secret@host", "redis://:secret@host", "http://secret@host", "http://me:secret@host"],
)
def test_a_token_or_a_password_in_a_users_place_is_not_printed(text):
    store = "redis" if text.startswith("redis") else "milvus"
    url = StoreUrl.parse(store, text)
    assert "secret" not in f"{url} {url!r}"


def test_a_clients_text_is_shown_without_the_password_in_any_form():
    for word in WORDS:
        url = StoreUrl.parse("redis", f"redis://me:{quote(word, safe='')}@host")
        cause = ValueError(f"cannot use {word!r}")
        error = AccessDenied(
            "redis", f"said: {' '.join(sorted(forms(word)))}", hint=f"{word}", detail=quote(word)
        )
        error.__cause__ = cause
        url.masking(error)
        assert Search().leaks(f"{error} {error!r} {cause}", word) == []


def test_a_message_with_an_address_in_it_is_shown_without_user_and_password():
    assert (
        without_addresses("No such command 'redis://me:a@b/c@host:1'.")
        == "No such command 'redis://***@host:1'."
    )


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("postgresql://me:secret@host/db", True),
        ("postgresql:/me:secret@host/db", True),
        ("http://token@host", True),
        ("redis://host?password=secret", True),
        ("mysql+pymysql://me:secret", True),
        ("redis://host:6379/0", False),
        ("http://host/path", False),
        ("tcp://10.96.0.10:5432", False),
        ("tcp://[fd00:10:96::a]:5432", False),
        ("tcp://[fd00::a]:5432,[fd00::b]:5432", False),
        ("tcp://[fd00::a]:secret", True),
        ("tcp://me:[fd00::a]", True),
        ("package.module:BLUEPRINT", False),
        ("./a:/b@c", False),
        ("C:/Users/a@b/ca.pem", False),
        ("/etc/ssl/a@b.pem", False),
        ("add orders, see https://me@host/1", False),
    ],
)
def test_an_address_with_a_secret_is_told_from_a_name_and_a_path(typed, expected):
    assert may_hold_secret(typed) is expected
    assert (shown(typed) == typed) is not expected


@pytest.mark.parametrize("word", WORDS)
def test_a_typed_address_is_hidden_in_every_form_in_which_a_program_repeats_it(word):
    typed = f"postgresql://me:{word}@host/db"
    repeated = " | ".join(
        [typed, repr(typed), json.dumps(typed), str(PurePath(typed)), repr(str(PurePath(typed)))]
    )
    assert Search().leaks(without_typed(repeated, [typed]), word) == []
    assert "postgresql:/" in without_typed(repeated, [typed])


def test_an_address_of_another_kind_is_taken_apart_as_well():
    found = Address.split("https://me:p@/ss?@mirror.example/maven2/")
    assert (found.username, found.password, found.without_user()) == (
        "me",
        "p@/ss?",
        "https://mirror.example/maven2/",
    )
    assert "p@" not in f"{found} {found!r}"
    with pytest.raises(AddressError):
        Address.split("/maven2")
