"""Names, comments and messages of real stores that would move a cursor, forge a line or a colour.

No command prints such a character. What it prints names the object nevertheless.
"""

from __future__ import annotations

import json
import logging
import re
import unicodedata

import neo4j
import psycopg
import pytest
import redis

from commands import at_terminal, run_here
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ChangeFailed
from is_db_bootstrap.observers import to_log
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.testing import InMemoryBootstrapper
from is_db_bootstrap.wording import visible, visible_json, visible_lines
from servers import drop_database, empty_milvus, empty_neo4j, empty_redis, milvus_client

#: A colour, a title of the window, a line of this tool's own, a line for a CI service, other ends
#: of lines, marks of direction, no width, markup and the code of an emoji.
HOSTILE = (
    "\x1b[31mHOSTILE\x1b]0;title\x07\r\nis-db-bootstrap: all is well\n::error::forged\x85\u2028"
    "\x9b2J\u202eesrever\u2066\u200b\x7f[red]x[/]:lock:"
)
SHORT = "\x1b[31mH\r\n\u202e[red]:lock:"
BLUEPRINT = """
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

BLUEPRINT = Blueprint(
    "hostile",
    "for tests",
    migrations=Path(__file__).parent / "migrations",
    cypher=Path(__file__).parent / "cypher",
    collections=(
        Collection(
            "hostile_v1",
            (Field("id", "INT64", primary=True), Field("meaning", "FLOAT_VECTOR", dim=4)),
            (Index("meaning", "FLAT", "COSINE"),),
            alias="hostile",
            properties={"note": "plain"},
        ),
    ),
    keys=(KeyPattern("app", "app:{id}", "string", 60, "app", "for tests"),),
)
"""
REVISION = '''"""Title \\x1b[31mHOSTILE\\u202e"""
from alembic import op

revision = "hostile_1"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE book (id integer PRIMARY KEY, title text)")
    op.execute("CREATE INDEX declared ON book (title)")


def downgrade():
    op.execute("DROP TABLE book")
'''
FAILING = '''"""Raises what a function says."""
from alembic import op

revision = "hostile_2"
down_revision = "hostile_1"


def upgrade():
    op.execute({statement!r})


def downgrade():
    pass
'''


def quoted(name, mark='"'):
    return mark + name.replace(mark, mark * 2) + mark


@pytest.fixture(scope="module")
def place(farm, tmp_path_factory):
    """A folder with the blueprint, and four stores that it was applied to and that hold the names.

    Returns the folder and the variables of the stores.
    """
    folder = tmp_path_factory.mktemp("hostile")
    for part, name, text in (
        ("hostile", "blueprint.py", BLUEPRINT),
        ("hostile/migrations", "hostile_1.py", REVISION),
        (
            "hostile/cypher",
            "V1__a.cypher",
            "CREATE INDEX declared IF NOT EXISTS FOR (n:B) ON (n.p);",
        ),
    ):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / name).write_text(text, encoding="utf-8")
    stores = {name: farm.shared(name) for name in ("postgres", "neo4j", "milvus", "redis")}
    empty_neo4j(stores["neo4j"])
    empty_milvus(stores["milvus"])
    empty_redis(stores["redis"])
    environ = {f"{name.upper()}_URL": server.url for name, server in stores.items()}
    environ["POSTGRES_URL"] += "/hostile_names"
    environ["REDIS_URL"] += "/0"
    for words in (["revision", "--refresh"], ["apply"]):
        code, out, err = run_here([*words, "--blueprint", "hostile"], folder, environ)
        assert code == 0, out + err
    with psycopg.connect(environ["POSTGRES_URL"], autocommit=True) as connection:
        _fill_postgres(connection)
    _fill_neo4j(StoreUrl.parse("neo4j", environ["NEO4J_URL"]))
    client = milvus_client(environ["MILVUS_URL"])
    client.alter_collection_properties("hostile_v1", {"note": HOSTILE})
    client.close()
    _fill_redis(environ["REDIS_URL"])
    yield folder, environ
    drop_database(stores["postgres"], "hostile_names")


def _fill_postgres(connection):
    name = quoted(SHORT)
    for statement in (
        f"CREATE TABLE {name} ({name} integer)",
        f"COMMENT ON TABLE {name} IS E'{visible(SHORT)}'",
        f"ALTER TABLE book ADD COLUMN {name} integer",
        f"ALTER TABLE book ADD CONSTRAINT {quoted('c' + SHORT)} CHECK (id > 0)",
        "DROP INDEX declared",
        f"CREATE INDEX declared ON book ({name})",
    ):
        connection.execute(statement)


def _fill_neo4j(url):
    address = f"{url.scheme}://{url.host}:{url.port(0)}"
    with neo4j.GraphDatabase.driver(address, auth=(url.username, url.password)) as driver:
        name, label = quoted("`odd` " + HOSTILE, "`"), quoted("[bold]" + HOSTILE, "`")
        driver.execute_query(f"CREATE INDEX {name} FOR (n:{label}) ON (n.{label})")
        driver.execute_query(f"CREATE (:{label} {{{label}: 1}})")


def _fill_redis(url):
    with redis.Redis.from_url(url) as client:
        client.set(b"app:\x1b[31mred:\n2", "x")
        client.set(b"app:\xff\xfe\x1b]0;title\x07", "x")
        client.set(f"app:{HOSTILE}", "x", ex=500)
        client.lpush("app:lock:key", "x")
        client.lpush(b"app:" + b"long" * 100_000, "x")
        client.set(f"{HOSTILE}:other", "x")
        lock = {"token": "t", "owner": HOSTILE, "since": "2026-01-01T00:00:00+00:00"}
        client.set("is-db-bootstrap:lock:hostile", json.dumps(lock))


COMMANDS = {
    "plan": ["plan"],
    "verify": ["verify", "--strict"],
    "status": ["status"],
    "selftest": ["selftest", "--only", "postgres,neo4j"],
    "apply": ["apply", "--only", "redis", "--timeout", "0"],
    "redis audit": ["redis", "audit"],
    "redis fix-ttl": ["redis", "fix-ttl", "--dry-run"],
    "vector status": ["vector", "status"],
    "migrate history": ["migrate", "history"],
    "migrate current": ["migrate", "current"],
    "migrate check": ["migrate", "check"],
    "blueprints show": ["blueprints", "show", "hostile"],
}
#: Commands that have no `--verbose`.
PLAIN = ("redis", "vector", "migrate", "blueprints")
#: What each of these says, where a name is in it.
SAID = {
    "verify": [
        r"table \"\x1b[31mH\r\n\u202e[red]:lock:\"",
        r"index `odd` \x1b[31mHOSTILE\x1b]0;title\x07\r\nis-db-bootstrap: all is well",
    ],
    "status": [r"locked by \x1b[31mHOSTILE\x1b]0;title\x07\r\nis-db-bootstrap: all is well\n::err"],
    "redis audit": [r"\x1b[31mHOSTILE\x1b]0;title\x07\r\nis-db-bootstrap:"],
    "migrate history": [r"Title \x1b[31mHOSTILE\u202e"],
}


def is_obeyed(character):
    """Whether a terminal or a reader of lines does something with it."""
    return character != "\n" and unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def assert_harmless(text):
    assert not {character for character in text if is_obeyed(character)}, text
    for line in text.splitlines():
        forged = ("::error", "is-db-bootstrap: all is well")
        assert not line.lstrip().startswith(forged), text


@pytest.mark.parametrize("what", COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(place, what):
    folder, environ = place
    words = COMMANDS[what]
    if words[0] != "blueprints":
        words = [*words, "--blueprint", "hostile"]
    if words[0] not in PLAIN:
        words = [*words, "--verbose"]
    _, out, err = run_here(words, folder, environ)
    assert_harmless(out + err)
    for said in SAID.get(what, []):
        assert said.replace('\\"', '"') in out + err
    assert len(max((out + err).splitlines(), key=len)) < 20_000


@pytest.mark.parametrize("what", ["plan", "verify", "status", "redis audit", "migrate check"])
def test_a_pipe_gets_the_same_whatever_the_width_of_a_terminal(place, what):
    folder, environ = place
    words = [*COMMANDS[what], "--blueprint", "hostile"]
    found = set()
    for columns in ("40", "80", "200"):
        _, out, err = run_here(words, folder, environ | {"COLUMNS": columns})
        found.add(re.sub(r"[\d.\s]", "", out + err))  # without the times
    assert len(found) == 1


@pytest.mark.parametrize("what", ["verify", "status", "redis audit"])
def test_a_terminal_gets_colours_of_this_tool_only(place, what):
    folder, environ = place
    _, seen = at_terminal(*COMMANDS[what], "--blueprint", "hostile", folder=folder, environ=environ)
    assert "\x1b[31mH" not in seen
    assert "[red]:lock:" in seen or what != "verify"
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen)
    assert_harmless(plain.replace("\r", ""))


@pytest.mark.parametrize("what", ["plan", "verify", "status"])
def test_documents_and_termination_logs_are_json_and_harmless(place, what):
    folder, environ = place
    log = folder / "termination.log"
    words = [*COMMANDS[what], "--blueprint", "hostile", "--output", "json"]
    _, out, err = run_here([*words, "--termination-log", log], folder, environ)
    assert_harmless(out + err + log.read_text(encoding="utf-8"))
    document = json.loads(out)
    json.loads(log.read_text(encoding="utf-8"))
    if what == "verify":
        objects = [each["object"] for store in document["stores"] for each in store["drifts"]]
        assert f"`odd` {HOSTILE}" in objects


def test_who_holds_a_lock_is_told_harmlessly(place):
    folder, environ = place
    with redis.Redis.from_url(environ["REDIS_URL"]) as client:
        record = client.getdel("is-db-bootstrap:conventions:hostile")
        words = ["apply", "--blueprint", "hostile", "--only", "redis", "--timeout", "0.2"]
        code, out, err = run_here(words, folder, environ)
        client.set("is-db-bootstrap:conventions:hostile", record)
    assert code == 7, out + err
    assert_harmless(out + err)
    assert r"\x1b[31mHOSTILE" in out + err


def test_what_a_server_says_of_a_failure_is_one_harmless_line(place, tmp_path):
    folder, environ = place
    words = f"DO $do$ BEGIN RAISE EXCEPTION E'{visible(SHORT)}'; END $do$"
    path = folder / "hostile" / "migrations" / "hostile_2.py"
    path.write_text(FAILING.format(statement=words), encoding="utf-8")
    try:
        for output in ("text", "json"):
            code, out, err = run_here(
                ["apply", "--blueprint", "hostile", "--only", "postgres", "--output", output],
                folder,
                environ,
            )
            assert code == 1, out + err
            assert_harmless(out + err)
            assert r"\x1b[31mH" in out + err
    finally:
        path.unlink()


def test_a_blueprint_that_is_written_of_such_stores_has_none_of_it(place, tmp_path):
    _, environ = place
    code, out, err = run_here(
        ["new", "taken", "--from-stores", "--stores", "neo4j,redis,milvus"], tmp_path, environ
    )
    assert code == 0, err
    assert_harmless(out + err)
    code, out, err = run_here(["check", "--blueprint", "taken"], tmp_path, {})
    assert code == 0, out + err
    for path in (tmp_path / "taken").rglob("*.py"):
        assert_harmless(path.read_text(encoding="utf-8"))


def test_a_record_of_the_log_is_one_harmless_line(caplog):
    def refuse(change):
        raise ChangeFailed("redis", f"No: {HOSTILE}", change=change)

    store = InMemoryBootstrapper("redis", [HOSTILE], on_apply=refuse)
    with caplog.at_level(logging.DEBUG, "is_db_bootstrap"):
        BootstrapOrchestrator([store], observers=[to_log()]).run()
    messages = [each.getMessage() for each in caplog.records if each.name == "is_db_bootstrap"]
    assert any("HOSTILE" in message for message in messages)
    for message in messages:
        assert "\n" not in message
        assert_harmless(message)


@pytest.mark.parametrize("number", [*range(0x20), 0x7F, *range(0x80, 0xA0), 0xAD, 0x200B, 0x2028])
def test_each_of_them_is_written_as_python_writes_it(number):
    written = visible(chr(number))
    assert written.isascii()
    assert eval(f"'{written}'") == chr(number)


def test_everything_else_is_printed_as_it_is():
    text = "app:lock:key [red]x[/red] größe 漢字 🔒 \\n"
    assert visible(text) == visible_lines(text) == visible_json(text) == text


def test_a_long_text_is_cut_and_what_is_cut_is_counted():
    assert visible("x" * 12, 10) == "xxxxxxxxxx… (2 more characters)"


def test_a_lone_surrogate_is_written_in_every_form():
    assert visible("\ud800") == r"\ud800"
    assert json.loads(visible_json(json.dumps("\ud800\U000e0001", ensure_ascii=False))) == (
        "\ud800\U000e0001"
    )
