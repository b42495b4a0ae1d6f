"""On MariaDB and SQLite a revision that commits by itself runs once, too."""

from __future__ import annotations

import textwrap
import uuid

import pytest
import sqlalchemy as sa

from commands import command
from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import (
    ChangeFailed,
    ConfigurationError,
    HalfDone,
    StoreConflict,
    StoreError,
)
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost
from is_db_bootstrap.stores.postgres.portable import PortableDatabase
from is_db_bootstrap.stores.postgres.portable_watch import BEGUN

TABLE = """\
id, cents = sa.Column("id", sa.Integer, primary_key=True), sa.Column("cents", sa.Integer)
op.create_table("account", id, cents)
op.execute("INSERT INTO account VALUES (1, 10)")"""
CENTS = "UPDATE account SET cents = cents * 100"
WAYS = {
    "stays": f'op.execute("{CENTS}")',
    "commit": f'bind = op.get_bind()\nbind.execute(sa.text("{CENTS}"))\nbind.commit()',
    "commit as text": f'op.execute("{CENTS}")\nop.execute("COMMIT")',
    "begin": (
        "bind = op.get_bind()\n"
        "bind.commit()\n"
        "with bind.begin():\n"
        f'    bind.execute(sa.text("{CENTS}"))'
    ),
    "the driver's commit": (
        f'op.execute("{CENTS}")\nop.get_bind().connection.driver_connection.commit()'
    ),
    "autocommit block": f'with op.get_context().autocommit_block():\n    op.execute("{CENTS}")',
}
#: A downgrade is tried in memory, whose address names no database.
FAILS = "if op.get_bind().engine.url.database:\n    {}"
LEAVES = [way for way in WAYS if way != "stays"]


MARIADB = pytest.param("mariadb", marks=pytest.mark.mariadb)
only_sqlite = pytest.mark.parametrize("shop", ["sqlite"], indirect=True)
only_mariadb = pytest.mark.parametrize("shop", [MARIADB], indirect=True)


@pytest.fixture(params=["sqlite", MARIADB])
def shop(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "mariadb":
        url = f"{request.getfixturevalue('farm').shared('mariadb').url}/once_{uuid.uuid4().hex[:8]}"
    shop = Shop(tmp_path / "migrations", url)
    yield shop
    shop.close()


class Shop:
    """A portable blueprint whose first revision makes a table, and its database."""

    def __init__(self, folder, url):
        folder.mkdir()
        self.folder = folder
        self.url = url
        self.add("a1", None, TABLE, 'op.drop_table("account")')
        self.blueprint = Blueprint("shop", "accounts", migrations=folder, portable=True)
        self.database.create()
        assert migrate.current(self.blueprint, url=url).revision is None

    def add(self, name, before, upgrade, downgrade="pass"):
        (self.folder / f"{name}.py").write_text(
            f'"""{name}"""\n'
            "import sqlalchemy as sa\n"
            "from alembic import op\n"
            "\n"
            f"revision = {name!r}\n"
            f"down_revision = {before!r}\n"
            "\n"
            "\n"
            "def upgrade():\n"
            f"{textwrap.indent(upgrade, '    ')}\n"
            "\n"
            "\n"
            "def downgrade():\n"
            f"{textwrap.indent(downgrade, '    ')}\n"
        )

    @property
    def database(self):
        return PortableDatabase(self.blueprint, self.url)

    def ask(self, query):
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            found = connection.scalar(sa.text(query))
        engine.dispose()
        return found

    def write(self, statement):
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    @property
    def state(self):
        return self.ask("SELECT version_num FROM alembic_version"), self.ask(
            "SELECT cents FROM account"
        )

    @property
    def is_marked(self):
        engine = sa.create_engine(self.url)
        found = sa.inspect(engine).has_table(BEGUN)
        engine.dispose()
        return found

    def close(self):
        if not self.url.startswith("sqlite"):
            engine = sa.create_engine(self.url)
            with engine.connect() as connection:
                connection.execute(sa.text(f"DROP DATABASE {engine.url.database}"))
            engine.dispose()


@pytest.mark.parametrize("way", WAYS)
def test_a_revision_that_commits_by_itself_runs_once(shop, way):
    shop.add("b2", "a1", WAYS[way])
    assert shop.database.upgrade() == ["a1", "b2"]
    assert shop.database.upgrade() == []
    assert shop.state == ("b2", 1000)
    assert not shop.is_marked


@pytest.mark.parametrize("way", LEAVES)
def test_a_revision_that_commits_and_then_fails_is_never_run_again_by_itself(shop, way):
    shop.database.upgrade()
    shop.add("b2", "a1", f"{WAYS[way]}\n{FAILS.format('raise SystemExit(0)')}")
    with pytest.raises(StoreError, match="SystemExit: 0") as failed:
        shop.database.upgrade()
    assert isinstance(failed.value, HalfDone)
    for _ in range(2):
        with pytest.raises(StoreConflict, match="revision b2 has committed a part of its work"):
            shop.database.upgrade()
    assert shop.state == ("a1", 1000)
    shop.database.stamp("b2")
    assert shop.database.upgrade() == []
    assert not shop.is_marked


def test_a_revision_that_is_rolled_back_may_run_again(shop):
    shop.database.upgrade()
    shop.add("b2", "a1", f"{WAYS['stays']}\n{FAILS.format('1 / 0')}")
    with pytest.raises(ChangeFailed, match=r"ZeroDivisionError.*b2\.py, line"):
        shop.database.upgrade()
    assert shop.state == ("a1", 10)
    shop.add("b2", "a1", WAYS["stays"])
    assert shop.database.upgrade() == ["b2"]
    assert shop.state == ("b2", 1000)


def test_a_first_statement_that_is_refused_leaves_no_mark(shop):
    shop.database.upgrade()
    shop.add("b2", "a1", FAILS.format('op.execute("ALTER TABLE nowhere ADD COLUMN x integer")'))
    with pytest.raises(StoreError):
        shop.database.upgrade()
    assert not shop.is_marked
    shop.add("b2", "a1", WAYS["stays"])
    assert shop.database.upgrade() == ["b2"]


# --- an upgrade runs every revision once, and nowhere else


NOTES = "with open({!r}, 'a') as notes:\n    notes.write({!r})"


def test_an_upgrade_runs_what_a_revision_does_elsewhere_once(shop, tmp_path):
    """Also when later revisions come, and when the database has tables of others."""
    notes = str(tmp_path / "notes")
    shop.write("CREATE TABLE others (id INTEGER)")
    shop.add("b2", "a1", NOTES.format(notes, "b2 "))
    shop.database.upgrade()
    shop.add("c3", "b2", NOTES.format(notes, "c3 "))
    shop.database.upgrade()
    assert (tmp_path / "notes").read_text() == "b2 c3 "


def test_an_upgrade_may_do_what_an_empty_sqlite_cannot(shop):
    shop.write("CREATE TABLE others (cents INTEGER)")
    shop.write("INSERT INTO others VALUES (7)")
    own = "UPDATE account SET cents = (SELECT cents FROM others)"
    if shop.url.startswith("mysql"):
        own += " WHERE length(concat(version(), sleep(0)))"
        own = f'{own}")\nop.execute("ALTER TABLE account MODIFY cents BIGINT'
    shop.add("b2", "a1", f'op.execute("{own}")')
    assert shop.database.upgrade() == ["a1", "b2"]
    assert shop.state == ("b2", 7)


MAKES_MORE = """\
op.create_table("more", sa.Column("id", sa.Integer))
op.create_index("by_id", "more", ["id"])"""
#: Ways in which a revision lives with a table that is there.
LIVES_WITH = {
    "a condition": (
        'if not sa.inspect(op.get_bind()).has_table("more"):\n'
        f"{textwrap.indent(MAKES_MORE, '    ')}"
    ),
    "an end": f'if sa.inspect(op.get_bind()).has_table("more"):\n    return\n{MAKES_MORE}',
    "a drop": f'op.execute("DROP TABLE IF EXISTS more")\n{MAKES_MORE}',
    "a name": f'op.rename_table("more", "more_of_old")\n{MAKES_MORE}',
    "an option": 'op.create_table("more", sa.Column("id", sa.Integer), if_not_exists=True)',
}


def test_a_table_that_is_there_is_told_before_anything_is_changed(shop):
    shop.database.upgrade()
    shop.add("b2", "a1", 'op.add_column("account", sa.Column("note", sa.Integer))')
    shop.add("c3", "b2", "_make_more()")
    with (shop.folder / "c3.py").open("a") as revision:
        revision.write(f"\n\ndef _make_more():\n{textwrap.indent(MAKES_MORE, '    ')}\n")
    shop.write("CREATE TABLE more (id INTEGER)")
    with pytest.raises(StoreConflict, match="has more already, but no revision"):
        shop.database.upgrade()
    assert shop.state == ("a1", 10)
    assert shop.database.upgrade("b2") == ["b2"]


@pytest.mark.parametrize("way", LIVES_WITH)
def test_a_revision_that_lives_with_a_table_is_not_refused_for_it(shop, way):
    shop.add("b2", "a1", LIVES_WITH[way])
    shop.write("CREATE TABLE more (id INTEGER)")
    assert shop.database.upgrade() == ["a1", "b2"]


def test_a_downgrade_on_trial_finds_no_database_in_the_environment(shop, monkeypatch):
    reaches = """\
import os
with sa.create_engine(os.environ["DATABASE_URL"]).begin() as other:
    other.execute(sa.text("INSERT INTO reached VALUES (1)"))"""
    shop.write("CREATE TABLE reached (id INTEGER)")
    monkeypatch.setenv("DATABASE_URL", shop.url)
    shop.database.upgrade()
    shop.add("b2", "a1", "pass", reaches)
    shop.database.stamp("b2")
    with pytest.raises(RowsWouldBeLost, match=r"is not known: its trial in a SQLite .* failed"):
        shop.database.downgrade("-1")
    assert shop.ask("SELECT count(*) FROM reached") == 0


@only_mariadb
def test_a_trial_that_fails_says_that_sqlite_said_so(shop):
    shop.add("b2", "a1", 'op.execute("ALTER TABLE account MODIFY cents BIGINT")')
    shop.database.upgrade()
    with pytest.raises(RowsWouldBeLost, match=r"is not known: .* failed: SQLite: near .MODIFY"):
        shop.database.downgrade("-1")


# --- downgrades


LOOP = """\
bind = op.get_bind()
for (number,) in bind.exec_driver_sql("SELECT id FROM account").all():
    bind.exec_driver_sql(f"DELETE FROM account WHERE id = {number}")"""
#: What a downgrade does with the rows of `account`, and what is told of it.
TOUCHING = {
    "DELETE": ("op.execute('DELETE FROM account')", "table account (DELETE, 1 row)"),
    "UPDATE": (f'op.execute("{CENTS}")', "table account (UPDATE, 1 row)"),
    "loop": (LOOP, "table account (DELETE, 1 row)"),
}


@pytest.mark.parametrize("way", TOUCHING)
def test_a_downgrade_that_reads_or_changes_rows_is_asked_about(shop, way):
    down, told = TOUCHING[way]
    shop.add("b2", "a1", "pass", down)
    shop.database.upgrade()
    with pytest.raises(RowsWouldBeLost) as caught:
        shop.database.downgrade("-1")
    assert list(map(str, caught.value.losses)) == [told]
    assert "b2 (b2.py)" in caught.value.message
    assert shop.state == ("b2", 10)
    assert shop.database.downgrade("-1", drop_rows=True) == ["b2"]


def test_a_downgrade_of_tables_without_rows_is_no_question(shop):
    made = """op.create_table("more", sa.Column("id", sa.Integer), sa.Column("note", sa.String(9)))
op.create_index("by_note", "more", ["note"])"""
    shop.add("b2", "a1", made, 'op.drop_index("by_note", "more")\nop.drop_table("more")')
    shop.database.upgrade()
    assert shop.database.downgrade("-1") == ["b2"]


@only_mariadb  # SQLite has the engine of the trial
def test_a_downgrade_that_does_something_else_on_its_own_engine_is_asked_about(shop):
    shop.add("b2", "a1", "pass", FAILS.format("op.execute('DELETE FROM account')"))
    shop.database.upgrade()
    with pytest.raises(RowsWouldBeLost, match="what it does on mysql is not known"):
        shop.database.downgrade("-1")


def test_rows_that_go_with_the_parent_that_is_copied_are_asked_about(shop):
    """SQLite deletes the rows of a table that is dropped, and children with them.

    So it does in Alembic's batch mode. A downgrade of MariaDB is tried in SQLite too.
    """
    child = """op.create_table("child", sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("account", sa.Integer, sa.ForeignKey("account.id", ondelete="CASCADE")))
op.execute("INSERT INTO child VALUES (1, 1)")"""
    copy = """with op.batch_alter_table("account", recreate="always") as batch:
    batch.alter_column("cents", nullable=True)"""
    shop.add("b2", "a1", child, 'op.drop_table("child")')
    shop.add("c3", "b2", "pass", copy)
    shop.database.upgrade()
    with pytest.raises(RowsWouldBeLost) as caught:
        shop.database.downgrade("-1")
    assert "table child (DELETE, 1 row)" in list(map(str, caught.value.losses))


@only_sqlite  # MariaDB commits every schema statement
def test_a_downgrade_that_leaves_its_transaction_is_asked_about(shop):
    shop.add("b2", "a1", "pass", 'op.execute("COMMIT")')
    shop.database.upgrade()
    with pytest.raises(RowsWouldBeLost, match="b2 leaves its transaction"):
        shop.database.downgrade("-1")


def _merged(shop):
    """Two branches and their merge; each revision makes a table."""
    for name, before in (("b1", "a1"), ("b2", "a1"), ("m1", ("b1", "b2"))):
        shop.add(
            name,
            before,
            f'op.create_table("made_by_{name}", sa.Column("id", sa.Integer, primary_key=True))',
            f'op.drop_table("made_by_{name}")',
        )
    assert shop.database.upgrade() == ["a1", "b1", "b2", "m1"]


def test_a_downgrade_below_a_merge_goes_step_by_step_and_tells_what_it_loses(shop):
    _merged(shop)
    assert shop.database.downgrade("-1") == ["m1"]
    assert migrate.current(shop.blueprint, url=shop.url).revision == "b1, b2"
    shop.write("INSERT INTO made_by_b2 VALUES (1)")
    with pytest.raises(RowsWouldBeLost) as caught:
        shop.database.downgrade("-1")
    assert list(map(str, caught.value.losses)) == ["table made_by_b2 (1 row)"]
    assert caught.value.to == "b1"
    shop.write("DELETE FROM made_by_b2")
    assert shop.database.downgrade("b1") == ["b2"]
    assert shop.database.upgrade() == ["b2", "m1"]
    with pytest.raises(RowsWouldBeLost) as caught:
        shop.database.downgrade("base")
    assert list(map(str, caught.value.losses)) == ["table account (1 row)"]
    assert shop.database.downgrade("base", drop_rows=True) == ["m1", "b2", "b1", "a1"]
    assert shop.database.upgrade("+2") == ["a1", "b1"]
    with pytest.raises(StoreConflict, match="Revision b2 is not applied"):
        shop.database.downgrade("b2", drop_rows=True)


def test_a_stamp_between_the_branches_of_a_merge_records_that_revision_alone(shop):
    _merged(shop)
    shop.database.downgrade("-1")
    assert shop.database.stamp("b1") == ["b1"]
    assert migrate.current(shop.blueprint, url=shop.url).revision == "b1"


@only_sqlite
@pytest.mark.parametrize(
    "address",
    [
        "mysql+pymysql://u:p@127.0.0.1:1/shop?nothing=1",
        "mysql+pymysql://u:p@127.0.0.1:1/shop?connect_timeout=soon",
        "mysql+pymysql://u:p@127.0.0.1:1/shop?charset=nothing",
        "mysql+pymysql://u:p@127.0.0.1:1/shop?ssl_ca=/nothing.pem",
        "sqlite:///shop.db?timeout=soon",
    ],
)
def test_options_that_a_driver_does_not_take_are_a_configuration_error(shop, address):
    with pytest.raises(ConfigurationError, match=r"options after the \?") as caught:
        migrate.current(shop.blueprint, url=address)
    assert "The address cannot be used: " in str(caught.value)


def test_an_address_of_this_engine_in_the_environment_is_no_error_beside_url(shop):
    here = ["--blueprint", str(shop.folder.parent), "--url", shop.url]
    (shop.folder.parent / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\n\n"
        'BLUEPRINT = Blueprint("shop", "accounts", portable=True)\n'
    )
    environ = {"DATABASE_URL": shop.url}
    code, out, err = command("migrate", "upgrade", *here, environ=environ)
    assert (code, out) == (0, ["a1"]), err
    code, _, err = command("migrate", "upgrade", *here[:2], environ=environ)
    assert code == 2
    assert "Only `is-db-bootstrap migrate … --url ADDRESS` takes MariaDB and SQLite" in err


# --- another version table


def recorded_in(shop, name):
    """Put the revision a1 into another version table, as a plain Alembic does."""
    with shop.database._engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE {name} (version_num VARCHAR(32))"))
        connection.execute(sa.text(f"INSERT INTO {name} VALUES ('a1')"))
    schema = sa.make_url(shop.url).database if shop.url.startswith("m") else "main"
    return f"{schema}.{name}"


def shown_by_a_view(shop):
    """The same, in a view on a table whose column has another name."""
    with shop.database._engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE releases (release_id VARCHAR(32))"))
        connection.execute(sa.text("INSERT INTO releases VALUES ('a1')"))
        connection.execute(
            sa.text("CREATE VIEW shown AS SELECT release_id AS version_num FROM releases")
        )
    schema = sa.make_url(shop.url).database if shop.url.startswith("m") else "main"
    return f"{schema}.shown"


@pytest.mark.parametrize("kind", ["table", "view"])
def test_our_revisions_in_another_version_table_are_a_conflict_that_names_it(shop, kind):
    place = recorded_in(shop, "shop_version") if kind == "table" else shown_by_a_view(shop)
    with pytest.raises(StoreConflict, match=f"a1 of shop is recorded in {place} of") as caught:
        migrate.upgrade(shop.blueprint, url=shop.url)
    assert "migrate stamp a1" in caught.value.hint
    assert migrate.current(shop.blueprint, url=shop.url).revision is None
    ignored = caught.value.hint.rpartition(": ")[2].partition("=")
    assert ignored[0] == "POSTGRES_IGNORED_VERSION_TABLES"
    environ = {ignored[0]: ignored[2]}
    done = migrate.upgrade(shop.blueprint, url=shop.url, environ=environ)
    assert done.revisions == ("a1",)
    shop.add("b2", "a1", WAYS["stays"])  # what the other table records is not pending any more
    assert migrate.upgrade(shop.blueprint, url=shop.url, environ={}).revisions == ("b2",)


@only_mariadb
def test_another_version_table_that_is_locked_is_a_conflict_that_names_it(shop):
    place = recorded_in(shop, "shop_version")
    with shop.database._engine.connect() as other:
        other.detach()  # it is closed at the end, and the lock goes with it
        other.execute(sa.text("LOCK TABLES shop_version WRITE"))
        with pytest.raises(StoreConflict, match=rf"{place} \(.*Lock wait timeout"):
            migrate.upgrade(shop.blueprint, url=shop.url)
