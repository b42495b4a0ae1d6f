"""A blueprint of one's own: begun, loaded from anywhere, and taken to its next revision."""

from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from commands import command
from is_db_bootstrap import revision
from is_db_bootstrap.blueprint.describe import describe
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.scaffold import create_folder
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

DOCS = Path(__file__).parents[2] / "docs"
on_postgres = pytest.mark.postgres
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(STORE_ORDER, n)]
ORDER = """

class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (PrimaryKeyConstraint("id", name="pk_orders"),)

    id: Mapped[UUID] = mapped_column(server_default=text("gen_random_uuid()"))
    total: Mapped[int]
"""


@pytest.fixture
def folder(tmp_path):
    create_folder("my_app", parent=tmp_path)
    return tmp_path / "my_app"


def settings(blueprint, url):
    return Settings.load(blueprint, environ={}, flags={"postgres_url": url})


# --- new


@pytest.mark.parametrize("stores", SUBSETS, ids="+".join)
def test_a_folder_for_any_stores_is_a_blueprint_of_these(tmp_path, stores):
    written = create_folder("my-app", stores, tmp_path)
    blueprint = load_blueprint(tmp_path / "my_app")
    assert (blueprint.name, blueprint.stores) == ("my_app", stores)
    assert list(describe(blueprint)["stores"]) == list(stores)
    for path in written:
        text = path.read_text()
        assert "$name" not in text
        assert "#only" not in text
        if path.suffix == ".py":
            ast.parse(text)
    services = yaml.safe_load((tmp_path / "my_app" / "compose.yaml").read_text())["services"]
    assert set(services) == {*stores, "bootstrap"}
    assert yaml.safe_load((tmp_path / "my_app" / ".github/workflows/bootstrap.yaml").read_text())[
        "jobs"
    ]
    assert (tmp_path / "my_app" / "models.py").exists() == ("postgres" in stores)


def test_nothing_is_ever_overwritten(tmp_path):
    (tmp_path / "my_app").mkdir()
    (tmp_path / "my_app" / "README.md").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"README\.md is there"):
        create_folder("my_app", parent=tmp_path)
    assert [p.name for p in (tmp_path / "my_app").iterdir()] == ["README.md"]
    (tmp_path / "other").write_text("a file")
    with pytest.raises(ConfigurationError, match="not empty"):
        create_folder("other", parent=tmp_path)


@pytest.mark.parametrize(
    "name", ["class", "1abc", "../x", "a b", "", "My", "a" * 27, "novel_genesis", "novel-genesis"]
)
def test_a_name_that_cannot_be_one_is_refused(tmp_path, name):
    with pytest.raises(ConfigurationError):
        create_folder(name, parent=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stores", [[], ["mysql"], ["postgres", "mysql"]])
def test_stores_that_there_are_not_are_refused(tmp_path, stores):
    with pytest.raises(ConfigurationError):
        create_folder("my_app", stores, tmp_path)


def test_the_command_names_its_files_and_exits_2_for_what_is_there(tmp_path):
    call = [sys.executable, "-m", "is_db_bootstrap", "new", "my_app", "--stores", "postgres,redis"]
    done = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "my_app/blueprint.py"
    again = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (again.returncode, again.stdout) == (2, "")


# --- loading


@on_postgres
def test_a_folder_is_used_from_anywhere_whatever_it_is_called(tmp_path, postgres_url):
    create_folder("my_app", ["postgres"], tmp_path)
    odd = tmp_path / "1 odd-name"
    (tmp_path / "my_app").rename(odd)
    environ = {"POSTGRES_URL": postgres_url}
    assert command("apply", "--blueprint", str(odd), environ=environ)[0] == 0
    assert command("verify", "--blueprint", str(odd), environ=environ)[0] == 0
    assert command("migrate", "current", "--blueprint", str(odd), environ=environ)[1] == [
        "my_app_0001 (head)"
    ]


def test_a_module_and_its_folder_are_the_same_blueprint(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [n for n in sys.modules if n.partition(".")[0] == "my_app"]:  # of another test
        monkeypatch.delitem(sys.modules, name)
    by_module = load_blueprint("my_app.blueprint:BLUEPRINT")
    by_folder = load_blueprint("./my_app")
    assert (by_module.name, by_module.stores, by_module.migrations) == (
        by_folder.name,
        by_folder.stores,
        by_folder.migrations,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("BLUEPRINT = 1\n", "is not a Blueprint but int"),
        ("x = 1\nimport nothing_of_this_name\n", "line 2"),
        ("x = = 1\n", "line 1"),
        ("OTHER = None\n", "no BLUEPRINT"),
    ],
)
def test_a_module_that_is_no_blueprint_is_told_with_its_line(folder, text, words):
    (folder / "blueprint.py").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        load_blueprint(folder)


def test_a_folder_without_a_blueprint_and_one_that_is_not_there_are_told(tmp_path):
    for place, words in (
        (tmp_path, "holds no blueprint"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            load_blueprint(place)


# --- revision


@on_postgres
def test_the_next_revision_is_what_the_models_have_and_the_revisions_lack(folder, postgres_url):
    with (folder / "models.py").open("a") as models:
        models.write(ORDER)
    blueprint = load_blueprint(folder)
    written = revision.postgres(blueprint, "add orders", settings(blueprint, postgres_url))
    assert [p.name for p in written] == [
        "my_app_0002_add_orders.py",
        "catalogue.json",
        "schema.sql",
    ]
    assert "op.create_table" in written[0].read_text()
    assert json.loads(written[1].read_text())["head"] == "my_app_0002"
    result = BootstrapOrchestrator(
        [PostgreSQLBootstrapper(postgres_url, load_blueprint(folder))]
    ).run()
    assert (result.exit_code, [c.name for c in result.stores[0].changes][1:]) == (
        0,
        ["my_app_0001", "my_app_0002"],
    )
    blueprint = load_blueprint(folder)
    assert revision.postgres(blueprint, "again", settings(blueprint, postgres_url)) == []


@on_postgres
def test_a_blueprint_of_ones_own_passes_alembics_check(folder, postgres_url):
    blueprint = load_blueprint(folder)
    written = revision.postgres(blueprint, "nothing new", settings(blueprint, postgres_url))
    assert written == []


@pytest.mark.parametrize("called", ["check", "plan"])
def test_a_folder_that_declares_nothing_is_told_as_that(tmp_path, called):
    (tmp_path / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\n\nBLUEPRINT = Blueprint('jobs', '.')\n"
    )
    (tmp_path / "models.py").write_text("")
    code, _, err = command(called, "--blueprint", str(tmp_path))
    assert code == 2
    assert "jobs declares nothing about any store." in err
    assert "git keeps no empty folder" in err
    assert "--only" not in err


@on_postgres
def test_an_empty_revision_needs_no_server_and_is_refreshed_afterwards(folder, postgres_url):
    code, out, err = command("revision", "--empty", "-m", "By hand!", "--blueprint", str(folder))
    assert (code, len(out)) == (0, 1)
    assert out[0].endswith("my_app_0002_by_hand.py")
    assert "--refresh" in err
    stale = PostgreSQLBootstrapper(postgres_url, load_blueprint(folder))
    assert any(
        "catalogue.json is of revision my_app_0001, not my_app_0002" in note
        for note in stale.plan().notes
    )
    stale.close()
    assert (
        command("revision", "--refresh", "--blueprint", str(folder), "--url", postgres_url)[0] == 0
    )
    fresh = PostgreSQLBootstrapper(postgres_url, load_blueprint(folder))
    assert fresh.plan().notes == ()
    fresh.close()


@on_postgres
def test_a_new_blueprint_has_the_catalogue_that_a_refresh_would_write(folder, postgres_url):
    catalogue = folder / "migrations" / "catalogue.json"
    made = catalogue.read_text()
    code, _, err = command(
        "revision", "--refresh", "--blueprint", str(folder), "--url", postgres_url
    )
    assert code == 0, err
    assert catalogue.read_text() == made


def test_the_next_cypher_file_has_the_next_number(folder):
    made = revision.cypher(load_blueprint(folder), "Orders & more")
    assert made.name == "V003__orders_more.cypher"
    assert revision.cypher(load_blueprint(folder), "again").name == "V004__again.cypher"


@pytest.mark.parametrize(
    ("name", "following"),
    [
        ("novel_genesis", ("ng_0005", "%(rev)s_%(slug)s")),
        ("context_service", ("ctx_0004", "%(rev)s_%(slug)s")),
        ("mplp", ("mplp_0007_add_orders", "%(rev)s")),
        ("helpdesk", ("hd_0002", "%(rev)s_%(slug)s")),
    ],
)
def test_ids_go_on_by_the_blueprints_scheme(name, following):
    assert revision.next_revision(load_blueprint(name), "add orders") == following


def test_a_message_that_says_nothing_is_refused(folder):
    for make in (revision.cypher, lambda b, m: revision.postgres(b, m, None)):
        with pytest.raises(ConfigurationError, match="says nothing"):
            make(load_blueprint(folder), " ! ")


@on_postgres
def test_two_heads_are_named_in_a_plan(folder, postgres_url):
    text = (folder / "migrations" / "my_app_0001_notes.py").read_text()
    for who in ("a", "b"):
        mine = text.replace('"my_app_0001"', f'"my_app_0002{who}"').replace(
            "down_revision = None", 'down_revision = "my_app_0001"'
        )
        (folder / "migrations" / f"my_app_0002{who}_notes.py").write_text(mine)
    code, _, err = command(
        "plan",
        "--blueprint",
        str(folder),
        "--only",
        "postgres",
        environ={"POSTGRES_URL": postgres_url},
    )
    assert code == 2
    assert "my_app_0002a (my_app_0002a_notes.py, line 5)" in err
    assert "my_app_0002b (my_app_0002b_notes.py, line 5)" in err


@on_postgres
def test_verify_without_a_catalogue_says_so(folder, postgres_url):
    (folder / "migrations" / "catalogue.json").unlink()
    result = BootstrapOrchestrator(
        [PostgreSQLBootstrapper(postgres_url, load_blueprint(folder))]
    ).run()
    assert result.exit_code == 0
    assert any("there is no catalogue.json" in note for note in result.stores[0].notes)


@on_postgres
def test_stock_alembic_works_on_a_folder(folder, postgres_url):
    from is_db_bootstrap import files

    ini = folder / "alembic.ini"
    page = (DOCS / "how-to" / "stock-tools.md").read_text()
    section = page.partition("```ini\n")[2].partition("```")[0]
    ini.write_text(
        section.replace(
            "/path/that/migrate/ini/prints/without/alembic.ini", str(files.root() / "migrations")
        )
    )
    assert (
        command(
            "apply",
            "--blueprint",
            str(folder),
            "--only",
            "postgres",
            environ={"POSTGRES_URL": postgres_url},
        )[0]
        == 0
    )
    call = [sys.executable, "-m", "alembic", "-c", str(ini), "-n", "my_app"]
    environ = {**os.environ, "POSTGRES_URL": postgres_url}
    for words, shown in (
        (["current"], "my_app_0001 (head)"),
        (["check"], "No new upgrade operations"),
    ):
        done = subprocess.run(
            [*call, *words],
            env=environ,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
