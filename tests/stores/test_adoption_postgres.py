"""Databases that were made by hand or by stock Alembic, and that `adopt` takes over as they are."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap import revision
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import RunOptions, Settings
from pages import Reader, blocks
from team_project import TeamProject

pytestmark = pytest.mark.postgres

ACCOUNT = 'op.create_table("account", sa.Column("id", sa.Integer, primary_key=True))'
CENTS = 'op.add_column("account", sa.Column("cents", sa.Integer))'
BY_HAND = "CREATE TABLE account (id serial PRIMARY KEY, cents integer)"
#: Version tables as teams have them: name, schema, and how messages call them.
VERSION_TABLES = {
    "usual": ("", "alembic_version"),
    "named": ('version_table="shop_version"', "shop_version"),
    "in a schema": (
        'version_table="shop_version", version_table_schema="meta"',
        "meta.shop_version",
    ),
}


@pytest.fixture
def team(tmp_path, postgres_url, monkeypatch):
    """A team's project with two revisions, and its empty database."""
    made = TeamProject(tmp_path, postgres_url)
    monkeypatch.setenv("SHOP_DATABASE", made.address)
    made.revision("a1", None, ACCOUNT)
    made.revision("b2", "a1", CENTS)
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return made


def run(project, mode=Mode.ADOPT, *, foresees=False, **flags):
    """A run as the command has it, in this process."""
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    engine = orchestrator(blueprint, settings, RunOptions(**flags))
    return engine.run(mode, foresees=foresees)


def sql(url, text):
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def everything(url):
    """All tables with their owners, columns and rows, without our own schema."""
    tables = sql(
        url,
        "SELECT schemaname, tablename, tableowner FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema', 'is_db_bootstrap') "
        "ORDER BY 1, 2",
    )
    return [(*each, sql(url, f'SELECT *, xmin FROM "{each[0]}"."{each[1]}"')) for each in tables]


def changes(result):
    return [(each.kind, each.outcome) for store in result.stores for each in store.changes]


def objects(result):
    return [drift.object for store in result.stores for drift in store.drifts]


def refresh(project):
    blueprint = load_blueprint(project.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": project.url})
    revision.refresh(blueprint, settings)


def edit(project, name):
    with (project.folder / f"db/versions/{name}.py").open("a") as file:
        file.write("# an edit\n")


@pytest.mark.parametrize("table", VERSION_TABLES)
@pytest.mark.parametrize("has_catalogue", [True, False])
def test_a_database_of_stock_alembic_is_adopted_without_touching_it(team, table, has_catalogue):
    options, shown = VERSION_TABLES[table]
    team.env(options)
    team.stock("upgrade", "head")
    if has_catalogue:
        refresh(team)
    before = everything(team.url)
    foreseen = run(team, foresees=True)
    assert changes(foreseen) == [("record", Outcome.PLANNED)]
    assert sql(team.url, "SELECT to_regclass('is_db_bootstrap.lineage')::text") == [(None,)]

    result = run(team)
    assert result.exit_code == 0, result
    assert (result.mode, result.outcome) == (Mode.ADOPT, Outcome.CHANGED)
    assert everything(team.url) == before
    assert sql(team.url, "SELECT revisions FROM is_db_bootstrap.lineage") == [(["a1", "b2"],)]
    assert sql(team.url, f"SELECT version_num FROM {shown}") == [("b2",)]
    team.stock("current", check_heads=True)  # raises unless it is at head

    [(text,)] = sql(team.url, "SELECT record::text FROM is_db_bootstrap.memory")
    assert '"postgres"' in text

    assert run(team, Mode.VERIFY).exit_code == 0
    applied = run(team, Mode.APPLY)
    assert (applied.exit_code, changes(applied)) == (0, [])
    again = run(team)
    assert (again.exit_code, again.outcome) == (0, Outcome.UNCHANGED)


@pytest.mark.parametrize("made", ["by stock Alembic", "by hand"])
def test_a_revision_that_is_edited_after_the_adoption_is_noticed(team, made):
    refresh(team)
    if made == "by hand":
        sql(team.url, BY_HAND)
    else:
        team.stock("upgrade", "head")
    foreseen = run(team, foresees=True)
    [change] = foreseen.stores[0].changes
    assert ("SHA-256 of 2 revision files" in change.detail) == (made != "by hand")
    assert run(team).exit_code == 0
    [(digests,)] = sql(team.url, "SELECT digests FROM is_db_bootstrap.lineage")
    assert sorted(digests) == ["a1", "b2"]
    edit(team, "a1")
    [drift] = run(team, Mode.VERIFY).stores[0].drifts
    assert (drift.object, drift.message) == ("a1", "was edited after it was applied")
    assert "Revision a1 was edited" in " ".join(run(team, Mode.PLAN).stores[0].notes)


def test_digests_that_were_not_kept_are_not_told_as_recorded(team):
    """Our table is of an earlier version, and may not be altered."""
    assert run(team, Mode.APPLY).outcome is Outcome.CHANGED
    sql(
        team.url,
        "ALTER TABLE is_db_bootstrap.lineage DROP COLUMN digests;"
        "CREATE FUNCTION keep() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'no' USING ERRCODE = '42501'; END $$;"
        "CREATE EVENT TRIGGER keep ON ddl_command_start WHEN TAG IN ('ALTER TABLE')"
        " EXECUTE FUNCTION keep();",
    )
    result = run(team)
    assert result.exit_code == 6, result
    assert "did not keep the SHA-256 of 2 revision files" in result.stores[0].error.message


def test_an_adoption_takes_the_digests_that_an_earlier_one_did_not_record(team):
    refresh(team)
    team.stock("upgrade", "head")
    assert run(team).exit_code == 0
    sql(team.url, "UPDATE is_db_bootstrap.lineage SET digests = digests - 'b2'")
    [(before,)] = sql(team.url, "SELECT digests->>'a1' FROM is_db_bootstrap.lineage")
    edit(team, "a1")
    foreseen = run(team, foresees=True)
    [change] = foreseen.stores[0].changes
    assert change.detail.startswith("the SHA-256 of 1 revision file is recorded")
    assert run(team).exit_code == 0
    [(digests,)] = sql(team.url, "SELECT digests FROM is_db_bootstrap.lineage")
    assert digests.keys() == {"a1", "b2"}
    assert digests["a1"] == before  # an edit is accepted by a person only
    assert run(team).outcome is Outcome.UNCHANGED


def test_tables_made_by_hand_are_recorded_when_they_equal_the_catalogue(team):
    refresh(team)
    sql(team.url, BY_HAND)
    result = run(team)
    assert result.exit_code == 0, result
    assert sql(team.url, "SELECT version_num FROM meta.shop_version") == [("b2",)]
    team.stock("current", check_heads=True)
    assert run(team, Mode.VERIFY).exit_code == 0
    assert changes(run(team, Mode.APPLY)) == []


def test_nothing_is_recorded_while_something_differs(team):
    refresh(team)
    sql(team.url, "CREATE TABLE account (id serial PRIMARY KEY, cents bigint)")
    sql(team.url, "CREATE TABLE legacy (id integer)")
    before = everything(team.url)
    result = run(team)
    assert (result.exit_code, result.outcome) == (3, Outcome.DRIFTED)
    assert objects(result) == ["account.cents", "legacy"]
    different, extra = result.stores[0].drifts
    assert (different.expected, different.actual) == ("integer NULL", "bigint NULL")
    assert (extra.expected, extra.kind) == (None, "table")
    assert "--accept account.cents --accept legacy" in result.stores[0].error.hint
    assert everything(team.url) == before
    assert sql(team.url, "SELECT to_regclass('is_db_bootstrap.lineage')::text") == [(None,)]


def test_what_is_accepted_must_be_all_that_differs_and_nothing_else(team):
    refresh(team)
    sql(team.url, "CREATE TABLE account (id serial PRIMARY KEY, cents bigint)")
    sql(team.url, "CREATE TABLE legacy (id integer)")
    left = run(team, accepted=("legacy",))
    assert (left.exit_code, objects(left)) == (3, ["account.cents", "legacy"])
    wrong = run(team, accepted=("legacy", "account.cents", "account.id"))
    assert wrong.exit_code == 2
    assert "account.id does not differ" in wrong.stores[0].error.message
    assert sql(team.url, "SELECT to_regclass('meta.shop_version')::text") == [(None,)]

    done = run(team, accepted=("legacy", "postgres:account.cents"))
    assert (done.exit_code, done.outcome) == (0, Outcome.CHANGED), done
    assert any(note.startswith("Accepted: column account.cents") for note in done.stores[0].notes)
    assert sql(team.url, "SELECT version_num FROM meta.shop_version") == [("b2",)]
    # An undeclared table is a note from now on. What differs goes on to be told.
    assert objects(run(team, Mode.VERIFY)) == ["account.cents"]


def test_a_database_that_stock_alembic_has_not_finished_is_left_to_apply(team):
    refresh(team)
    team.stock("upgrade", "a1")
    result = run(team)
    assert (result.exit_code, objects(result)) == (3, ["b2", "account.cents"])
    assert result.stores[0].drifts[0].fix == "is-db-bootstrap apply"
    assert sql(team.url, "SELECT version_num FROM meta.shop_version") == [("a1",)]


def test_a_database_that_is_empty_or_missing_holds_nothing_to_adopt(team):
    refresh(team)
    empty = run(team)
    assert empty.exit_code == 6
    assert "`apply`" in empty.stores[0].error.hint
    team.url = team.url + "_missing"
    missing = run(team)
    assert missing.exit_code == 6
    assert "nothing to adopt" in missing.stores[0].error.message


def test_a_revision_that_did_not_end_is_not_adopted(team):
    refresh(team)
    team.revision("c3", "b2", 'op.execute("CREATE TABLE x ()")\nop.get_bind().commit()\n1 / 0')
    team.stock("upgrade", "b2")
    assert run(team, Mode.APPLY).exit_code == 1
    result = run(team)
    assert result.exit_code == 6
    assert "c3" in result.stores[0].error.message


def test_another_version_table_with_these_revisions_is_a_difference(tmp_path, postgres_url, team):
    team.stock("upgrade", "head")
    revisions = tmp_path / "plain"
    revisions.mkdir()
    for name in ("a1", "b2"):
        text = (team.folder / f"db/versions/{name}.py").read_text()
        (revisions / f"{name}.py").write_text(text)
    plain = Blueprint("plain", "test", migrations=revisions)
    settings = Settings.load(plain, environ={"POSTGRES_URL": postgres_url})

    def adopt(*accepted):
        options = RunOptions(accepted=accepted)
        return orchestrator(plain, settings, options).run(Mode.ADOPT)

    refused = adopt()
    assert (refused.exit_code, objects(refused)) == (3, ["meta.shop_version"])
    assert "alembic.ini" in refused.stores[0].drifts[0].reason
    assert sql(postgres_url, "SELECT to_regclass('public.alembic_version')::text") == [(None,)]
    assert adopt("meta.shop_version").exit_code == 0
    assert sql(postgres_url, "SELECT version_num FROM public.alembic_version") == [("b2",)]
    assert sql(postgres_url, "SELECT version_num FROM meta.shop_version") == [("b2",)]


def test_a_role_that_may_not_make_a_scratch_database_must_accept_what_is_not_compared(team):
    team.stock("upgrade", "head")
    server, _, name = team.url.rpartition("/")
    sql(team.url, "CREATE ROLE adopts LOGIN PASSWORD 'adopts'")
    try:
        sql(team.url, "GRANT ALL ON SCHEMA public, meta TO adopts")
        sql(team.url, "GRANT ALL ON ALL TABLES IN SCHEMA public, meta TO adopts")
        team.url = f"{server.partition('//')[0]}//adopts:adopts@{server.rpartition('@')[2]}/{name}"
        refused = run(team)
        assert (refused.exit_code, objects(refused)) == (3, ["catalogue.json"])
        assert "CREATEDB" in refused.stores[0].drifts[0].message
        done = run(team, accepted=("catalogue.json",))
        assert done.exit_code == 0, done
        assert any("GRANT" in note or "is not recorded" in note for note in done.stores[0].notes)
    finally:
        owner = f"{server}/{name}"
        sql(owner, "DROP OWNED BY adopts")
        sql(owner, "DROP ROLE adopts")


def test_the_lines_of_the_page_are_typed(team):
    """Those of docs/how-to/adopt.md about PostgreSQL."""
    look, accept, _ = blocks("docs/how-to/adopt.md")
    team.stock("upgrade", "head")
    reader = Reader(
        team.folder, {"POSTGRES_URL": team.url, "SHOP_DATABASE": team.address, "HOME": "/none"}
    )
    reader.follow(look)
    sql(team.url, "DROP SCHEMA is_db_bootstrap CASCADE")
    sql(team.url, "CREATE TABLE legacy (id integer)")
    sql(team.url, "ALTER TABLE account ADD note text")
    reader.follow(accept)
    assert len(sql(team.url, "SELECT * FROM is_db_bootstrap.lineage")) == 1


def test_a_person_is_shown_the_records_and_asked(team):
    team.stock("upgrade", "head")
    environ = {"POSTGRES_URL": team.url, "SHOP_DATABASE": team.address, "HOME": "/none"}
    reader = Reader(team.folder, environ)
    for said, code, tables in (("n", 1, 0), ("y", 0, 1)):
        line = f"script -qec 'is-db-bootstrap adopt' /dev/null <<< {said}"
        done = reader.type(line)
        assert done.returncode == code, done.stdout + done.stderr
        assert "planned: record b2" in done.stdout
        assert "Write 1 record, and change nothing else? [y/N]" in done.stdout
        found = sql(team.url, "SELECT 1 FROM pg_tables WHERE schemaname = 'is_db_bootstrap'")
        assert bool(found) == bool(tables)
