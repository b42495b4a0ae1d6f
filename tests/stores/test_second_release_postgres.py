"""The second release of a blueprint on PostgreSQL: kinds of changes of its revisions.

Each is planned, applied and verified, or refused with what to type. Rows that the application has
written since the first release are in the tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.scratch import file_texts, generate

pytestmark = pytest.mark.postgres

FILE = '''"""{title}"""
from alembic import op

revision = {revision!r}
down_revision = {before!r}


def upgrade():
{body}
'''
FIRST = """
CREATE TYPE state AS ENUM ('open', 'paid');
CREATE TABLE customers (
    id     bigint PRIMARY KEY,
    email  varchar(50) NOT NULL,
    note   text
);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, state state NOT NULL);
CREATE INDEX of_note ON customers (note);
CREATE VIEW emails AS SELECT email FROM customers;
"""
#: What the application has written: two customers have one email, an order has no customer.
ROWS = """
INSERT INTO customers SELECT n, 'a' || n % 4 || '@example.org', NULL FROM generate_series(1, 5) n;
INSERT INTO orders SELECT n, n, 'open' FROM generate_series(1, 6) n;
"""
EMAILS = "SELECT id, email FROM customers ORDER BY id"
FIVE = tuple((number, f"a{number % 4}@example.org") for number in range(1, 6))


@dataclass(frozen=True)
class Change:
    """The body of the second release's revision, and what a query of the application finds then."""

    body: str
    query: str = EMAILS
    rows: tuple[tuple[object, ...], ...] = FIVE


def sql(*statements: str) -> str:
    """A body that runs statements in the revision's transaction."""
    return "\n".join(f"    op.execute({statement!r})" for statement in statements)


def outside(*statements: str) -> str:
    """A body that runs statements outside of a transaction."""
    lines = [f"        op.execute({statement!r})" for statement in statements]
    return "\n".join(["    with op.get_context().autocommit_block():", *lines])


BACKFILL = """\
    with op.get_context().autocommit_block():
        fill = (
            "UPDATE customers SET note = 'none' WHERE id IN "
            "(SELECT id FROM customers WHERE note IS NULL LIMIT 2)"
        )
        while op.get_bind().exec_driver_sql(fill).rowcount:
            pass
    op.execute("ALTER TABLE customers ALTER note SET NOT NULL")"""
CHANGES = {
    "a column with a default is new": Change(
        sql("ALTER TABLE customers ADD country text NOT NULL DEFAULT 'DE'"),
        "SELECT DISTINCT country FROM customers",
        (("DE",),),
    ),
    "a column is filled in batches and becomes NOT NULL": Change(
        BACKFILL, "SELECT note, count(*) FROM customers GROUP BY note", (("none", 5),)
    ),
    "a column is renamed": Change(
        sql("ALTER TABLE customers RENAME email TO mail"),
        "SELECT count(mail), count(DISTINCT mail) FROM customers",
        ((5, 4),),
    ),
    "a column is removed": Change(sql("ALTER TABLE customers DROP note")),
    "a type becomes wider": Change(
        sql(
            "DROP VIEW emails",
            "ALTER TABLE customers ALTER email TYPE text",
            "CREATE VIEW emails AS SELECT email FROM customers",
        )
    ),
    "an index is built while the application writes": Change(
        outside("CREATE INDEX CONCURRENTLY of_email ON customers (email)")
    ),
    "an index becomes another one": Change(
        sql("DROP INDEX of_note", "CREATE INDEX of_note ON customers (lower(note))")
    ),
    "duplicates are removed, then a column is unique": Change(
        sql(
            "DELETE FROM customers a USING customers b WHERE a.email = b.email AND a.id > b.id",
            "ALTER TABLE customers ADD CONSTRAINT one_email UNIQUE (email)",
        ),
        rows=FIVE[:4],
    ),
    "a foreign key is validated in a step of its own": Change(
        sql(
            "DELETE FROM orders WHERE customer_id NOT IN (SELECT id FROM customers)",
            "ALTER TABLE orders ADD CONSTRAINT of_customer FOREIGN KEY (customer_id) "
            "REFERENCES customers NOT VALID",
            "ALTER TABLE orders VALIDATE CONSTRAINT of_customer",
        ),
        "SELECT count(*) FROM orders",
        ((5,),),
    ),
    "an enumeration has a label more": Change(
        outside("ALTER TYPE state ADD VALUE 'sent' AFTER 'open'"),
        "SELECT enum_range(NULL::state)::text",
        (("{open,sent,paid}",),),
    ),
    "a view has another query": Change(
        sql("CREATE OR REPLACE VIEW emails AS SELECT email FROM customers WHERE note IS NOT NULL"),
        "SELECT count(*) FROM emails",
        ((0,),),
    ),
    "a table becomes two": Change(
        sql(
            "CREATE TABLE mails (customer_id bigint REFERENCES customers, email text NOT NULL)",
            "INSERT INTO mails SELECT id, email FROM customers",
        ),
        "SELECT customer_id, email FROM mails ORDER BY 1",
    ),
}


class Shop:
    """A blueprint's folder, and the database that has its first release and the rows."""

    def __init__(self, folder, url):
        self.folder = folder
        self.url = url
        self.blueprint = Blueprint("shop", "Customers.", migrations=folder)
        self.write("shop_0001", None, sql(FIRST))

    def write(self, revision, before, body):
        text = FILE.format(title=revision, revision=revision, before=before, body=body)
        (self.folder / f"{revision}_x.py").write_text(text)

    def refresh(self):
        """What `is-db-bootstrap revision --refresh` does."""
        catalogue = generate(StoreUrl.parse("postgres", self.url), self.blueprint)
        for path, text in file_texts(self.blueprint, catalogue).items():
            path.write_text(text)

    def run(self, mode=Mode.APPLY, **options):
        store = PostgreSQLBootstrapper(self.url, self.blueprint)
        return BootstrapOrchestrator([store], **options).run(mode)

    def query(self, text):
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(text)
            return tuple(cursor.fetchall()) if cursor.description else ()


@pytest.fixture
def shop(tmp_path, postgres_url):
    made = Shop(tmp_path, postgres_url)
    made.run().raise_for_failure()
    made.query(ROWS)
    return made


def names(result):
    return [change.name for change in result.stores[0].changes]


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_the_schema_is_planned_applied_and_verified(shop, kind):
    change = CHANGES[kind]
    shop.write("shop_0002", "shop_0001", change.body)
    shop.refresh()
    assert names(shop.run(Mode.PLAN)) == ["shop_0002"]
    assert shop.run(Mode.VERIFY).exit_code == 3
    applied = shop.run()
    assert (applied.outcome, names(applied)) == (Outcome.CHANGED, ["shop_0002"]), applied
    assert shop.run().outcome is Outcome.UNCHANGED
    assert shop.run(Mode.VERIFY, strict=True).exit_code == 0
    assert shop.query(change.query) == change.rows

    (shop.folder / "shop_0002_x.py").unlink()
    first = shop.run()
    assert (first.exit_code, first.outcome) == (0, Outcome.UNCHANGED), first
    assert shop.query(change.query) == change.rows


@dataclass(frozen=True)
class Refusal:
    """A body that the rows do not allow, a part of its message, and a body that they do allow."""

    body: str
    words: str
    corrected: str


UNIQUE = "ALTER TABLE customers ADD CONSTRAINT one_email UNIQUE (email)"
OF_CUSTOMER = (
    "ALTER TABLE orders ADD CONSTRAINT of_customer FOREIGN KEY (customer_id) REFERENCES customers"
)
REFUSED = {
    "a unique column has duplicates": Refusal(
        sql(UNIQUE),
        'could not create unique index "one_email"',
        sql(
            "UPDATE customers a SET email = a.id || a.email FROM customers b "
            "WHERE a.email = b.email AND a.id > b.id",
            UNIQUE,
        ),
    ),
    "a column is NOT NULL before it is filled": Refusal(
        sql("ALTER TABLE customers ALTER note SET NOT NULL"),
        'column "note" of relation "customers" contains null values',
        BACKFILL,
    ),
    "a type is too short for a value": Refusal(
        sql("DROP VIEW emails", "ALTER TABLE customers ALTER email TYPE varchar(5)"),
        "value too long for type character varying(5)",
        sql("DROP VIEW emails", "ALTER TABLE customers ALTER email TYPE varchar(90)"),
    ),
    "a row has no target for its foreign key": Refusal(
        sql(OF_CUSTOMER),
        'violates foreign key constraint "of_customer"',
        sql("INSERT INTO customers VALUES (6, 'a6@example.org')", OF_CUSTOMER),
    ),
    "a view needs the column that is removed": Refusal(
        sql("ALTER TABLE customers DROP email"),
        "cannot drop column email of table customers because other objects depend on it",
        sql("DROP VIEW emails", "ALTER TABLE customers DROP email"),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_change_that_the_rows_refuse_leaves_nothing_and_is_applied_when_it_is_corrected(
    shop, kind
):
    refusal = REFUSED[kind]
    tables = (
        "SELECT c.id, email, note, o.id, customer_id FROM customers c "
        "FULL JOIN orders o ON o.id = c.id ORDER BY o.id"
    )
    before = shop.query(tables)
    shop.write("shop_0002", "shop_0001", refusal.body)
    refused = shop.run()
    error = refused.stores[0].error
    assert (refused.exit_code, error.kind) == (1, "change_failed")
    assert refusal.words in error.message
    assert "shop_0002_x.py, line " in error.message
    assert "Correct the cause and run again." in error.hint
    assert shop.query(tables) == before
    assert shop.query("SELECT version_num FROM alembic_version") == (("shop_0001",),)

    shop.write("shop_0002", "shop_0001", refusal.corrected)
    shop.refresh()
    shop.run().raise_for_failure()
    assert shop.run(Mode.VERIFY, strict=True).exit_code == 0


def test_a_change_that_commits_by_itself_and_fails_is_told_with_both_commands(shop):
    unique = "CREATE UNIQUE INDEX CONCURRENTLY one_email ON customers (email)"
    shop.write("shop_0002", "shop_0001", outside("UPDATE customers SET note = 'x'", unique))
    codes = []
    for _ in range(2):
        refused = shop.run()
        codes.append(refused.exit_code)
        hint = refused.stores[0].error.hint
        assert "`is-db-bootstrap migrate stamp shop_0002`" in hint
        assert "`is-db-bootstrap apply --retry shop_0002`" in hint
    assert codes == [1, 6]


def test_a_revision_before_the_applied_one_is_refused_with_its_place_and_the_command(shop):
    shop.write("shop_0000", None, sql("CREATE TABLE early (id int)"))
    shop.write("shop_0001", "shop_0000", sql(FIRST))
    refused = shop.run()
    assert refused.exit_code == 6
    hint = refused.stores[0].error.hint
    assert "with down_revision = 'shop_0001' in its file" in hint
    assert "`is-db-bootstrap migrate stamp shop_0001`" in hint


def test_an_applied_revision_of_another_name_is_refused_with_both_names(shop):
    (shop.folder / "shop_0001_x.py").unlink()
    shop.write("shop_one", None, sql(FIRST))
    refused = shop.run()
    assert refused.exit_code == 6
    error = refused.stores[0].error
    assert "records shop_0001, which shop does not know, and lacks shop_one" in error.message
    assert "Or run the version that was here." in error.hint


def test_two_second_releases_at_once_are_refused_with_the_line_that_joins_them(shop):
    for name in ("shop_0002a", "shop_0002b"):
        shop.write(name, "shop_0001", sql(f"CREATE TABLE {name} (id int)"))
    with pytest.raises(ConfigurationError, match="several heads") as refused:
        shop.run()
    assert "down_revision = ('shop_0002a', 'shop_0002b')" in refused.value.hint


def test_an_applied_revision_that_is_edited_is_drift_and_is_not_run_again(shop):
    shop.write("shop_0001", None, sql(FIRST, "CREATE TABLE more (id int)"))
    shop.refresh()
    assert shop.run(Mode.PLAN).stores[0].changes == ()
    applied = shop.run()
    assert applied.exit_code == 3
    assert applied.stores[0].error.message == "table more: is missing."
    assert "is-db-bootstrap revision" in applied.stores[0].error.hint
