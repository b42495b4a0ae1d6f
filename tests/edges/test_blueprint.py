import sys
from dataclasses import replace

import pytest

from is_db_bootstrap.blueprint import (
    Blueprint,
    Channel,
    Collection,
    Field,
    KeyPattern,
    SeedRow,
    Setting,
    load,
)
from is_db_bootstrap.blueprint.listing import installed_rows
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SESSION = KeyPattern("session", "app:session:{id}", "string", 60, "app", "a session", {"id": UUID})
ROUND = KeyPattern(
    "round",
    "app:session:{id}:round:{path}",
    "string",
    (1, 60),
    "app",
    "a round",
    {"id": UUID, "path": "^[1-9][0-9.]*$"},
)
SOME = "88e5fbd7-df78-570b-ad31-7c9dae8eb4bf"


def test_a_pattern_matches_its_keys_and_no_longer_ones():
    assert SESSION.matches(f"app:session:{SOME}")
    assert not SESSION.matches(f"app:session:{SOME}:round:1")
    assert not SESSION.matches(f"app:session:{SOME.upper()}")
    assert ROUND.matches(f"app:session:{SOME}:round:2.1")
    assert not ROUND.matches(f"app:session:{SOME}:round:0")
    assert not ROUND.matches(f"app:session:{SOME}:round:1\n")


def test_a_placeholder_without_an_expression_ends_at_a_colon():
    plain = KeyPattern("plain", "a:{x}:b", "hash", None, "app", "x")
    assert plain.matches("a:1 2:b")
    assert not plain.matches("a:1:2:b")


def test_the_longest_lifetime_is_that_of_the_pair():
    assert (SESSION.longest_ttl, ROUND.longest_ttl, replace(ROUND, ttl=None).longest_ttl) == (
        60,
        60,
        None,
    )


def test_a_blueprint_has_the_stores_that_it_declares_something_about(tmp_path):
    collection = Collection("c_v1", (Field("id", "INT64", primary=True),))
    assert Blueprint("unheard_of", "").stores == ()
    assert Blueprint("unheard_of", "", collections=(collection,), keys=(SESSION,)).stores == (
        "milvus",
        "redis",
    )
    assert Blueprint("unheard_of", "", channels=(Channel("c", "c:{x}", ""),)).stores == ("redis",)
    assert Blueprint("unheard_of", "", migrations=tmp_path, cypher=tmp_path).stores == (
        "postgres",
        "neo4j",
    )


def test_without_seed_leaves_the_rest():
    seeded = Blueprint("b", "", keys=(SESSION,), seed_rows=(SeedRow("t", {"id": 1}),))
    assert seeded.without_seed() == Blueprint("b", "", keys=(SESSION,))


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        (Setting("PROFILE", "a", "", choices=("a", "b")), "c"),
        (Setting("MODEL", "m", "", pattern=r"[^;]{1,5}"), "a;b"),
        (Setting("MODEL", "m", "", pattern=r"[^;]{1,5}"), "toolong"),
        (Setting("TTL", 0, ""), "-1"),
        (Setting("TTL", 0, ""), "soon"),
    ],
)
def test_a_value_that_is_not_accepted_names_its_setting(setting, text):
    with pytest.raises(ConfigurationError, match=setting.name):
        Blueprint("b", "", settings=(setting,)).resolve({setting.name: text})


def test_resolving_hands_parsed_values_to_the_blueprint():
    def configure(blueprint, values):
        return replace(blueprint, summary=f"{values}")

    tailored = Blueprint("b", "", settings=(Setting("TTL", 7, ""),), configure=configure)
    assert tailored.resolve({"TTL": "9", "OTHER": "x"}).summary == "{'TTL': 9}"
    assert tailored.resolve({}).summary == "{'TTL': 7}"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match="novel_genesis"):
        load_blueprint("novel_genesiss")


def test_a_hyphen_counts_as_an_underscore():
    assert load_blueprint("novel-genesis") is load_blueprint("novel_genesis")


def test_a_blueprint_of_ones_own_is_found_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "story_of_mine.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\nB = Blueprint('mine', '')\nX = 3\n"
    )
    assert load_blueprint("story_of_mine:B").name == "mine"
    for name in ("story_of_mine:X", "story_of_mine:NOTHING", "no_such_module_at_all:B"):
        with pytest.raises(ConfigurationError, match=name):
            load_blueprint(name)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """`installed(text)`: a package whose entry point `installed_one` is the module's BLUEPRINT."""

    def make(text):
        package = tmp_path / "installed_one"
        (package / "migrations").mkdir(parents=True)
        (package / "migrations" / "a.py").write_text('revision = "a"\ndown_revision = None\n')
        (package / "__init__.py").write_text(text)
        metadata = tmp_path / "installed_one-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: installed-one\nVersion: 1\n"
        )
        (metadata / "entry_points.txt").write_text(
            "[is_db_bootstrap.blueprints]\ninstalled_one = installed_one:BLUEPRINT\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        load._entry_points.cache_clear()
        return package

    yield make
    sys.modules.pop("installed_one", None)
    monkeypatch.undo()
    load._entry_points.cache_clear()
    load._installed_blueprint.cache_clear()
    load._check_installed_files.cache_clear()


def test_a_blueprint_of_an_installed_package_has_the_folders_beside_its_module(installed):
    package = installed(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "BLUEPRINT = Blueprint('installed_one', 'of another package')\n"
    )
    assert load_blueprint("installed-one").migrations == package / "migrations"
    assert load_blueprint("installed_one").stores == ("postgres",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("revisions/b.py", "revision = 'b'\ndown_revision = 'a'\n"),
        ("V001__a.cypher", "CREATE INDEX a IF NOT EXISTS FOR (n:A) ON (n.b);\n"),
    ],
)
def test_migrations_beside_an_installed_blueprint_that_are_not_read_are_named(
    installed, name, text
):
    package = installed(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "BLUEPRINT = Blueprint('installed_one', 'of another package')\n"
    )
    (package / "migrations" / "a.py").unlink()
    (package / "migrations").rmdir()
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text(text)
    with pytest.raises(ConfigurationError, match="not read"):
        load_blueprint("installed_one")


def test_an_installed_blueprint_with_a_folder_without_any_migration_is_refused(installed):
    package = installed(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "BLUEPRINT = Blueprint('installed_one', 'of another package')\n"
    )
    (package / "migrations" / "a.py").unlink()
    with pytest.raises(ConfigurationError, match="migrations has no Alembic revisions"):
        load_blueprint("installed_one")
    found = load_blueprint("installed_one", may_have_no_files=True)
    assert found.migrations == package / "migrations"


def test_an_installed_package_that_exits_on_import_is_a_configuration_error(installed):
    package = installed("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigurationError, match="SystemExit") as caught:
        load_blueprint("installed_one")
    assert f"{package / '__init__.py'}, line 2" in str(caught.value)


def test_the_list_has_the_blueprints_of_other_packages(installed):
    installed(
        "from is_db_bootstrap.blueprint import Blueprint, KeyPattern\n"
        "KEY = KeyPattern('k', 'k:{x}', 'string', 60, 'app', 'x')\n"
        "BLUEPRINT = Blueprint('installed_one', 'of another package', keys=(KEY,))\n"
    )
    rows = {row["name"]: row for row in installed_rows()}
    assert {"installed_one", "novel_genesis"} <= set(rows)
    assert rows["installed_one"]["stores"] == ["postgres", "redis"]
    assert rows["installed_one"]["counts"]["key patterns"] == 1


def test_the_list_says_which_blueprint_cannot_be_loaded(installed):
    installed("raise OSError('no disk')\n")
    rows = {row["name"]: row for row in installed_rows()}
    assert "no disk" in rows["installed_one"]["error"]
