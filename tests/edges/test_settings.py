import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from certificates import AUTHORITY
from is_db_bootstrap.blueprint import Blueprint, Setting
from is_db_bootstrap.cli._options import Options
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.stack_folder import LocalServer, LocalStack
from is_db_bootstrap.settings import Settings, StoreUrl, Timing, address_elsewhere, chosen_blueprint
from is_db_bootstrap.stores.kinds import KINDS

BLUEPRINT = Blueprint(
    "story", "for tests", settings=(Setting("STORY_SIZE", 3, "a number", minimum=1),)
)
HARD = "p% @:/#?ß 'x\""


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(**given):
    return chosen_blueprint(**given).name


def load(environ=None, **given):
    return Settings.load(BLUEPRINT, environ=environ or {}, **given)


# --- which source wins


def test_postgres_has_a_default_and_the_others_have_none():
    settings = load()
    assert (
        settings.stores["postgres"].reveal()
        == "postgresql://postgres:postgres@localhost:5432/story"
    )
    assert set(settings.stores) == {"postgres"}


@pytest.mark.parametrize("store", ["neo4j", "milvus", "redis"])
def test_a_missing_address_names_its_variable(store):
    with pytest.raises(ConfigurationError, match=f"{store.upper()}_URL"):
        load().need(store)


def test_all_missing_addresses_are_named_at_once():
    with pytest.raises(ConfigurationError) as refused:
        load({"REDIS_URL": "redis://here"}).need_each(("postgres", "neo4j", "milvus", "redis"))
    assert str(refused.value).startswith("neo4j, milvus: no address is set.")
    assert "Set NEO4J_URL, MILVUS_URL," in refused.value.hint


def test_the_first_source_wins(empty_folder):
    (empty_folder / "is-db-bootstrap.toml").write_text('[postgres]\nurl = "postgresql://file"\n')
    env_file = empty_folder / "vars"
    env_file.write_text("DB_HOST=envfile\n")
    chain = [
        ({}, "file", {}),
        ({"DB_HOST": "parts"}, "parts:5432", {}),
        ({"DB_HOST": "parts", "DATABASE_URL": "postgresql://database"}, "database", {}),
    ]
    chain.append((chain[-1][0] | {"POSTGRES_URL": "postgresql://postgres-url"}, "postgres-url", {}))
    chain.append((chain[-1][0], "flag", {"postgres_url": "postgresql://flag"}))
    for environ, hosts, flags in chain:
        assert load(environ, flags=flags).stores["postgres"].hosts == hosts
    assert load(env_file=env_file).stores["postgres"].hosts == "envfile:5432"
    assert load({"DB_HOST": "real"}, env_file=env_file).stores["postgres"].hosts == "real:5432"


@pytest.mark.parametrize(
    ("host", "port", "hosts"),
    [
        ("one,two", None, "one:5432,two:5432"),
        ("one,two", "5433", "one:5433,two:5433"),
        ("one,two", "5433,5434", "one:5433,two:5434"),
        ("::1,two", "5433,5434", "[::1]:5433,two:5434"),
    ],
)
def test_several_hosts_in_variables_get_a_port_each(host, port, hosts):
    given = {"DB_HOST": host} | ({"DB_PORT": port} if port else {})
    assert load(given).stores["postgres"].hosts == hosts


def test_several_ports_are_not_taken_for_hosts():
    with pytest.raises(ConfigurationError, match="names 1 host and 2 ports"):
        load({"DB_HOST": "one", "DB_PORT": "5433,5434"})


def test_every_address_says_where_it_came_from(empty_folder):
    (empty_folder / "is-db-bootstrap.toml").write_text('[redis]\nurl = "redis://r"\n')
    settings = load({"NEO4J_URL": "bolt://n"}, flags={"milvus_url": "http://m"})
    assert {s: u.source for s, u in settings.stores.items()} == {
        "postgres": "default",
        "neo4j": "NEO4J_URL",
        "milvus": "--milvus-url",
        "redis": "is-db-bootstrap.toml",
    }


def test_the_parts_have_defaults_of_their_own():
    assert (
        load({"DB_PORT": "5433"}).stores["postgres"].reveal()
        == "postgresql://postgres:postgres@localhost:5433/story"
    )
    assert load({"DB_NAME": "other"}).stores["postgres"].database == "other"


def test_a_url_without_a_database_means_the_blueprints_name():
    assert load({"POSTGRES_URL": "postgresql://db"}).stores["postgres"].database == "story"


def test_empty_means_unset():
    assert load({"POSTGRES_URL": "", "REDIS_URL": ""}).stores.keys() == {"postgres"}


def test_nothing_is_read_from_a_dotenv_file_unasked(empty_folder):
    (empty_folder / ".env").write_text("REDIS_URL=redis://surprise\n")
    assert "redis" not in load().stores


# --- credentials


@pytest.mark.parametrize("store", ["postgres", "neo4j", "milvus", "redis"])
def test_a_password_holds_any_character(store):
    scheme = {"postgres": "postgresql", "neo4j": "bolt", "milvus": "http", "redis": "redis"}[store]
    url = load(
        {f"{store.upper()}_URL": f"{scheme}://me@host", f"{store.upper()}_PASSWORD": HARD}
    ).stores[store]
    assert url.password == HARD
    assert StoreUrl.parse(store, url.reveal()).password == HARD


def test_a_password_file_loses_one_newline(empty_folder):
    secret = empty_folder / "secret"
    for text, password in (
        (f"{HARD}\n", HARD),
        ("two\n\n", "two\n"),
        ("dos\r\n", "dos"),
        ("none", "none"),
    ):
        secret.write_bytes(text.encode())
        assert (
            load({"REDIS_URL": "redis://r", "REDIS_PASSWORD_FILE": str(secret)})
            .stores["redis"]
            .password
            == password
        )


def test_both_forms_of_one_password_are_refused(empty_folder):
    (empty_folder / "secret").write_text("x")
    with pytest.raises(ConfigurationError, match="both"):
        load({"REDIS_URL": "redis://r", "REDIS_PASSWORD": "x", "REDIS_PASSWORD_FILE": "secret"})


def test_a_password_file_that_cannot_be_read_is_named():
    with pytest.raises(ConfigurationError, match="nowhere"):
        load({"REDIS_URL": "redis://r", "REDIS_PASSWORD_FILE": "nowhere"})


def test_variables_fill_only_what_the_address_leaves_open():
    url = load(
        {
            "POSTGRES_URL": "postgresql://me:mine@db",
            "POSTGRES_USERNAME": "you",
            "POSTGRES_PASSWORD": "yours",
        }
    ).stores["postgres"]
    assert (url.username, url.password) == ("me", "mine")


@pytest.mark.parametrize(
    "text", [f"{s}" for s in ("postgresql://me:s3cret@db/x", "postgres://:s3cret@[::1]:5432")]
)
def test_printing_an_address_never_shows_the_password(text):
    url = StoreUrl.parse("postgres", text)
    assert "s3cret" not in f"{url} {url!r} {load(flags={'postgres_url': text})!r}"
    assert "s3cret" in url.reveal()


@pytest.mark.parametrize(
    "text", ["", "db", "mysql://s3cret@db", "postgresql://", "postgresql:db:s3cret"]
)
def test_what_is_no_address_is_refused_without_repeating_it(text):
    with pytest.raises(ConfigurationError) as caught:
        StoreUrl.parse("postgres", text, "POSTGRES_URL")
    assert "s3cret" not in str(caught.value)


def test_hosts_and_ports_are_taken_apart():
    many = StoreUrl.parse("postgres", "postgresql://u@a:1,b:2/x?sslmode=require")
    assert (many.hosts, many.host, many.port(5432), many.query) == (
        "a:1,b:2",
        "a",
        1,
        (("sslmode", "require"),),
    )
    six = StoreUrl.parse("redis", "redis://[::1]:6380/2")
    assert (six.host, six.port(6379), six.database) == ("::1", 6380, "2")
    assert StoreUrl.parse("redis", "unix:///run/redis.sock").hosts == "/run/redis.sock"


# --- the TOML file


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('blueprnt = "x"', "blueprnt"),
        ('[postgres]\nurll = "x"', "urll"),
        ('[redis]\nschema = "x"', "schema"),
        ("[timing]\ntimeout = 3", "timeout"),
        ("timing = 3", "timing"),
        ("[postgres", "is-db-bootstrap.toml"),
    ],
)
def test_an_unknown_key_is_named(empty_folder, text, named):
    (empty_folder / "is-db-bootstrap.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=named):
        load()


def test_pyproject_is_read_when_there_is_no_file_of_our_own(empty_folder):
    (empty_folder / "pyproject.toml").write_text(
        '[tool.is-db-bootstrap]\nblueprint = "mine"\n'
        '[tool.is-db-bootstrap.postgres]\nschema = "s"\n'
    )
    assert load().schema == "s"
    assert named(environ={}) == "mine"
    (empty_folder / "is-db-bootstrap.toml").write_text('blueprint = "ours"\n')
    assert (load().schema, named(environ={})) == ("public", "ours")
    assert named(environ={"IS_DB_BOOTSTRAP_BLUEPRINT": "theirs"}) == "theirs"


def test_a_pyproject_without_our_table_is_none_of_our_business(empty_folder):
    (empty_folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert load().schema == "public"


# --- numbers


def test_timing_comes_from_flags_variables_and_file(empty_folder):
    (empty_folder / "is-db-bootstrap.toml").write_text("[timing]\ntimeout_s = 1\ngrace_s = 2\n")
    timing = load(
        {"IS_DB_BOOTSTRAP_TIMEOUT": "3", "IS_DB_BOOTSTRAP_LEASE": "4"}, flags={"timeout_s": 5.0}
    ).timing
    assert (timing.timeout_s, timing.grace_s, timing.lease_s, timing.heartbeat_s) == (
        5.0,
        2.0,
        4.0,
        None,
    )
    assert load({"IS_DB_BOOTSTRAP_TIMEOUT": "3"}).timing.timeout_s == 3.0


def test_the_heartbeat_is_a_sixth_of_the_lease_unless_it_is_set():
    assert Timing().heartbeat() == 10
    assert Timing(lease_s=3).heartbeat() == 0.5
    assert Timing(lease_s=3, heartbeat_s=1).heartbeat() == 1
    assert replace(Timing(), lease_s=3).heartbeat() == 0.5


def _from_variables(folder, lease, heartbeat):
    load({"IS_DB_BOOTSTRAP_LEASE": lease, "IS_DB_BOOTSTRAP_HEARTBEAT": heartbeat})


def _from_the_file(folder, lease, heartbeat):
    (folder / "is-db-bootstrap.toml").write_text(
        f"[timing]\nlease_s = {lease}\nheartbeat_s = {heartbeat}\n"
    )
    load()


def _from_both(folder, lease, heartbeat):
    (folder / "is-db-bootstrap.toml").write_text(f"[timing]\nheartbeat_s = {heartbeat}\n")
    load({"IS_DB_BOOTSTRAP_LEASE": lease})


def _from_flags(folder, lease, heartbeat):
    load(flags={"lease_s": float(lease), "heartbeat_s": float(heartbeat)})


def _from_python(folder, lease, heartbeat):
    Timing(lease_s=float(lease), heartbeat_s=float(heartbeat))


@pytest.mark.parametrize(
    "entrance", [_from_variables, _from_the_file, _from_both, _from_flags, _from_python]
)
def test_a_heartbeat_above_a_third_of_the_lease_is_refused_at_every_entrance(
    empty_folder, entrance
):
    entrance(empty_folder, "6", "2")
    with pytest.raises(
        ConfigurationError,
        match=r"IS_DB_BOOTSTRAP_HEARTBEAT.*above a third of.*IS_DB_BOOTSTRAP_LEASE",
    ):
        entrance(empty_folder, "5", "2")


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1,5"])
def test_a_time_that_is_no_time_is_refused(text):
    with pytest.raises(ConfigurationError, match="IS_DB_BOOTSTRAP_TIMEOUT"):
        load({"IS_DB_BOOTSTRAP_TIMEOUT": text})


def test_the_blueprints_settings_come_from_variables_and_file(empty_folder):
    assert load().values == {"STORY_SIZE": 3}
    (empty_folder / "is-db-bootstrap.toml").write_text("[settings]\nSTORY_SIZE = 4\n")
    assert load().values == {"STORY_SIZE": 4}
    assert load({"STORY_SIZE": "5"}).values == {"STORY_SIZE": "5"}


# --- what a review and a trial found


@pytest.mark.parametrize("port", ["99999", "abc", "0", "-1"])
@pytest.mark.parametrize(
    ("store", "scheme"),
    [("postgres", "postgresql"), ("neo4j", "bolt"), ("milvus", "http"), ("redis", "redis")],
)
def test_a_port_that_is_none_is_refused_before_anybody_waits(store, scheme, port):
    with pytest.raises(ConfigurationError, match="port"):
        StoreUrl.parse(store, f"{scheme}://host:{port}/x")


def test_a_port_in_parts_is_checked_too():
    with pytest.raises(ConfigurationError, match="DB_PORT"):
        load({"DB_PORT": "abc"})


def test_an_ipv6_address_needs_no_port():
    assert StoreUrl.parse("redis", "redis://[::1]").host == "::1"
    assert StoreUrl.parse("postgres", "postgresql://a:1,b:2/x").port(5432) == 1


def test_a_milvus_token_is_not_printed():
    url = StoreUrl.parse("milvus", "http://SECRET@host:19530")
    assert "SECRET" not in f"{url} {url!r}"
    assert url.reveal() == "http://SECRET@host:19530"


def test_the_real_environment_hides_an_address_of_the_env_file_in_any_form(tmp_path):
    (tmp_path / "vars").write_text(
        "POSTGRES_URL=postgresql://file\nPOSTGRES_PASSWORD=filed\nREDIS_URL=redis://file\n"
    )
    (tmp_path / "secret").write_text("real\n")
    real = {"DATABASE_URL": "postgresql://real", "POSTGRES_PASSWORD_FILE": str(tmp_path / "secret")}
    found = load(real, env_file=tmp_path / "vars")
    assert (found.stores["postgres"].hosts, found.stores["postgres"].password) == ("real", "real")
    assert found.stores["redis"].hosts == "file"


def test_the_parts_of_an_address_may_come_from_the_environment_and_the_env_file(tmp_path):
    (tmp_path / "vars").write_text(
        "POSTGRES_URL=postgresql://file\nDB_PASSWORD=filed\nDB_PORT=5433\n"
    )
    found = load({"DB_HOST": "real"}, env_file=tmp_path / "vars").stores["postgres"]
    assert (found.hosts, found.password) == ("real:5433", "filed")


def test_the_default_password_gives_way_to_any_that_is_given(tmp_path):
    assert load({"POSTGRES_PASSWORD": "mine"}).stores["postgres"].password == "mine"
    (tmp_path / "is-db-bootstrap.toml").write_text(
        '[postgres]\nusername = "me"\npassword = "filed"\n'
    )
    found = load().stores["postgres"]
    assert (found.username, found.password, found.source) == ("me", "filed", "default")


@pytest.mark.parametrize(
    "text", ["busy_attempts = 1.9", "busy_attempts = true", "scan_budget = inf", "timeout_s = [1]"]
)
def test_a_number_of_the_file_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "is-db-bootstrap.toml").write_text(f"[timing]\n{text}\n")
    with pytest.raises(
        ConfigurationError, match=f"IS_DB_BOOTSTRAP_{text.split(' ')[0].removesuffix('_s').upper()}"
    ):
        load()


def test_a_broken_line_of_an_env_file_is_named(tmp_path):
    (tmp_path / "vars").write_text("REDIS_URL=redis://file\nPOSTGRES_URL='postgresql://open\n")
    with pytest.raises(ConfigurationError, match="vars, line 2"):
        load(env_file=tmp_path / "vars")


def test_the_env_file_names_the_blueprint(tmp_path):
    (tmp_path / "vars").write_text("IS_DB_BOOTSTRAP_BLUEPRINT=filed\n")
    assert named(environ={}, env_file=tmp_path / "vars") == "filed"
    assert (
        named(environ={"IS_DB_BOOTSTRAP_BLUEPRINT": "real"}, env_file=tmp_path / "vars") == "real"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blueprint = 5", "blueprint"),
        ("[redis]\nurl = 5", r"\[redis\] url"),
        ("[redis]\nusername = ['a']", r"\[redis\] username"),
        ("[postgres]\nschema = 5", r"\[postgres\] schema"),
        ("[settings]\nSTORY_SIZ = 4", r"\[settings\] STORY_SIZ"),
    ],
)
def test_a_file_with_a_wrong_type_or_name_is_refused_by_file_and_key(tmp_path, text, said):
    (tmp_path / "is-db-bootstrap.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=f"is-db-bootstrap.toml.*{said}"):
        load()


@pytest.mark.parametrize("value", [[1], True, 1.9, None])
def test_a_setting_is_text_or_an_integer(value):
    with pytest.raises(ConfigurationError, match="STORY_SIZE"):
        BLUEPRINT.resolve({"STORY_SIZE": value})


def test_a_source_that_is_not_used_is_not_read():
    assert (
        load({"POSTGRES_URL": "postgresql://host", "DB_PASSWORD_FILE": "/nowhere"})
        .stores["postgres"]
        .hosts
        == "host"
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HEARTBEAT", "0"), ("LEASE", "0.001"), ("BUSY_ATTEMPTS", "0"), ("TIMEOUT", "nan")],
)
def test_a_time_that_makes_no_sense_is_refused(variable, value):
    with pytest.raises(ConfigurationError, match=variable):
        load({f"IS_DB_BOOTSTRAP_{variable}": value})


def test_a_ca_file_must_exist_and_be_of_use(tmp_path):
    (tmp_path / "ca.pem").write_text(AUTHORITY)
    with pytest.raises(ConfigurationError, match="NEO4J_CA_FILE"):
        load({"NEO4J_URL": "bolt://host", "NEO4J_CA_FILE": "/nowhere.pem"})
    for store, scheme in (("REDIS", "redis"), ("MILVUS", "http")):
        with pytest.raises(ConfigurationError, match="no TLS"):
            load({f"{store}_URL": f"{scheme}://host", f"{store}_CA_FILE": str(tmp_path / "ca.pem")})


@pytest.mark.parametrize(
    ("name", "text"),
    [("is-db-bootstrap.toml", "[redis]\nurl = 'redis://r'\n"), ("vars", "DB_NAME=other\n")],
)
def test_a_local_stack_beside_an_address_in_a_file_is_refused(tmp_path, monkeypatch, name, text):
    for variable in ("POSTGRES_URL", "DATABASE_URL", "NEO4J_URL", "MILVUS_URL", "REDIS_URL"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / name).write_text(text)
    empty = dict.fromkeys(Options._fields)
    options = Options(
        **empty
        | {"use_local": True, "urls": {}, "env_file": tmp_path / "vars" if name == "vars" else None}
    )
    with pytest.raises(ConfigurationError, match="--local and an address"):
        options.load_settings(BLUEPRINT)


def test_printing_a_local_server_shows_no_password():
    server = LocalServer("redis", "6", "redis://:s3cret@localhost:6379", 1, Path("log"))
    assert "s3cret" not in repr(LocalStack(Path("data"), "127.0.0.1", (server,)))


def test_an_address_elsewhere_is_restored_in_any_order_and_only_where_it_is_ours(monkeypatch):
    here = StoreUrl.parse("postgres", "postgresql://u:p@h:1/scratch")
    there = replace(here, database="other")
    for name in ("POSTGRES_URL", "DATABASE_URL", "DB_HOST", "DB_NAME", "PGDATABASE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("POSTGRES_URL", "postgresql+asyncpg://u:p@h:1/real?ssl=require")
    monkeypatch.setenv("DATABASE_URL", "mysql://u@h/real")
    monkeypatch.setenv("PGSERVICE", "real")
    before = dict(os.environ)
    first = address_elsewhere(KINDS["postgres"], here, {"database": "scratch"})
    second = address_elsewhere(KINDS["postgres"], there, {"database": "other"})
    with suppress(ZeroDivisionError), first:
        assert os.environ["POSTGRES_URL"] == "postgresql+asyncpg://u:p@h:1/scratch?ssl=require"
        assert os.environ["DATABASE_URL"] == "mysql://u@h/real"
        assert (os.environ["PGDATABASE"], os.environ.get("PGSERVICE")) == ("scratch", None)
        second.__enter__()
        assert os.environ["PGDATABASE"] == "other"
        raise ZeroDivisionError
    assert os.environ["PGDATABASE"] == "other"
    second.__exit__(None, None, None)
    assert dict(os.environ) == before


def test_whether_privileges_are_compared_is_set_in_the_environment_or_the_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[postgres]\nprivileges = "ignore"\n')
    blueprint = Blueprint("mine", "for tests")
    cases = [("", None, True), ("", file, False), ("ignore", None, False), ("compare", file, True)]
    for value, config, is_compared in cases:
        environ = {"POSTGRES_PRIVILEGES": value}
        found = Settings.load(blueprint, environ=environ, file=config)
        assert found.compare_privileges is is_compared
    with pytest.raises(ConfigurationError, match="POSTGRES_PRIVILEGES=never"):
        Settings.load(blueprint, environ={"POSTGRES_PRIVILEGES": "never"})


def test_what_an_unknown_revision_means_is_set_in_the_environment_or_the_file(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('[postgres]\nunknown_revision = "ahead"\n')
    blueprint = Blueprint("mine", "for tests")
    cases = [
        ("", None, False),
        ("", file, True),
        ("ahead", None, True),
        ("conflict", file, False),
    ]
    for value, config, is_ahead in cases:
        environ = {"POSTGRES_UNKNOWN_REVISION": value}
        found = Settings.load(blueprint, environ=environ, file=config)
        assert found.unknown_is_ahead is is_ahead
    with pytest.raises(ConfigurationError, match="POSTGRES_UNKNOWN_REVISION=newer"):
        Settings.load(blueprint, environ={"POSTGRES_UNKNOWN_REVISION": "newer"})


def test_what_an_env_file_says_is_named_with_that_file(tmp_path):
    file = tmp_path / "prod.env"
    file.write_text(
        "POSTGRES_URL=postgresql://db:5432/mine\nDB_SCHEMA=app\nIS_DB_BOOTSTRAP_LEASE=40\n"
    )
    found = Settings.load(BLUEPRINT, environ={"IS_DB_BOOTSTRAP_GRACE": "7"}, env_file=file)
    assert found.stores["postgres"].source == f"POSTGRES_URL in {file}"
    assert found.origins["schema"] == f"DB_SCHEMA in {file}"
    assert found.origins["lease_s"] == f"IS_DB_BOOTSTRAP_LEASE in {file}"
    assert found.origins["grace_s"] == "IS_DB_BOOTSTRAP_GRACE"
    of_process = Settings.load(
        BLUEPRINT, environ={"POSTGRES_URL": "postgresql://other/x"}, env_file=file
    )
    assert of_process.stores["postgres"].source == "POSTGRES_URL"


def test_the_parts_of_an_address_that_an_env_file_says_are_named_with_that_file(tmp_path):
    file = tmp_path / "prod.env"
    file.write_text("DB_HOST=db\nDB_PORT=5433\n")
    source = Settings.load(BLUEPRINT, environ={}, env_file=file).stores["postgres"].source
    assert source == f"DB_HOST and others in {file}"
    mixed = Settings.load(BLUEPRINT, environ={"DB_NAME": "x"}, env_file=file)
    assert mixed.stores["postgres"].source == "DB_HOST and others"


@pytest.mark.parametrize(
    "line",
    [
        "POSTGRES_URL=postgresql://db:99999/mine",
        "IS_DB_BOOTSTRAP_LEASE=soon",
        "IS_DB_BOOTSTRAP_LEASE=-1",
        "POSTGRES_PRIVILEGES=never",
    ],
)
def test_an_error_in_an_env_file_names_the_file(tmp_path, line):
    file = tmp_path / "prod.env"
    file.write_text(f"{line}\n")
    with pytest.raises(ConfigurationError) as error:
        Settings.load(BLUEPRINT, environ={}, env_file=file)
    assert str(file) in str(error.value)


def test_a_time_of_a_file_that_is_no_number_is_named_with_the_file(tmp_path):
    file = tmp_path / "is-db-bootstrap.toml"
    file.write_text('[timing]\nlease_s = "soon"\n')
    with pytest.raises(ConfigurationError, match=r"set in the file is-db-bootstrap\.toml"):
        Settings.load(BLUEPRINT, environ={}, file=file)


def test_a_later_variable_is_passed_over_also_beside_an_address_of_an_env_file(tmp_path):
    file = tmp_path / "prod.env"
    file.write_text("POSTGRES_URL=postgresql://db/mine\nDATABASE_URL=postgresql://other/mine\n")
    found = Settings.load(BLUEPRINT, environ={}, env_file=file)
    assert any("DATABASE_URL is passed over" in each for each in found.details)
