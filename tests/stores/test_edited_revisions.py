"""A revision that is edited after it was applied is named, until a person accepts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid

import psycopg
import pytest

from commands import command
from is_db_bootstrap import files, migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import AccessDenied, StoreConflict
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.stores.postgres import team_environment
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.file_digest import digest
from team_project import TeamProject

pytestmark = pytest.mark.postgres

FILE = '''"""{title}"""
from alembic import op
revision = "{name}"
down_revision = {before!r}
def upgrade():
    op.execute("CREATE TABLE t_{name} ()")
def downgrade():
    op.execute("DROP TABLE t_{name}")
'''


class Shop:
    """Two revisions in a folder, and a database."""

    def __init__(self, folder, url):
        self.folder = folder
        self.migrations = folder / "migrations"
        self.migrations.mkdir(parents=True)
        self.url = self.admin_url = url
        self.blueprint = Blueprint("shop", "a shop", migrations=self.migrations)
        (folder / "blueprint.py").write_text(
            "from is_db_bootstrap.blueprint import Blueprint\n"
            'BLUEPRINT = Blueprint("shop", "a shop")\n'
        )
        self.seconds = 1_700_000_000
        self.add("a1", None)
        self.add("b2", "a1")

    def add(self, name, before):
        text = FILE.format(title=name, name=name, before=before)
        path = self.migrations / f"{name}.py"
        path.write_text(text)
        # Python takes a compiled file for current whose source has the same size and second.
        self.seconds += 2
        os.utime(path, (self.seconds, self.seconds))

    def edit(self, name, more=b"# a comment\n"):
        path = self.migrations / f"{name}.py"
        path.write_bytes(path.read_bytes() + more)

    @property
    def settings(self):
        return Settings.load(self.blueprint, environ={}, flags={"postgres_url": self.url})

    def run(self, mode=Mode.APPLY):
        store = PostgreSQLBootstrapper(self.url, self.blueprint)
        result = BootstrapOrchestrator([store], blueprint="shop").run(mode)
        return result.exit_code, result.stores[0]

    def edited(self):
        """The revisions that verify names. A plan names them too."""
        code, verified = self.run(Mode.VERIFY)
        names = [each.object for each in verified.drifts if "edited" in each.message]
        assert code == (3 if names else 0), verified
        _, planned = self.run(Mode.PLAN)
        told = " ".join(planned.notes)
        assert ("edited" in told) == bool(names)
        assert all(name in told for name in names)
        return names

    def accept(self, *names):
        return migrate.accept(self.blueprint, *names, settings=self.settings).revisions

    def ask(self, query):
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    @property
    def digests(self):
        found = self.ask("SELECT digests FROM is_db_bootstrap.lineage")
        return sorted(found[0][0] or {}) if found else None

    def alembic(self, *args):
        ini = self.folder / "alembic.ini"
        ini.write_text(
            f"[shop]\nscript_location = {files.root() / 'migrations'}\n"
            f"version_locations = {self.migrations}\nblueprint = {self.folder}\n"
            "path_separator = os\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", ini, "-n", "shop", *args],
            env={
                **os.environ,
                "POSTGRES_URL": self.url,
                "IS_DB_BOOTSTRAP_BLUEPRINT": str(self.folder),
            },
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def shop(tmp_path, postgres_url):
    return Shop(tmp_path / "shop", postgres_url)


@pytest.fixture
def applied(shop):
    assert shop.run()[0] == 0
    assert shop.digests == ["a1", "b2"]
    return shop


def test_line_ends_are_no_edit_and_everything_else_is():
    assert digest(b"a\nb\n") == digest(b"a\r\nb\r\n") == digest(b"a\rb\r")
    assert digest(b"a\nb\n") != digest(b"a\n\nb\n")
    assert digest(b"a # b\n") != digest(b"a # c\n")


def test_an_edited_revision_is_named_by_plan_and_verify_until_it_is_accepted(applied):
    assert applied.edited() == []
    applied.edit("a1")
    assert applied.edited() == ["a1"]
    _, verified = applied.run(Mode.VERIFY)
    [drift] = verified.drifts
    assert drift.fix == "is-db-bootstrap migrate accept a1"
    assert drift.expected != drift.actual
    assert applied.accept("a1") == ("a1",)
    assert applied.edited() == []
    assert applied.accept("a1") == ()


def test_apply_goes_on_beside_an_edited_revision_and_leaves_its_digest(applied):
    applied.edit("a1")
    applied.add("c3", "b2")
    code, result = applied.run()
    assert (code, [change.name for change in result.changes]) == (0, ["c3"])
    assert "Revision a1 was edited after being applied" in " ".join(result.notes)
    assert applied.edited() == ["a1"]
    assert applied.digests == ["a1", "b2", "c3"]


def test_a_run_with_nothing_to_do_writes_nothing_and_names_the_edited_one(applied):
    applied.edit("b2")
    before = applied.ask("SELECT xmin::text, * FROM is_db_bootstrap.lineage")
    code, result = applied.run()
    assert (code, result.changes) == (0, ())
    assert "b2 was edited" in " ".join(result.notes)
    assert applied.ask("SELECT xmin::text, * FROM is_db_bootstrap.lineage") == before


def test_line_ends_by_git_and_another_file_name_are_no_edit(applied):
    path = applied.migrations / "a1.py"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    path.rename(applied.migrations / "2026_a1_renamed.py")
    assert applied.edited() == []


def test_a_revision_without_a_digest_is_unknown_and_no_drift(applied):
    """As an earlier version has left it: its table has no such column."""
    applied.ask("ALTER TABLE is_db_bootstrap.lineage DROP COLUMN digests")
    applied.edit("a1")
    unknown = (
        "Of 2 applied revisions no digest is recorded, so an edit of their files is not noticed. "
        "To record the files as they are now: is-db-bootstrap migrate accept --all"
    )
    for mode in (Mode.PLAN, Mode.VERIFY):
        code, found = applied.run(mode)
        assert (code, found.drifts) == (0, ())
        assert unknown in found.notes
    applied.add("c3", "b2")
    assert applied.run()[0] == 0  # this run writes anyway, so it takes the files of now
    assert applied.digests == ["a1", "b2", "c3"]
    assert unknown not in applied.run(Mode.PLAN)[1].notes
    applied.edit("a1")
    assert applied.edited() == ["a1"]


def test_accept_all_records_what_was_unknown_too(applied):
    applied.ask("ALTER TABLE is_db_bootstrap.lineage DROP COLUMN digests")
    assert applied.accept() == ("a1", "b2")
    applied.edit("b2")
    assert applied.edited() == ["b2"]
    assert applied.accept() == ("b2",)


def test_a_revision_that_was_undone_and_edited_counts_as_it_runs_again(applied):
    migrate.downgrade(applied.blueprint, 1, settings=applied.settings)
    assert applied.digests == ["a1"]
    applied.edit("b2")
    assert applied.run()[0] == 0
    assert applied.edited() == []


def test_a_file_that_changed_after_a_killed_plan_counts_as_it_was_applied(applied):
    """The plan of a killed run stands in our row, with the digests of its files."""
    applied.ask("DROP TABLE t_b2")
    applied.ask("UPDATE alembic_version SET version_num = 'a1'")
    applied.ask("UPDATE is_db_bootstrap.lineage SET revisions = '{a1}', planned = '{a1,b2}'")
    applied.edit("b2")
    assert applied.run()[0] == 0
    assert applied.edited() == []


def test_a_squashed_folder_is_no_edit(applied):
    (applied.migrations / "a1.py").unlink()
    applied.add("b2", None)  # the last revision does now what both did
    assert applied.edited() == []
    applied.add("c3", "b2")
    assert applied.run()[0] == 0
    assert applied.edited() == []
    applied.edit("b2")
    assert applied.edited() == ["b2"]


def test_a_merge_keeps_the_digests_of_both_branches(applied):
    applied.add("c3", "a1")
    applied.add("d4", ("b2", "c3"))
    applied.edit("b2")
    assert applied.run()[0] == 0
    assert applied.digests == ["a1", "b2", "c3", "d4"]
    assert applied.edited() == ["b2"]


def test_a_stamp_records_the_files_that_come_to_count_as_applied(shop):
    migrate.init(shop.blueprint, settings=shop.settings)
    migrate.stamp(shop.blueprint, "base", settings=shop.settings)
    assert shop.digests is None
    shop.edit("a1")
    migrate.stamp(shop.blueprint, "head", settings=shop.settings)
    assert shop.digests == ["a1", "b2"]
    assert shop.edited() == []
    shop.edit("a1")
    migrate.stamp(shop.blueprint, "a1", settings=shop.settings)
    assert shop.digests == ["a1"]
    assert "a1 was edited" in " ".join(shop.run(Mode.PLAN)[1].notes)


def test_the_stock_command_records_the_digests_with_its_rows(applied):
    applied.edit("a1")
    applied.add("c3", "b2")
    applied.alembic("upgrade", "head")
    assert applied.digests == ["a1", "b2", "c3"]
    assert applied.edited() == ["a1"]
    applied.alembic("downgrade", "-1")
    assert applied.digests == ["a1", "b2"]


def test_a_team_that_takes_turns_with_its_own_command_hears_of_an_edit(tmp_path, postgres_url):
    """The team's `env.py` knows nothing of our row, which is out of date after each of its runs."""
    team = TeamProject(tmp_path, postgres_url)
    environ = {"POSTGRES_URL": postgres_url, "SHOP_DATABASE": team.address}
    place = ("--blueprint", str(team.toml))
    for name, before in (("a1", None), ("b2", "a1")):
        team.revision(name, before, f'op.execute("CREATE TABLE t_{name} ()")')
    code, _, told = command("apply", *place, environ=environ)
    assert code == 0, told
    team.revision("c3", "b2", 'op.execute("CREATE TABLE t_c3 ()")')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_DATABASE", team.address)
        team.stock("upgrade", "head")
    team.revision("a1", None, 'op.execute("CREATE TABLE t_other ()")')
    code, lines, told = command("verify", *place, environ=environ)
    assert code == 3, told
    assert "is-db-bootstrap migrate accept a1" in "\n".join(lines)
    code, lines, told = command("migrate", "accept", "--all", *place, environ=environ)
    assert (code, lines) == (0, ["a1", "c3"]), told
    code, _, told = command("verify", *place, environ=environ)
    assert code == 0, told


def test_sql_that_others_run_records_the_digests(shop):
    migrate.init(shop.blueprint, settings=shop.settings)
    shop.ask("DROP SCHEMA public CASCADE")
    shop.ask("CREATE SCHEMA public")
    shop.ask("DROP SCHEMA is_db_bootstrap CASCADE")
    shop.ask(migrate.sql(shop.blueprint, settings=shop.settings))
    assert shop.digests == ["a1", "b2"]
    assert shop.edited() == []
    shop.edit("b2")
    assert shop.edited() == ["b2"]


def test_a_revision_that_is_not_applied_cannot_be_accepted(applied):
    applied.add("c3", "b2")
    with pytest.raises(StoreConflict, match="c3 does not count as applied"):
        applied.accept("c3")
    with pytest.raises(StoreConflict, match="There is no revision 'zz'"):
        applied.accept("zz")


@pytest.mark.parametrize("names", [("a1",), ()])
def test_a_schema_of_a_newer_release_is_accepted_by_that_release(applied, names):
    applied.add("c3", "b2")
    assert applied.run()[0] == 0
    (applied.migrations / "c3.py").unlink()
    applied.edit("a1")
    before = applied.ask("SELECT * FROM is_db_bootstrap.lineage")
    with pytest.raises(StoreConflict, match="is at revision c3, newer than this") as refused:
        applied.accept(*names)
    assert "the version of the blueprint that has c3" in refused.value.hint
    assert applied.ask("SELECT * FROM is_db_bootstrap.lineage") == before


def test_a_file_that_cannot_be_read_is_no_missing_right(tmp_path, postgres_url, monkeypatch):
    """A team's Alembic imports its revisions, so a digest may be missing all the same."""
    team = TeamProject(tmp_path, postgres_url)
    monkeypatch.setenv("SHOP_DATABASE", team.address)
    environ = {"POSTGRES_URL": postgres_url, "SHOP_DATABASE": team.address}
    for name, before in (("a1", None), ("b2", "a1")):
        team.revision(name, before, f'op.execute("CREATE TABLE t_{name} ()")')
    code, _, told = command("apply", "--blueprint", str(team.toml), environ=environ)
    assert code == 0, told
    team.revision("b2", "a1", 'op.execute("CREATE TABLE t_other ()")')

    def digest_of(path):
        return "" if path.name == "a1.py" else real(path)

    real = team_environment.digest_of
    monkeypatch.setattr(team_environment, "digest_of", digest_of)
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": postgres_url})
    with pytest.raises(StoreConflict, match="The file of revision a1 cannot be read"):
        migrate.accept(blueprint, "a1", settings=settings)
    accepted = migrate.accept(blueprint, settings=settings)
    assert accepted.revisions == ("b2",)
    assert any("a1 cannot be read" in note for note in accepted.notes)


def test_a_role_that_may_not_write_our_schema_is_told_so(applied):
    role = f"teller_{uuid.uuid4().hex[:8]}"
    applied.ask(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    applied.ask(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    found = StoreUrl.parse("postgres", applied.admin_url)
    try:
        applied.url = f"postgresql://{role}:x@{found.host}:{found.port(5432)}/{found.database}"
        applied.edit("a1")
        with pytest.raises(AccessDenied, match=r"may not write is_db_bootstrap\.lineage|denied"):
            applied.accept("a1")
        assert applied.edited() == ["a1"]
    finally:
        applied.ask(f"DROP OWNED BY {role} CASCADE")
        applied.ask(f"DROP ROLE {role}")


def test_the_command_accepts_and_names_what_it_accepted(applied):
    environ = {"POSTGRES_URL": applied.url}
    place = ("--blueprint", str(applied.folder))
    assert command("migrate", "accept", *place, environ=environ)[0] == 2
    assert command("migrate", "accept", "a1", "--all", *place, environ=environ)[0] == 2
    applied.edit("a1")
    applied.edit("b2")
    code, lines, told = command("migrate", "accept", "a1", *place, environ=environ)
    assert (code, lines) == (0, ["a1"]), told
    assert "1 revision accepted" in told
    call = ("migrate", "accept", "--all", "--output", "json", *place)
    code, lines, told = command(*call, environ=environ)
    assert code == 0, told
    assert json.loads("\n".join(lines))["revisions"] == ["b2"]
    code, lines, told = command("migrate", "accept", "b2", *place, environ=environ)
    assert (code, lines) == (0, [])
    assert "nothing to accept" in told
