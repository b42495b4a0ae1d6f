"""A file of targets: what it may say, and what is refused with which line."""

import json

import pytest

from certificates import AUTHORITY
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.cli._fleet import _request_digests
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.fleet import Refused, Target, read, shard
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings

NOVEL = load_blueprint("novel_genesis")
ENVIRON = {
    "POSTGRES_URL": "postgresql://admin:s3cret@db",
    "NEO4J_URL": "bolt://graph",
    "NEO4J_PASSWORD": "g",
    "MILVUS_URL": "http://vectors",
    "REDIS_URL": "redis://cache",
}


@pytest.fixture
def base(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return Settings.load(NOVEL, environ=ENVIRON)


def lines(*entries):
    return "".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries)


def test_toml_and_json_lines_say_the_same(base):
    toml = """
[[targets]]
name = "acme"
postgres = {database = "acme", schema = "app"}
redis = "redis://cache/3"
[[targets]]
name = "umbrella"
postgres.url = "postgresql://other/umbrella"
[targets.settings]
NOVEL_GENESIS_MILVUS_INDEX = "ivf_flat_ip"
"""
    text = lines(
        {
            "name": "acme",
            "postgres": {"database": "acme", "schema": "app"},
            "redis": "redis://cache/3",
        },
        {
            "name": "umbrella",
            "postgres": "postgresql://other/umbrella",
            "settings": {"NOVEL_GENESIS_MILVUS_INDEX": "ivf_flat_ip"},
        },
    )
    assert read(toml, NOVEL, base) == read(text, NOVEL, base)
    acme, umbrella = read(text, NOVEL, base)
    assert acme.settings.stores["postgres"].reveal() == "postgresql://admin:s3cret@db/acme"
    assert (acme.settings.schema, umbrella.settings.schema) == ("app", "public")
    assert acme.settings.stores["redis"].database == "3"
    assert acme.settings.stores["neo4j"] == base.stores["neo4j"]
    assert umbrella.settings.values["NOVEL_GENESIS_MILVUS_INDEX"] == "ivf_flat_ip"


FORMS = {
    "lines": '{"name": "a b", "postgres": {"database": "one"}}\n{"name": "c", "redis": "redis://h/3"}',
    "array": """
[
  {"name": "a b", "postgres": {"database": "one"}},
  {"name": "c",
   "redis": "redis://h/3"}
]
""",
    "array in one line": (
        '[{"name": "a b", "postgres": {"database": "one"}}, {"name": "c", "redis": "redis://h/3"}]'
    ),
    "array of tables": """
[[targets]]
name = "a b"
postgres.database = "one"
[[targets]]
name = "c"
redis = "redis://h/3"
""",
    "named tables": """
# two tenants
[targets."a b"]
postgres = {database = "one"}
[targets.c]
redis = "redis://h/3"
""",
    "tables below": """
[targets]
"a b" = {postgres = {database = "one"}}
c.redis = "redis://h/3"
""",
    "named store tables": """
[targets."a b".postgres]
database = "one"
[targets.c]
redis = "redis://h/3"
""",
    "dotted keys": """
targets."a b".postgres.database = "one"
targets.c.redis = "redis://h/3"
""",
    "inline": 'targets = [{name = "a b", postgres.database = "one"}, {name = "c", redis = "redis://h/3"}]',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_says_the_same(base, form):
    assert read(FORMS[form], NOVEL, base) == read(FORMS["lines"], NOVEL, base)


def test_an_item_of_an_array_that_is_no_target_is_refused_and_the_others_are_not(base):
    found = read(
        '[{"name": "a"}, 3, {"name": "\\ud800"}, {"name": "b", "redis": "redis://h/3"}]',
        NOVEL,
        base,
    )
    assert [type(each) for each in found] == [Target, Refused, Refused, Target]
    assert [each.name for each in found] == ["a", "target 2", "target 3", "b"]
    named = read("[targets]\na = 3\nb.redis = 'redis://h/3'", NOVEL, base)
    assert [type(each) for each in named] == [Refused, Target]


def test_a_password_goes_with_its_user_only(base):
    text = lines(
        {"name": "same", "postgres": "postgresql://admin@elsewhere/a"},
        {"name": "nobody", "postgres": "postgresql://elsewhere/b"},
        {"name": "stranger", "postgres": "postgresql://other@elsewhere/c"},
        {"name": "own", "postgres": {"database": "d", "username": "d", "password": "x"}},
    )
    found = {t.name: t.settings.stores["postgres"] for t in read(text, NOVEL, base)}
    assert {n: (u.username, u.password) for n, u in found.items()} == {
        "same": ("admin", "s3cret"),
        "nobody": ("admin", "s3cret"),
        "stranger": ("other", ""),
        "own": ("d", "x"),
    }


def test_a_user_named_beside_the_address_is_not_given_the_password_of_the_call(base):
    text = lines(
        {"name": "elsewhere", "postgres": {"url": "postgresql://evil/x", "username": "other"}},
        {"name": "here", "postgres": {"database": "z", "username": "other"}},
        {"name": "named", "postgres": {"database": "y", "username": "admin"}},
        {"name": "own", "postgres": {"database": "w", "username": "other", "password": "mine"}},
    )
    found = {t.name: t.settings.stores["postgres"] for t in read(text, NOVEL, base)}
    assert {n: (u.username, u.password) for n, u in found.items()} == {
        "elsewhere": ("other", ""),
        "here": ("other", ""),
        "named": ("admin", "s3cret"),
        "own": ("other", "mine"),
    }


def test_a_user_or_database_in_a_query_is_one_as_before_the_query(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    environ = ENVIRON | {
        "POSTGRES_URL": "postgresql://db/n?user=admin&password=s3cret&dbname=prod",
        "REDIS_URL": "unix:///run/r?db=1",
    }
    base = Settings.load(NOVEL, environ=environ)
    text = lines(
        {"name": "stranger", "postgres": "postgresql://h2/b?user=stranger"},
        {"name": "own", "postgres": {"database": "c", "username": "own", "password": "mine"}},
        {"name": "other", "postgres": {"database": "d"}, "redis": {"database": "3"}},
    )
    found = {t.name: t.settings.stores for t in read(text, NOVEL, base)}
    assert {n: s["postgres"].reveal() for n, s in found.items()} == {
        "stranger": "postgresql://stranger@h2/b",
        "own": "postgresql://own:mine@db/c",
        "other": "postgresql://admin:s3cret@db/d",
    }
    assert [s["redis"].reveal() for s in found.values()] == ["unix:///run/r?db=1"] * 2 + [
        "unix:///run/r?db=3"
    ]


def test_the_certificates_of_the_call_are_checked_for_every_target(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    environ = ENVIRON | {
        "POSTGRES_CA_FILE": "ca.pem",
        "REDIS_URL": "rediss://cache",
        "REDIS_CA_FILE": "ca.pem",
    }
    base = Settings.load(NOVEL, environ=environ)
    own, plain = read(
        lines(
            {"name": "a", "postgres": "postgresql://own:pw@h/x"},
            {"name": "b", "redis": "redis://h/1"},
        ),
        NOVEL,
        base,
    )
    assert own.settings.stores["postgres"].ca_file == "ca.pem"
    assert "uses no TLS" in plain.error.message


def test_a_password_may_be_in_a_file(base, tmp_path):
    (tmp_path / "secret").write_text("p@ss\n")
    [target] = read(
        lines(
            {"name": "a", "postgres": {"database": "a", "password_file": str(tmp_path / "secret")}}
        ),
        NOVEL,
        base,
    )
    assert target.settings.stores["postgres"].password == "p@ss"


def test_a_path_in_the_file_of_targets_is_relative_to_that_file(tmp_path, monkeypatch):
    (tmp_path / "lists" / "secrets").mkdir(parents=True)
    (tmp_path / "lists" / "secrets" / "acme").write_text("of-file\n")
    monkeypatch.chdir(tmp_path)
    base = Settings.load(NOVEL, environ={"POSTGRES_URL": "postgresql://admin@db"})
    text = lines({"name": "acme", "postgres": {"password_file": "secrets/acme"}})
    [target] = read(text, NOVEL, base, tmp_path / "lists")
    assert target.settings.stores["postgres"].password == "of-file"
    [refused] = read(text, NOVEL, base)
    assert isinstance(refused, Refused)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{oops", "line 2: This is no JSON"),
        ({"nam": "a"}, "line 2: A target needs a name"),
        ({"name": ""}, "needs a name"),
        ({"name": "b", "postgress": {}}, "b: unknown key postgress"),
        ({"name": "b", "postgres": {"databse": "b"}}, "b, postgres: unknown key databse"),
        ({"name": "b", "redis": {"schema": "x"}}, "b, redis: unknown key schema"),
        ({"name": "b", "redis": {"database": 3}}, "b: database of redis is not text"),
        ({"name": "b", "postgres": "http://x"}, "target b is not of the form postgresql://"),
        ({"name": "b", "settings": {"NO_SUCH": "1"}}, "b, settings: unknown key NO_SUCH"),
        (
            {"name": "b", "settings": {"NOVEL_GENESIS_MILVUS_INDEX": "flat"}},
            "NOVEL_GENESIS_MILVUS_INDEX",
        ),
        ({"name": "b", "postgres": {"password_file": "/no/such"}}, "/no/such cannot be read"),
        ({"name": "b", "postgres": {"password_file": "/x", "password": "y"}}, "are both set"),
        ({"name": "first", "postgres": {"database": "other"}}, "A second target is called first"),
        (
            {"name": "b", "postgres": {"database": "one"}},
            "b is where first is: postgresql://admin:***@db/one",
        ),
        ("[1]", "needs a name"),
        ('{"name": "\\u0007"}', "cannot be printed"),
        ('{"name": "\\ud800"}', "This is no JSON"),
        ('{"name": "b", "\\ud800": 1}', "This is no JSON"),
        ('{"name": "b", "postgres": {"database": "\\ud800"}}', "This is no JSON"),
        ("[" * 100_000, "This is no JSON"),
        ("9" * 5_000, "This is no JSON"),
        ({"name": "b", "postgres": {"password_file": "\0"}}, "has a character that is none"),
        ({"name": "b", "postgres": {"database": ""}}, "database of postgres is empty"),
        ({"name": "b", "postgres": "postgresql://h:s3cret/x"}, "has a port that is not a port"),
        (
            {"name": "b", "postgres": "postgresql://h/x?sslrootcert=ca.pem&sslmode=disable"},
            "sslmode=disable, which does not check the server's certificate",
        ),
    ],
)
def test_a_line_that_is_no_target_is_refused_and_the_others_are_not(base, entry, said):
    found = read(
        lines(
            {"name": "first", "postgres": {"database": "one"}},
            entry,
            {"name": "last", "redis": {"database": "1"}},
        ),
        NOVEL,
        base,
    )
    assert [type(each) for each in found] == [Target, Refused, Target]
    assert found[1].name == "line 2"
    assert said in found[1].error.message
    assert "s3cret" not in str(found[1].error)


def test_a_line_ends_at_a_newline_only(base):
    [target] = read('{"name": "a", "postgres": {"database": "a\u2028b"}}', NOVEL, base)
    assert target.settings.stores["postgres"].database == "a\u2028b"


def test_a_schema_makes_another_place_of_a_database(base):
    entries = [{"name": s, "postgres": {"database": "all", "schema": s}} for s in ("a", "b")]
    assert all(isinstance(t, Target) for t in read(lines(*entries), NOVEL, base))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "There are no targets"),
        ("\n  \n", "There are no targets"),
        ("targets = []", "There are no targets"),
        ("[[targets]]\nname = ", "no TOML document"),
        ("[[targets]]\nname = 'a'\n[defaults]\nx = 1", "defaults beside"),
        ("targets = 3", "something else beside"),
        ("[]", "There are no targets"),
        ("[targets]", "There are no targets"),
        ('[{"name": "a"},', "no JSON array"),
        ('[{"name": "a"}]\n[{"name": "b"}]', "no JSON array: Extra data"),
        ("[" * 100_000, "no JSON array"),
    ],
)
def test_a_document_without_targets_is_an_error(base, text, said):
    with pytest.raises(ConfigurationError, match=said):
        read(text, NOVEL, base)


SAME = [
    ({"postgres": "postgresql://db/a"}, {"postgres": "postgres://DB:5432/a"}),
    ({"postgres": {"database": "a"}}, {"postgres": "postgresql://other:pw@db/a?sslmode=require"}),
    ({"postgres": "postgresql://x/a?host=db"}, {"postgres": "postgresql://db/y?dbname=a"}),
    ({"postgres": "postgresql://one,two/a"}, {"postgres": "postgresql://two:5432,one/a"}),
    ({"neo4j": "bolt://h"}, {"neo4j": "neo4j://h:7687"}),
    ({"milvus": "http://h"}, {"milvus": "tcp://h:19530/default"}),
    ({"redis": "redis://h"}, {"redis": "redis://H:6379/0"}),
    ({"redis": "redis://h/1"}, {"redis": "redis://h?db=1"}),
    ({}, {"postgres": {"database": "novel_genesis"}}),
    ({"postgres": "postgresql://a:1,b:2/a"}, {"postgres": "postgresql://x/a?host=b,a&port=2,1"}),
    (
        {"postgres": "postgresql://a:1,b:2/a"},
        {"postgres": "postgresql:///a?host=b:2&host=a:1"},
    ),
    ({"postgres": "postgresql://a,b:5433/a"}, {"postgres": "postgresql:///a?host=a,b:5433"}),
    ({"postgres": "postgresql://db:/a"}, {"postgres": "postgresql://db/a"}),
    ({"redis": "redis://h"}, {"redis": "redis://h/00"}),
    ({"redis": "redis:///0"}, {"redis": "redis://localhost"}),
    ({"neo4j": "bolt://h"}, {"neo4j": "bolt://h/neo4j"}),
    ({"redis": "redis://cache/0"}, {}),
]
OTHER = [
    ({"redis": "unix:///run/r.sock?db=1"}, {"redis": "unix:///run/r.sock?db=2"}),
    ({"redis": "unix:///run/r.sock"}, {"redis": "unix:///run/R.sock"}),
    (
        {"postgres": "postgresql://x/a?host=/run/one"},
        {"postgres": "postgresql://x/a?host=/run/two"},
    ),
    (
        {"postgres": "postgresql://x/a?host=/run"},
        {"postgres": "postgresql://x/a?host=/run&port=5433"},
    ),
    (
        {"postgres": "postgresql://h:5432/a?port=5433"},
        {"postgres": "postgresql://h:5432/a?port=5434"},
    ),
    (
        {"postgres": "postgresql://x/a?host=::1&port=5433"},
        {"postgres": "postgresql://x/a?host=::1&port=5434"},
    ),
    (
        {"postgres": "postgresql://x/a?host=a,b&port=1,2"},
        {"postgres": "postgresql://x/a?host=b,a&port=1,2"},
    ),
    (
        {"postgres": "postgresql:///a?hostaddr=10.0.0.1"},
        {"postgres": "postgresql:///a?hostaddr=10.0.0.2"},
    ),
    ({"postgres": "postgresql:///a?service=one"}, {"postgres": "postgresql:///a?service=two"}),
    ({"milvus": "http://h"}, {"milvus": "https://h"}),
    ({"postgres": {"database": "a"}}, {"redis": {"database": "1"}}),
    ({"postgres": {"database": "a"}}, {"postgres": {"database": "A"}}),
]


@pytest.mark.parametrize(
    ("kind", "pair"), [*((Refused, p) for p in SAME), *((Target, p) for p in OTHER)]
)
def test_a_place_is_the_same_in_whatever_words(base, kind, pair):
    _, second = read(
        lines(*({"name": n, **each} for n, each in zip("ab", pair, strict=True))), NOVEL, base
    )
    assert type(second) is kind


def test_an_own_address_has_user_and_password_of_the_call_also_where_the_call_has_no_address(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    environ = {
        "NEO4J_PASSWORD": "g",
        "REDIS_USERNAME": "app",
        "REDIS_PASSWORD": "r",
        "REDIS_CA_FILE": "ca.pem",
    }
    base = Settings.load(NOVEL, environ=environ, identities=NOVEL.stores)
    [target] = read(lines({"name": "a", "neo4j": "bolt://h", "redis": "rediss://h"}), NOVEL, base)
    graph, cache = target.settings.stores["neo4j"], target.settings.stores["redis"]
    assert (graph.username, graph.password) == ("neo4j", "g")
    assert (cache.username, cache.password, cache.ca_file) == ("app", "r", "ca.pem")
    [stranger] = read(lines({"name": "a", "neo4j": "bolt://other@h"}), NOVEL, base)
    assert stranger.settings.stores["neo4j"].password == ""
    assert "'g'" not in repr(base)


def test_a_store_without_an_address_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [refused] = read(
        lines({"name": "a", "redis": {"database": "1"}}), NOVEL, Settings.load(NOVEL, environ={})
    )
    assert "redis: no address is set" in refused.error.message


def test_shards():
    assert shard("0/3", "") == (0, 3)
    assert shard("2/3", "0") == (2, 3)
    assert shard("3", "1") == (1, 3)


@pytest.mark.parametrize(
    ("text", "index", "said"),
    [
        ("3/3", "", "Shard 3 of 3 does not exist"),
        ("0/0", "", "Shard 0 of 0 does not exist"),
        ("3", "3", "Shard 3 of 3 does not exist"),
        ("3", "", "JOB_COMPLETION_INDEX is not set"),
        ("3", "x", "Shard x of 3"),
        ("a/b", "", "not of the form"),
        ("-1/3", "", "not of the form"),
        ("", "", "not of the form"),
    ],
)
def test_a_shard_that_does_not_exist_is_refused(text, index, said):
    with pytest.raises(ConfigurationError, match=said):
        shard(text, index)


ELSEWHERE = {
    "POSTGRES_URL": "postgresql://admin:s3cret@moved",
    "NEO4J_URL": "bolt://moved",
    "MILVUS_URL": "http://moved",
    "REDIS_URL": "redis://moved",
}


def digest(environ, **options):
    base = Settings.load(NOVEL, environ=environ)
    targets = read(lines({"name": "a"}), NOVEL, base)
    return _request_digests(NOVEL, targets, Mode.APPLY, RunOptions(**options))["a"]


@pytest.mark.parametrize("moved", STORE_ORDER)
@pytest.mark.parametrize("used", STORE_ORDER)
def test_a_target_is_done_wherever_a_store_is_that_the_call_does_not_use(
    monkeypatch, tmp_path, moved, used
):
    monkeypatch.chdir(tmp_path)
    variable = f"{moved.upper()}_URL"
    environ = ENVIRON | {variable: ELSEWHERE[variable]}
    others = tuple(store for store in STORE_ORDER if store != used)
    for options in ({"only": (used,)}, {"skip": others}):
        is_same = digest(ENVIRON, **options) == digest(environ, **options)
        assert is_same == (moved != used)
    assert digest(ENVIRON) != digest(environ)
