"""What `revision` writes beside Alembic's operations.

Also what it marks, and what it leaves to a person.

Every revision is applied, undone and applied again in a scratch database before it is written.
"""

import json
import sys

import pytest
import sqlalchemy as sa
from alembic.operations import ops

from commands import command
from is_db_bootstrap import revision
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.postgres.operations import described
from is_db_bootstrap.stores.postgres.statements import Statement, render_statement

BLUEPRINT = """
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("app", "for tests")
"""
FIRST = '''"""First."""
from alembic import op

revision = "app_0001"
down_revision = None


def upgrade():
    op.execute("""{up}""")


def downgrade():
    pass
'''


@pytest.fixture
def place(tmp_path, request):
    """`place("CREATE …", "models")`: a folder with one revision, in which models are replaced."""
    made = tmp_path / f"bp_{abs(hash(request.node.name))}"

    def forget():
        for name in [n for n in sys.modules if n.partition(".")[0] == made.name]:
            del sys.modules[name]

    def make(up, models):
        (made / "migrations").mkdir(parents=True, exist_ok=True)
        (made / "blueprint.py").write_text(BLUEPRINT)
        (made / "models.py").write_text(
            f"from sqlalchemy import *\n\nmetadata = MetaData()\n{models}"
        )
        if up:
            (made / "migrations" / "app_0001.py").write_text(FIRST.format(up=up))
        forget()
        return made

    yield make
    forget()


class Written:
    """The text of a new revision, and what was told."""

    def __init__(self, place, url, **options):
        blueprint = load_blueprint(place, may_have_no_files=True)
        settings = Settings.load(blueprint, environ={}, flags={"postgres_url": url})
        told, self.warned = [], []
        paths = revision.postgres(
            blueprint, "more", settings, report=told.append, warn=self.warned.append, **options
        )
        self.text = paths[0].read_text() if paths else ""
        self.done = [str(each) for each in told if not (each.left_out or each.by_hand)]
        self.left_out = [str(each) for each in told if each.left_out]
        self.by_hand = [str(each) for each in told if each.by_hand]

    @property
    def differs(self):
        return [*self.done, *self.left_out, *self.by_hand]


ENUM = """
from sqlalchemy.dialects.postgresql import ARRAY, DOMAIN

mood = Enum("ok", "sad", name="mood")
Table("old", metadata, Column("id", Integer, primary_key=True), Column("mood", mood))
Table("one", metadata, Column("id", Integer, primary_key=True), Column("mood", mood))
Table("two", metadata, Column("id", Integer, primary_key=True), Column("moods", ARRAY(mood)),
      Column("mail", DOMAIN("mail", Text, check=text("VALUE LIKE '%@%'"))))
"""


@pytest.mark.postgres
def test_a_new_type_is_made_once_and_goes_with_the_downgrade(place, postgres_url):
    """Also for a column that is added, and for two new tables that share the type."""
    folder = place("CREATE TABLE old (id serial PRIMARY KEY)", ENUM)
    found = Written(folder, postgres_url)
    assert found.text.count("CREATE TYPE mood AS ENUM") == 1
    assert found.text.count("DROP TYPE mood") == 1
    assert found.text.count("create_type=False") == 4
    assert {"create type mood", "create type mail", "add column old.mood (mood)"} <= {*found.done}
    assert (found.warned, found.by_hand) == ([], [])
    assert Written(folder, postgres_url).differs == []


UNSEEN = """
    CREATE TYPE mood AS ENUM ('ok', 'sad');
    CREATE TABLE item (id serial PRIMARY KEY, mood mood, price int, at timestamptz,
                       CONSTRAINT price CHECK (price > 0));
    CREATE INDEX by_price ON item (price) WHERE price > 5;
    CREATE FUNCTION ours() RETURNS int LANGUAGE sql AS 'SELECT 1';
"""
UNSEEN_MODELS = '''
Table("item", metadata, Column("id", Integer, primary_key=True),
      Column("mood", Enum("fine", "ok", "so so", "sad", "bad", name="mood")),
      Column("price", Integer), Column("at", DateTime(timezone=True)),
      CheckConstraint("price > 1", name="price"), CheckConstraint("id > 0", name="positive"),
      Index("by_price", "price", postgresql_where=text("price > 7")))
event.listen(metadata, "after_create", DDL("""
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.at := now(); -- at ::now or :never
    RETURN NEW;
END $$;
CREATE TRIGGER touched BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION touch();
"""))
'''


@pytest.mark.postgres
def test_what_alembic_does_not_see_is_written(place, postgres_url):
    folder = place(UNSEEN, UNSEEN_MODELS)
    found = Written(folder, postgres_url)
    kinds = [" ".join(told.split()[:3]) for told in found.done]
    assert kinds == [
        "change enum mood",
        "add function touch()",
        "add constraint item.positive",
        "change constraint item.price",
        "change index item.by_price",
        "add trigger item.touched",
    ]
    assert (found.left_out, found.by_hand) == ([], [])
    # The downgrade brings everything back but the values, and the upgrade can follow it.
    assert found.warned == [
        "Only the revisions make: function ours()",
        "The downgrade does not bring back what was: enum mood.",
    ]
    again = Written(folder, postgres_url)
    assert (again.text, again.differs) == ("", [])
    assert again.warned == ["Only the revisions make: function ours()"]


BY_HAND = """
    CREATE TYPE mood AS ENUM ('ok', 'sad');
    CREATE TABLE item (id serial PRIMARY KEY, mood mood, price int,
                       twice int GENERATED ALWAYS AS (price * 2) STORED,
                       CONSTRAINT cheap CHECK (price < 9));
"""
BY_HAND_MODELS = """
Table("item", metadata, Column("id", Integer, primary_key=True), Column("price", Integer),
      Column("mood", Enum("sad", "ok", name="mood")), Column("twice", Integer, Computed("price * 3")))
"""


@pytest.mark.postgres
def test_what_only_a_person_can_write_is_told_and_is_not_no_difference(place, postgres_url):
    folder = place(BY_HAND, BY_HAND_MODELS)
    code, out, err = command(
        "revision", "-m", "more", "-b", str(folder), "--url", postgres_url, "--output", "json"
    )
    document = json.loads("\n".join(out))
    assert (code, document["files"], document["operations"]) == (0, [], [])
    assert [each["object"] for each in document["left_out"]] == ["item.cheap"]
    told = {each["object"]: each["detail"] for each in document["by_hand"]}
    assert set(told) == {"mood", "item.twice"}
    assert "takes no value out of an enum and moves none" in told["mood"]
    assert 'ALTER COLUMN "twice" SET EXPRESSION AS ((price * 3))' in told["item.twice"]
    _, _, err = command("revision", "-m", "more", "-b", str(folder), "--url", postgres_url)
    assert "by hand: change column item.twice" in err
    assert "left out: drop constraint item.cheap\n" in err
    assert "do not differ in anything else" in err
    found = Written(folder, postgres_url, allow_drops=True)
    assert found.done == ["drop constraint item.cheap: what it refused is taken from then on"]


NEEDING = """
    CREATE FUNCTION number() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE item (id int PRIMARY KEY DEFAULT number(), at timestamptz DEFAULT now(), mail text,
                       code text, CONSTRAINT of_the_team UNIQUE (code));
"""
NEEDING_MODELS = """
from sqlalchemy.schema import FetchedValue

Table("item", metadata, Column("id", Integer, primary_key=True, server_default=text("number()")),
      Column("at", DateTime(timezone=True), server_default=FetchedValue()),
      Column("mail", Text), Column("code", Text), UniqueConstraint("code"){more})
"""


@pytest.mark.postgres
def test_models_that_need_what_a_revision_makes_are_compared_all_the_same(place, postgres_url):
    """A default that the model leaves open, and the name of a constraint, are no difference."""
    found = Written(place(NEEDING, NEEDING_MODELS.format(more="")), postgres_url)
    assert (found.differs, found.warned) == ([], [])
    more = ', UniqueConstraint("mail"), CheckConstraint("id > 0", name="positive")'
    found = Written(place(NEEDING, NEEDING_MODELS.format(more=more)), postgres_url)
    assert found.done[-1] == "add constraint item.positive (CHECK ((id > 0)))"
    # Alembic gives the new constraint no name, so its downgrade cannot drop it.
    assert [told.partition(": ")[0] for told in found.warned] == ["The downgrade fails"]
    more = ', Column("none", Text, server_default=text("not_there()"))'
    models = "from sqlalchemy import DDL, event\n" + NEEDING_MODELS.format(more="")
    models += 'event.listen(metadata, "after_create", DDL("SELECT not_there()"))\n'
    found = Written(place("", models), postgres_url)
    assert ["was not compared" in told for told in found.warned] == [True]
    assert "function not_there() does not exist" in found.warned[0]


def column(name, kind, **options):
    return ops.AddColumnOp("t", sa.Column(name, kind, **options))


def retyped(before, after):
    return ops.AlterColumnOp("t", "a", existing_type=before, modify_type=after)


@pytest.mark.parametrize(
    "operation",
    [
        column("a", sa.Text(), nullable=False),
        ops.AlterColumnOp("t", "a", modify_nullable=False),
        retyped(sa.String(9), sa.String(8)),
        retyped(sa.Text(), sa.String(8)),
        retyped(sa.BigInteger(), sa.Integer()),
        retyped(sa.Numeric(9, 2), sa.Numeric(9, 3)),
        retyped(sa.Text(), sa.Integer()),
        retyped(sa.Float(), sa.Numeric(9, 2)),
        ops.DropTableOp("t"),
        ops.DropColumnOp("t", "a"),
        ops.DropIndexOp("a", "t"),
        ops.DropConstraintOp("a", "t"),
    ],
    ids=lambda operation: str(next(described(ops.UpgradeOps([operation])))),
)
def test_what_may_lose_something_or_fail_is_marked(operation):
    (told,) = described(ops.UpgradeOps([operation]))
    assert told.danger


@pytest.mark.parametrize(
    "operation",
    [
        column("a", sa.Text(), nullable=False, server_default="x"),
        column("a", sa.Text()),
        ops.AddColumnOp("t", sa.Column("a", sa.Integer(), sa.Identity(), nullable=False)),
        ops.AlterColumnOp("t", "a", modify_nullable=True),
        retyped(sa.String(8), sa.String(9)),
        retyped(sa.String(8), sa.Text()),
        retyped(sa.SmallInteger(), sa.BigInteger()),
        retyped(sa.Numeric(9, 2), sa.Numeric(12, 3)),
        retyped(sa.Numeric(9, 2), sa.Numeric()),
    ],
    ids=lambda operation: str(next(described(ops.UpgradeOps([operation])))),
)
def test_what_loses_nothing_is_not_marked(operation):
    (told,) = described(ops.UpgradeOps([operation]))
    assert told.danger == ""


@pytest.mark.parametrize(
    "sql", ["SELECT ':a', ' :b', 'c'::text, '%'", "SELECT 1\nWHERE  ':x'='y'\n;"]
)
def test_a_written_statement_arrives_as_it_is(sql):
    """Colons are no parameters, and several lines stay what they are."""
    sent = []

    class op:  # noqa: N801 - as a revision calls it
        @staticmethod
        def execute(statement):
            compiled = sa.text(statement).compile()
            assert compiled.params == {}
            sent.append(str(compiled))

    exec(render_statement(None, Statement(sql)), {"op": op})
    assert sent == [sql.strip()]
