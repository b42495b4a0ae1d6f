"""The next revision of a team's own environment is the one that the team's Alembic would write."""

from __future__ import annotations

import re
import sys

import psycopg
import pytest

from is_db_bootstrap import revision
from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from is_db_bootstrap.stores.postgres.team_revision import Place
from team_project import OPTIONS, TeamProject

pytestmark = pytest.mark.postgres

FIRST = """
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(20), nullable=False),
    )
    op.create_table("audit", sa.Column("id", sa.Integer, primary_key=True))
"""
MODELS = """
import sqlalchemy as sa

from sqlalchemy import MetaData, Table, Column

metadata = MetaData()
account = Table(
    "account",
    metadata,
    Column("id", sa.Integer, primary_key=True),
    Column("name", sa.String({length}), nullable=False),
    {column}
)
{more}
"""
MAKO = '''"""${message}"""
import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
OURS = "of the team"
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''
#: What `env.py` says besides, and defines for it.
COMPARED = f"{OPTIONS}, target_metadata=__import__('team_models').metadata"


@pytest.fixture
def project(tmp_path, postgres_url, monkeypatch):
    """`project()`: a team's project with one revision, whose models are written by `models`."""
    made = None

    def make(driver="psycopg", options=COMPARED, ini="", **models):
        nonlocal made
        made = TeamProject(tmp_path, postgres_url, driver)
        monkeypatch.setenv("SHOP_DATABASE", made.address)
        made.ini(ini)
        made.env(options)
        made.write("db/script.py.mako", MAKO)
        made.revision("a1", None, FIRST)
        write_models(made, **models)
        server, _, name = made.url.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return made

    yield make
    forget_models()


def write_models(team, length=20, column="", more=""):
    forget_models()
    team.write("team_models.py", MODELS.format(length=length, column=column, more=more))


def forget_models():
    sys.modules.pop("team_models", None)


def settings_of(team):
    return Settings.load(load_blueprint(team.toml), environ={"POSTGRES_URL": team.url})


def written(team, message="next", place=Place(), **options):  # noqa: B008 - it is frozen
    """The files that were written, what was reported and what was warned of."""
    blueprint = load_blueprint(team.toml)
    told, warned = [], []
    paths = revision.team(
        blueprint,
        message,
        settings_of(team),
        place,
        report=told.append,
        warn=warned.append,
        **options,
    )
    return [path for path in paths if path.suffix == ".py"], [*map(str, told)], warned


def run(team, mode=Mode.APPLY, **flags):
    blueprint = load_blueprint(team.toml)
    result = orchestrator(blueprint, settings_of(team), RunOptions(**flags)).run(mode)
    result.raise_for_failure()
    return result


def stock_text(team, folder):
    """What the stock command writes into a copy of the project."""
    team.stock("upgrade", "head")
    forget_models()
    before = {*folder.rglob("*.py")}
    team.stock("revision", "next", autogenerate=True)
    (path,) = {*folder.rglob("*.py")} - before
    text = path.read_text()
    path.unlink()
    return path.name, text


def without_id(text):
    return re.sub(r"[0-9a-f]{12}", "ID", text)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_it_is_what_stock_alembic_writes(project, driver):
    more = """
note = Table(
    "note",
    metadata,
    Column("id", sa.Integer, primary_key=True),
    Column("account_id", sa.ForeignKey("account.id"), index=True),
    Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()")),
)
"""
    team = project(
        driver,
        ini="file_template = %%(year)d-%%(rev)s_%%(slug)s",
        length=40,
        column='Column("words", sa.Text),',
        more=more,
    )
    team.env(f"{COMPARED}, include_object=lambda _, name, *__: name != 'audit'")
    name, text = stock_text(team, team.folder / "db" / "versions")
    ((path,), told, warned) = written(team)
    assert path.parent == team.folder / "db" / "versions"
    assert without_id(path.name) == without_id(name)
    assert without_id(path.read_text()) == without_id(text)
    assert 'OURS = "of the team"' in text
    assert any(line.startswith("create table note") for line in told)
    assert not warned
    assert run(team).stores[0].changes
    assert run(team, Mode.VERIFY, strict=True).ok
    team.stock("check")


def test_what_alembic_does_not_see_is_written_too(project):
    """A CHECK is in no comparison of Alembic."""
    team = project(column='sa.CheckConstraint("id > 0", name="positive"),')
    ((path,), told, _) = written(team)
    assert "ADD CONSTRAINT" in path.read_text()
    assert any("add constraint account.positive" in line for line in told)
    run(team)
    (paths, told, _) = written(team)
    assert paths == []
    assert told == ["drop table audit"]


def test_nothing_is_dropped_unasked_and_dangers_are_marked(project):
    team = project(length=10)
    ((path,), told, _) = written(team)
    assert "drop_table" not in path.read_text()
    assert "# Look at this" in path.read_text()
    assert "drop table audit" in told
    path.unlink()
    (((path,), _, _)) = written(team, allow_drops=True)
    assert "op.drop_table('audit')" in path.read_text()


def test_several_metadata_are_compared_together(project):
    more = """
other = MetaData()
Table("audit", other, Column("id", sa.Integer, primary_key=True), Column("word", sa.Text))
"""
    models = "__import__('team_models')"
    team = project(
        options=f"{OPTIONS}, target_metadata=[{models}.metadata, {models}.other]", more=more
    )
    ((path,), told, _) = written(team)
    assert told == ["add column audit.word (TEXT)"]
    assert "op.add_column('audit'" in path.read_text()


def test_the_hooks_of_the_team_are_run(project):
    """`process_revision_directives` gives an id, and a program looks at the file that is there."""
    ini = """
[post_write_hooks]
hooks = signed
signed.type = exec
signed.executable = sh
signed.options = -c "echo '# signed' >> REVISION_SCRIPT_FILENAME"
"""
    team = project(column='Column("words", sa.Text),', ini=ini)
    hook = """
def number(context, revision, directives):
    directives[0].rev_id = "b0002"
"""
    env = team.folder / "db" / "env.py"
    options = f"{COMPARED}, process_revision_directives=number"
    team.env(options)
    env.write_text(env.read_text().replace("OPTIONS =", f"{hook}\nOPTIONS ="))
    ((path,), _, _) = written(team)
    assert path.name == "b0002_next.py"
    assert path.read_text().endswith("# signed\n")
    assert [c.name for c in run(team).stores[0].changes] == ["a1", "b0002"]


def test_branches_labels_and_dependencies_are_those_of_the_command(project):
    team = project(column='Column("words", sa.Text),')
    team.revision("b1", "a1", "")
    team.revision("b2", "a1", "")
    with pytest.raises(ConfigurationError, match="Multiple heads"):
        written(team)
    place = Place(head="b2", branch_label="side", depends_on=("b1",), rev_id="c3")
    ((path,), _, _) = written(team, place=place)
    text = path.read_text()
    assert "revision = 'c3'" in text
    assert "down_revision = 'b2'" in text
    assert "branch_labels = ('side',)" in text
    assert "depends_on = 'b1'" in text


def test_a_revision_that_does_not_hold_is_not_written(project):
    """The template imports nothing, and the type of the application needs an import."""
    more = """
class Words(sa.TypeDecorator):
    impl = sa.Text
    cache_ok = True


Table("word", metadata, Column("words", Words))
"""
    team = project(more=more)
    team.write("db/script.py.mako", MAKO.replace('${imports if imports else ""}', ""))
    before = sorted(team.folder.rglob("*"))
    with pytest.raises(Exception, match="team_models") as raised:
        written(team)
    assert "No file was written" in raised.value.hint
    after = [path for path in sorted(team.folder.rglob("*")) if "__pycache__" not in path.parts]
    assert after == [path for path in before if "__pycache__" not in path.parts]
    team.write("db/script.py.mako", MAKO)
    ((path,), _, _) = written(team)
    assert "import team_models" in path.read_text()


def test_models_that_nobody_names_are_told_and_an_empty_revision_needs_none(project):
    team = project(options=OPTIONS)
    with pytest.raises(ConfigurationError, match="gives no target_metadata"):
        written(team)
    blueprint = load_blueprint(team.toml)
    (path,) = revision.team(blueprint, "by hand", None, Place())
    assert re.fullmatch(r"[0-9a-f]{12}_by_hand\.py", path.name)
    assert "down_revision = 'a1'" in path.read_text()
