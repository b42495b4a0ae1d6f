"""Names of settings: those of the official images, mistyped ones, and those that are none."""

import json
import re
from pathlib import Path

import pytest

import is_db_bootstrap
from certificates import Certificates
from commands import run_here
from is_db_bootstrap.blueprint import Blueprint, Setting
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.nearest import nearest, slips
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.settings.unknown_names import known_variables

STORY = Blueprint("story", "for tests", settings=(Setting("STORY_SIZE", 3, "a number"),))
PAGE = (Path(__file__).parents[2] / "docs/reference/settings.md").read_text(encoding="utf-8")
LINK = "tcp://10.0.0.1:5432"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "empty"


def load(environ, **given):
    return Settings.load(STORY, environ=environ, **given)


def who(store, environ, **given):
    url = load(environ, **given).stores[store]
    return url.username, url.password


# --- links of Kubernetes and Docker


@pytest.mark.parametrize(
    "value", [LINK, "udp://db:5432", "tcp://[fd00::1]:5432", "sctp://10.0.0.1:1"]
)
@pytest.mark.parametrize("store", ["DB", "POSTGRES", "REDIS", "NEO4J", "MILVUS"])
def test_a_service_link_is_no_setting(store, value):
    settings = load({f"{store}_PORT": value})
    assert settings.stores["postgres"].source == "default"
    assert set(settings.stores) == {"postgres"}
    assert settings.warnings == ()
    assert settings.details == (
        f"{store}_PORT={value} is a link of Kubernetes or Docker, and no setting.",
    )


def test_the_parts_beside_a_service_link_count():
    url = load({"DB_HOST": "mine", "DB_PORT": LINK}).stores["postgres"]
    assert url.hosts == "mine:5432"


def test_all_that_kubernetes_sets_for_a_service_is_passed_over():
    names = {
        "DB_SERVICE_HOST": "10.0.0.1",
        "DB_SERVICE_PORT": "5432",
        "DB_SERVICE_PORT_SQL": "5432",
        "DB_PORT": LINK,
        "DB_PORT_5432_TCP": LINK,
        "DB_PORT_5432_TCP_PROTO": "tcp",
        "DB_PORT_5432_TCP_PORT": "5432",
        "DB_PORT_5432_TCP_ADDR": "10.0.0.1",
        "IS_DB_BOOTSTRAP_SERVICE_HOST": "10.0.0.2",
        "IS_DB_BOOTSTRAP_PORT": "tcp://10.0.0.2:80",
    }
    settings = load(names)
    assert settings.stores["postgres"].source == "default"
    assert settings.warnings == ()


def test_the_link_of_a_service_that_has_no_name_of_ours_is_not_told():
    assert load({"WEB_PORT": LINK, "PATH": "/bin"}).details == ()


def test_the_name_of_a_docker_link_is_no_database():
    settings = load({"DB_PORT": LINK, "DB_NAME": "/app/db"})
    assert settings.stores["postgres"].database == "story"
    with pytest.raises(ConfigurationError):
        load({"DB_NAME": "/app/db", "DB_PORT": "x"})


@pytest.mark.parametrize("value", ["tcp://10.0.0.1", "postgresql://h:5432", "tcp://u:p@h:1", "54x"])
def test_what_is_no_link_is_a_wrong_port(value):
    with pytest.raises(ConfigurationError, match="DB_PORT"):
        load({"DB_PORT": value})


@pytest.mark.parametrize(
    "environ",
    [
        {"REDIS_PORT": "tcp://10.0.0.7:6379"},
        {"REDIS_SERVICE_HOST": "10.0.0.7", "REDIS_SERVICE_PORT": "6379"},
    ],
)
def test_a_store_without_an_address_names_the_service_that_is_there(environ):
    with pytest.raises(ConfigurationError, match=r"REDIS_URL=redis://10\.0\.0\.7:6379"):
        load(environ).need("redis")


@pytest.mark.parametrize("store", ["neo4j", "milvus", "redis"])
def test_a_store_without_an_address_names_the_variable_of_others(store):
    name = f"{store.upper()}_URI"
    with pytest.raises(ConfigurationError, match=f"{name} is set and not read"):
        load({name: "x://h"}).need(store)


# --- mistyped names


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("IS_DB_BOOTSTRAP_TIMEOUTS", "IS_DB_BOOTSTRAP_TIMEOUT"),
        ("IS_DB_BOOTSTRAP_BLUEPRNIT", "IS_DB_BOOTSTRAP_BLUEPRINT"),
        ("IS_DB_BOOTSTRAP_DATA_", "IS_DB_BOOTSTRAP_DATA"),
        ("POSTGRES_PASSWORT", "POSTGRES_PASSWORD"),
        ("NEO4J_CAFILE", "NEO4J_CA_FILE"),
        ("REDIS_ULR", "REDIS_URL"),
        ("MILVUS_TOKN", "MILVUS_TOKEN"),
        ("NEO4J_AUHT", "NEO4J_AUTH"),
        ("DB_PASSWROD", "DB_PASSWORD"),
        ("DB_POOL_MAXSIZE", "DB_POOL_MAX_SIZE"),
        ("STORY_SIZ", "STORY_SIZE"),
        ("DATABASE_UR", "DATABASE_URL"),
    ],
)
def test_a_mistyped_variable_is_named_with_the_one_that_is_meant(typed, meant):
    [warning] = load({typed: "1"}).warnings
    assert typed in warning
    assert warning.endswith(f"Is {meant} meant?")


def test_an_unknown_variable_of_ours_is_named_without_a_guess():
    [warning] = load({"IS_DB_BOOTSTRAP_COFFEE": "1"}).warnings
    assert warning == "The variable IS_DB_BOOTSTRAP_COFFEE is unknown, so it changes nothing."


@pytest.mark.parametrize(
    "name",
    [
        "NEO4J_URI",
        "MILVUS_URI",
        "REDIS_URI",
        "REDIS_HOST",
        "REDIS_DB",
        "REDIS_ACLFILE",
        "REDIS_TLS_CERT_FILE",
        "DATABASE_URI",
        "POSTGRES_HOST",
        "POSTGRES_INITDB_ARGS",
        "POSTGRES_HOST_AUTH_METHOD",
        "NEO4J_PLUGINS",
        "NEO4J_dbms_memory_heap_max__size",
        "NEO4J_ACCEPT_LICENSE_AGREEMENT",
        "NEO4J_HOME",
        "DB_PASS",
        "DB_USERNAME",
        "PGPASSWORD",
        "REDIS_URL",
        "HOME",
    ],
)
def test_a_variable_of_another_tool_is_none_of_our_business(name):
    assert load({name: "redis://h" if name == "REDIS_URL" else "x"}).warnings == ()


def test_a_near_name_beside_the_right_one_is_none_of_our_business():
    environ = {"POSTGRES_PASSWORD": "x", "POSTGRES_PASSWORDS": "x"}
    assert load(environ).warnings == ()


@pytest.mark.parametrize("name", blueprint_names())
def test_every_documented_variable_is_known(name):
    blueprint = load_blueprint(name)
    others = {s.name for b in map(load_blueprint, blueprint_names()) for s in b.settings}
    documented = set(re.findall(r"`((?:IS_DB_BOOTSTRAP|[A-Z]\w+)_[A-Z0-9_]+)`", PAGE))
    own = {setting.name for setting in blueprint.settings}
    assert documented - (others - own) <= known_variables(blueprint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[postgres]\nurll = 'x'\n", "Is url meant?"),
        ("[postgres]\npasword = 'x'\n", "Is password meant?"),
        ("[timing]\ntimeout = 1\n", "Is timeout_s meant?"),
        ("[settings]\nSTORY_SIZES = 1\n", "Is STORY_SIZE meant?"),
        ("bluprint = 'x'\n", "Is blueprint meant?"),
    ],
)
def test_a_mistyped_key_of_a_file_is_named_with_the_one_that_is_meant(empty_folder, text, said):
    (empty_folder / "is-db-bootstrap.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load({})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [("abc", "abc", 0), ("abc", "acb", 1), ("abc", "ab", 1), ("abc", "abxc", 1), ("ab", "xy", 2)],
)
def test_a_slip_is_one_character_or_two_that_changed_places(one, other, count):
    assert slips(one, other) == count


def test_short_names_are_near_with_one_slip_only():
    assert (nearest("USR", ["USER"]), nearest("UR", ["USER"])) == ("USER", "")


def test_there_is_one_measure_of_what_is_near():
    package = Path(is_db_bootstrap.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    defining = [path.name for path, text in texts.items() if "def nearest(" in text]
    assert defining == ["nearest.py"]
    assert not [path for path, text in texts.items() if "get_close_matches" in text]


def test_the_command_warns_and_goes_on(empty_folder):
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "REDIS_PASSWORT": "x"}
    environ |= {"REDIS_URL": "redis://127.0.0.1:1/0", "DB_PORT": LINK}
    args = ("wait", "-b", "novel_genesis", "--only", "redis", "--timeout", "0")
    warning = "is-db-bootstrap: warning: The variable REDIS_PASSWORT is not read."
    code, _, err = run_here(args, empty_folder, environ)
    assert (code, warning in err, "DB_PORT" in err) == (4, True, False)
    assert "DB_PORT=tcp://" in run_here((*args, "-v"), empty_folder, environ)[2]
    assert warning not in run_here((*args, "-q"), empty_folder, environ)[2]


# --- the names of the official images


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, ("postgres", "postgres", "story")),
        ({"POSTGRES_USER": "u"}, ("u", "postgres", "story")),
        ({"POSTGRES_USER": "u", "POSTGRES_DB": "d"}, ("u", "postgres", "d")),
        ({"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p"}, ("u", "p", "story")),
        ({"POSTGRES_USER": "u", "POSTGRES_USERNAME": "ours"}, ("ours", "postgres", "story")),
        ({"POSTGRES_DB": "d", "DB_HOST": "h"}, ("postgres", "postgres", "d")),
        ({"POSTGRES_DB": "d", "DB_NAME": "n"}, ("postgres", "postgres", "n")),
        ({"POSTGRES_USER": "u", "DB_HOST": "h"}, ("u", "postgres", "story")),
        ({"POSTGRES_USER": "u", "DB_USER": "n"}, ("n", "postgres", "story")),
        ({"POSTGRES_DB": "d", "POSTGRES_URL": "postgresql://h"}, ("postgres", "", "d")),
        ({"POSTGRES_DB": "d", "POSTGRES_URL": "postgresql://u@h/x"}, ("u", "", "x")),
        ({"POSTGRES_DB": "d", "DATABASE_URL": "postgresql://h/x"}, ("postgres", "", "x")),
        ({"POSTGRES_USER": "u", "DATABASE_URL": "postgresql://v:w@h/x"}, ("v", "w", "x")),
    ],
)
def test_the_variables_of_the_postgres_image_fill_what_is_left_open(environ, found):
    url = load(environ).stores["postgres"]
    assert (url.username, url.password, url.database) == found


def test_the_variables_of_the_postgres_image_may_name_files(empty_folder):
    for name in ("user", "db", "password"):
        (empty_folder / name).write_text(f"{name}-of-file\n")
    environ = {f"POSTGRES_{name.upper()}_FILE": name for name in ("user", "db", "password")}
    url = load(environ).stores["postgres"]
    assert (url.username, url.password, url.database) == (
        "user-of-file",
        "password-of-file",
        "db-of-file",
    )


BOLT = {"NEO4J_URL": "bolt://h"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"NEO4J_AUTH": "neo4j/secret77"}, ("neo4j", "secret77")),
        ({"NEO4J_AUTH": "neo4j/secret77/true"}, ("neo4j", "secret77")),
        ({"NEO4J_AUTH": "none"}, ("", "")),
        ({"NEO4J_AUTH": "NONE"}, ("", "")),
        ({"NEO4J_AUTH": "neo4j/secret77", "NEO4J_PASSWORD": "secret77"}, ("neo4j", "secret77")),
        ({"NEO4J_AUTH": "neo4j/x", "NEO4J_URL": "bolt://me:own@h"}, ("me", "own")),
        ({"NEO4J_AUTH": "neo4j/x", "NEO4J_URL": "bolt://neo4j@h"}, ("neo4j", "x")),
        ({"NEO4J_AUTH": "neo4j/x", "NEO4J_URL": "bolt://other@h"}, ("other", "")),
    ],
)
def test_the_variable_of_the_neo4j_image_has_user_and_password(environ, found):
    assert who("neo4j", BOLT | environ) == found


@pytest.mark.parametrize("name", ["NEO4J_AUTH_FILE", "NEO4J_AUTH_PATH"])
def test_the_variable_of_the_neo4j_image_may_name_a_file(empty_folder, name):
    (empty_folder / "auth").write_text("neo4j/of-file\n")
    assert who("neo4j", BOLT | {name: "auth"}) == ("neo4j", "of-file")
    (empty_folder.parent / "vars").write_text(f"{name}=empty/auth\n")
    assert who("neo4j", BOLT, env_file=empty_folder.parent / "vars") == ("neo4j", "of-file")


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"MILVUS_TOKEN": "root:Milvus"}, ("root", "Milvus")),
        ({"MILVUS_TOKEN": "root:a:b"}, ("root", "a:b")),
        ({"MILVUS_TOKEN": "an-api-key"}, ("an-api-key", "")),
        ({"MILVUS_TOKEN": "root:x", "MILVUS_URL": "http://me:own@h"}, ("me", "own")),
        ({"MILVUS_TOKEN": "root:x", "MILVUS_USERNAME": "root"}, ("root", "x")),
    ],
)
def test_the_token_of_milvus_has_user_and_password_or_is_a_key(environ, found):
    assert who("milvus", {"MILVUS_URL": "http://h"} | environ) == found


def test_a_key_of_milvus_is_never_shown():
    settings = load({"MILVUS_URL": "http://h", "MILVUS_TOKEN": "an-api-key"})
    url = settings.stores["milvus"]
    assert "an-api-key" not in f"{url} {url!r} {url.masked('an-api-key')} {settings}"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"NEO4J_AUTH": "neo4j/hunter22", "NEO4J_PASSWORD": "hunter23"}, "NEO4J_PASSWORD"),
        ({"NEO4J_AUTH": "neo4j/hunter22", "NEO4J_USERNAME": "hunter23"}, "NEO4J_USERNAME"),
        ({"NEO4J_AUTH": "none", "NEO4J_PASSWORD": "hunter23"}, "NEO4J_PASSWORD"),
        ({"NEO4J_AUTH": "hunter22"}, "NEO4J_AUTH"),
        ({"NEO4J_AUTH": "/hunter22"}, "NEO4J_AUTH"),
        ({"NEO4J_AUTH": "hunter22/"}, "NEO4J_AUTH"),
        ({"MILVUS_TOKEN": "hunter22:"}, "MILVUS_TOKEN"),
        ({"MILVUS_TOKEN": "root:hunter22", "MILVUS_PASSWORD": "hunter23"}, "MILVUS_PASSWORD"),
    ],
)
def test_a_contradiction_is_refused_and_no_value_is_shown(environ, named):
    with pytest.raises(ConfigurationError) as caught:
        load(BOLT | {"MILVUS_URL": "http://h"} | environ)
    assert named in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"POSTGRES_DB": "d", "POSTGRES_URL": "postgresql://u@h/x"},
            "POSTGRES_DB=d is passed over: the address from POSTGRES_URL names the database x.",
        ),
        (
            {"POSTGRES_USER": "v", "POSTGRES_URL": "postgresql://u@h/x"},
            "POSTGRES_USER is passed over: the address from POSTGRES_URL has another user.",
        ),
        (
            {"POSTGRES_URL": "postgresql://u@h/x", "DATABASE_URL": "postgresql://v@h/x"},
            "DATABASE_URL is passed over: the address is that of POSTGRES_URL.",
        ),
        (
            {"DATABASE_URL": "postgresql://u@h/x", "DB_HOST": "other"},
            "DB_HOST is passed over: the address is that of DATABASE_URL.",
        ),
        (
            {"MILVUS_URL": "http://an-api-key@h", "MILVUS_USERNAME": "me"},
            "MILVUS_USERNAME is passed over: the address from MILVUS_URL has another user.",
        ),
        (
            {"NEO4J_URL": "bolt://me:own@h", "NEO4J_AUTH": "neo4j/x"},
            "NEO4J_AUTH is passed over",
        ),
    ],
)
def test_what_is_passed_over_by_rule_is_told(environ, said):
    assert any(each.startswith(said) for each in load(environ).details)


def plan(store, environ, folder):
    """A plan of one store, whose address has neither user nor password: exit code and result."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"} | environ
    args = ("plan", "-b", "novel_genesis", "--only", store, "-o", "json")
    code, out, err = run_here(args, folder, environ)
    return code, json.loads(out)["stores"][0], out + err


@pytest.mark.neo4j
def test_a_neo4j_is_entered_with_the_variable_of_its_image(empty_folder, neo4j_url):
    known = StoreUrl.parse("neo4j", neo4j_url)
    place = {"NEO4J_URL": f"{known.scheme}://{known.hosts}"}
    right = f"{known.username}/{known.password}"
    for auth, code in ((right, 0), (f"{right}/true", 0), ("neo4j/wrong-word", 5), ("none", 5)):
        found, _, said = plan("neo4j", place | {"NEO4J_AUTH": auth}, empty_folder)
        assert found == code, said
        assert known.password not in said


@pytest.mark.postgres
def test_a_postgres_is_entered_with_the_variables_of_its_image(empty_folder, postgres_url):
    known = StoreUrl.parse("postgres", postgres_url)
    host, port = known.servers[0]
    image = {
        "POSTGRES_USER": known.username,
        "POSTGRES_PASSWORD": known.password,
        "POSTGRES_DB": known.database,
    }
    for place in (
        {"POSTGRES_URL": f"postgresql://{known.hosts}"},
        {"DB_HOST": host, "DB_PORT": port},
    ):
        code, store, said = plan("postgres", place | image, empty_folder)
        assert (code, store["target"].endswith(f"/{known.database}")) == (0, True), said
    code, _, said = plan("postgres", place | image | {"POSTGRES_PASSWORD": "wrong"}, empty_folder)
    assert code == 5, said


def test_the_environment_hides_the_same_of_an_env_file(empty_folder):
    (empty_folder / "vars").write_text("NEO4J_AUTH=neo4j/filed\nPOSTGRES_USER=filed\n")
    environ = BOLT | {"NEO4J_PASSWORD": "real", "POSTGRES_USERNAME": "real"}
    settings = load(environ, env_file=empty_folder / "vars")
    assert settings.stores["neo4j"].password == "real"
    assert settings.stores["postgres"].username == "real"


# --- a default address


def test_a_default_address_says_so():
    assert str(load({}).stores["postgres"]).endswith("localhost:5432/story (default)")
    assert "(default)" not in str(load({"DB_HOST": "localhost"}).stores["postgres"])
    assert "(default)" not in load({}).stores["postgres"].reveal()


@pytest.mark.parametrize(
    "args",
    [
        ("wait", "--timeout", "0", "--only", "postgres"),
        ("wait", "--timeout", "0", "--only", "postgres", "-v"),
        ("status", "--only", "postgres"),
        ("migrate", "check"),
        ("setup", "--only", "postgres"),
    ],
)
def test_a_default_address_says_so_wherever_it_is_shown(args, empty_folder, monkeypatch):
    # No server may answer here, so the default itself leads nowhere.
    from is_db_bootstrap.stores.kinds import KINDS

    object.__setattr__(KINDS["postgres"], "default_server", "127.0.0.1:1")
    try:
        environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        _, out, err = run_here((*args, "-b", "novel_genesis"), empty_folder, environ)
    finally:
        object.__setattr__(KINDS["postgres"], "default_server", "localhost:5432")
    shown = " ".join((out + err).split())
    assert "127.0.0.1:1/novel_genesis (default)" in shown


# --- from where a path counts


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The text of a certificate of an authority."""
    certificates = Certificates.make(tmp_path_factory.mktemp("certificates"))
    return Path(certificates.pem("ours")).read_text(encoding="ascii")


def paths(url):
    return url.password, url.ca_file


@pytest.mark.parametrize("name", ["is-db-bootstrap.toml", "pyproject.toml"])
def test_a_path_in_a_file_is_relative_to_that_file(tmp_path, name, authority):
    (tmp_path / "secret").write_text("of-file\n")
    (tmp_path / "ca.pem").write_text(authority)
    table = "tool.is-db-bootstrap.redis" if name == "pyproject.toml" else "redis"
    (tmp_path / name).write_text(
        f'[{table}]\nurl = "rediss://h"\npassword_file = "secret"\nca_file = "ca.pem"\n'
    )
    for file in (tmp_path / name, None):  # named, and found upwards
        url = load({}, file=file).stores["redis"]
        assert paths(url) == ("of-file", str(tmp_path / "ca.pem"))


def test_a_path_in_an_env_file_is_relative_to_that_file(tmp_path, authority):
    (tmp_path / "secret").write_text("of-file\n")
    (tmp_path / "ca.pem").write_text(authority)
    (tmp_path / "vars").write_text(
        "REDIS_URL=rediss://h\nREDIS_PASSWORD_FILE=secret\nREDIS_CA_FILE=ca.pem\n"
        "DB_PASSWORD_FILE=secret\n"
    )
    settings = load({}, env_file=tmp_path / "vars")
    assert paths(settings.stores["redis"]) == ("of-file", str(tmp_path / "ca.pem"))
    assert settings.stores["postgres"].password == "of-file"


def test_a_path_in_the_environment_is_relative_to_the_working_directory(empty_folder):
    (empty_folder / "secret").write_text("of-cwd\n")
    environ = {"REDIS_URL": "redis://h", "REDIS_PASSWORD_FILE": "secret"}
    assert load(environ).stores["redis"].password == "of-cwd"


def test_an_absolute_path_in_a_file_stays(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("absolute\n")
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "x.toml"
    file.write_text(f'[redis]\nurl = "redis://h"\npassword_file = "{secret}"\n')
    assert load({}, file=file).stores["redis"].password == "absolute"


@pytest.mark.parametrize(
    ("store", "address", "found"),
    [
        ("redis", "rediss://h?ssl_ca_certs=ca.pem", "{here}/ca.pem"),
        ("redis", "rediss://h?ssl_ca_certs=/etc/ca.pem", "/etc/ca.pem"),
        ("postgres", "postgresql://h/d?sslrootcert=ca.pem", "{here}/ca.pem"),
        ("postgres", "postgresql://h/d?sslrootcert=system", "system"),
        ("postgres", "postgresql://h/d?application_name=ca.pem", "ca.pem"),
    ],
)
@pytest.mark.parametrize("where", ["toml", "env", "environ"])
def test_a_path_in_an_address_is_relative_to_the_file_of_the_address(
    tmp_path, store, address, found, where
):
    (tmp_path / "is-db-bootstrap.toml").write_text("")
    given = {}
    if where == "toml":
        (tmp_path / "is-db-bootstrap.toml").write_text(f'[{store}]\nurl = "{address}"\n')
    elif where == "env":
        (tmp_path / "vars").write_text(f"{store.upper()}_URL={address}\n")
        given["env_file"] = tmp_path / "vars"
    environ = {f"{store.upper()}_URL": address} if where == "environ" else {}
    [(_, value)] = load(environ, **given).stores[store].query
    assert value == (found.format(here=tmp_path) if where != "environ" else address.split("=")[1])


# --- a proxy

PROXY = {"http_proxy": "http://user:hunter22@proxy.corp:3128"}


@pytest.mark.parametrize(
    ("environ", "host", "named"),
    [
        (PROXY, "vectors", "http_proxy"),
        (PROXY | {"https_proxy": "http://p:1"}, "vectors", "https_proxy"),
        (PROXY | {"grpc_proxy": "http://p:1"}, "vectors", "grpc_proxy"),
        (PROXY | {"grpc_proxy": ""}, "vectors", ""),
        ({"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}, "vectors", ""),
        ({"http_proxy": "socks5://p:1"}, "vectors", ""),
        (PROXY | {"no_proxy": "x, vectors"}, "vectors", ""),
        (PROXY | {"no_proxy": "*"}, "vectors", "http_proxy"),
        (PROXY | {"NO_PROXY": "vectors"}, "vectors", "http_proxy"),
        (PROXY | {"no_proxy": "vectors", "no_grpc_proxy": "x"}, "vectors", "http_proxy"),
        (PROXY | {"no_proxy": ".corp"}, "db.corp", ""),
        (PROXY | {"no_proxy": "10.0.0.0/8"}, "10.1.2.3", ""),
        (PROXY | {"no_proxy": "10.0.0.0/8"}, "11.1.2.3", "http_proxy"),
    ],
)
def test_a_proxy_is_named_as_grpc_finds_it(environ, host, named, monkeypatch):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = load({"MILVUS_URL": f"http://{host}:19530", "REDIS_URL": f"redis://{host}"})
    assert "hunter22" not in str(settings.warnings)
    assert [f"({named})" in each for each in settings.warnings] == ([True] if named else [])


def test_no_other_client_goes_through_a_proxy():
    for store in ("postgres", "neo4j", "redis"):
        scheme = {"postgres": "postgresql", "neo4j": "bolt", "redis": "redis"}[store]
        assert StoreUrl.parse(store, f"{scheme}://h").proxy is None
