"""Whether a downgrade loses rows is found out in a scratch database.

What cannot be found out is asked about.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest

from commands import answered, command
from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres import downgrade, downgrade_trial, loss_count
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost

pytestmark = pytest.mark.postgres

REVISION = '''"""Step {number}."""

from alembic import op

revision = "d_{number}"
down_revision = {before!r}


def upgrade():
{up}


def downgrade():
{down}
'''


@pytest.fixture
def own(tmp_path):
    """`own((up, down), …)`: a blueprint of revisions, each in lines of Python or a text of SQL."""

    def make(*steps):
        folder = tmp_path / "migrations"
        folder.mkdir(exist_ok=True)
        for number, step in enumerate(steps, 1):
            up, down = (_lines(part) for part in step)
            text = REVISION.format(
                number=number, before=f"d_{number - 1}" if number > 1 else None, up=up, down=down
            )
            (folder / f"d_{number}.py").write_text(text)
        return Blueprint("own", "for tests", migrations=folder)

    return make


def _lines(part):
    """Lines of Python, given as a list, or one statement of SQL."""
    lines = part if isinstance(part, list) else [f"op.execute({part!r})"]
    return "\n".join(f"    {line}" for line in lines)


def run(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def value(url, query):
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


def refused(blueprint, url, target="base"):
    """What a downgrade says that asks, and that it has changed nothing."""
    with pytest.raises(RowsWouldBeLost) as caught:
        migrate.downgrade(blueprint, target, url=url)
    assert migrate.current(blueprint, url=url).is_head
    return caught.value


def scratch_databases(url):
    return value(
        url, "SELECT count(*) FROM pg_database WHERE datname LIKE 'is_db_bootstrap_scratch%'"
    )


TABLE = ("CREATE TABLE t (id int PRIMARY KEY, note text)", "DROP TABLE t")


def test_a_trial_takes_no_lock_on_the_target_and_leaves_no_database(postgres_url, own):
    blueprint = own(TABLE)
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')")
    with psycopg.connect(
        postgres_url
    ) as writer:  # a downgrade on the target would wait for this, and fail
        writer.execute("INSERT INTO t VALUES (2, 'b')")
        found = refused(blueprint, postgres_url)
        assert str(found.losses[0]) == "table t (1 row)"
        assert writer.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] == 0
    assert scratch_databases(postgres_url) == 0


#: How a revision opens a connection of its own, by the environment.
OWN_CONNECTIONS = {
    "POSTGRES_URL": (
        lambda url: {"POSTGRES_URL": url.replace("postgresql:", "postgresql+psycopg:")},
        "import os, sqlalchemy",
        "engine = sqlalchemy.create_engine(os.environ['POSTGRES_URL'])",
        "with engine.begin() as c:",
        "    c.exec_driver_sql('DELETE FROM t')",
        "engine.dispose()",
    ),
    "DATABASE_URL": (
        lambda url: {"DATABASE_URL": url},
        "import os, psycopg",
        "with psycopg.connect(os.environ['DATABASE_URL']) as c:",
        "    c.execute('DELETE FROM t')",
    ),
    "DB_NAME": (
        lambda url: {"DB_HOST": StoreUrl.parse("postgres", url).host, "DB_NAME": _name(url)},
        "import os, psycopg",
        "with psycopg.connect(os.environ['POSTGRES_SERVER'], dbname=os.environ['DB_NAME']) as c:",
        "    c.execute('DELETE FROM t')",
    ),
    "PGDATABASE": (
        lambda url: {"PGDATABASE": _name(url), **_libpq(url)},
        "import psycopg",
        "with psycopg.connect() as c:",
        "    c.execute('DELETE FROM t')",
    ),
}


def _name(url):
    return StoreUrl.parse("postgres", url).database


def _libpq(url):
    known = StoreUrl.parse("postgres", url)
    return {
        "PGHOST": known.host,
        "PGPORT": str(known.port(5432)),
        "PGUSER": known.username,
        "PGPASSWORD": known.password,
    }


@pytest.mark.parametrize("way", OWN_CONNECTIONS)
def test_a_connection_of_its_own_leads_a_trial_to_the_scratch_database(
    postgres_url, own, monkeypatch, way
):
    variables, *lines = OWN_CONNECTIONS[way]
    blueprint = own(TABLE, ("INSERT INTO t VALUES (7, 'a')", "SELECT 1"), ("SELECT 1", lines))
    migrate.init(blueprint, url=postgres_url)
    monkeypatch.setenv("POSTGRES_SERVER", postgres_url)
    for name, text in variables(postgres_url).items():
        monkeypatch.setenv(name, text)
    before = dict(os.environ)
    target = StoreUrl.parse("postgres", postgres_url)
    done = ("d_1", "d_2", "d_3")
    seen = downgrade_trial.tried(target, blueprint, "public", Timing(), done=done, undone=("d_3",))
    assert (seen.tables, seen.columns) == ((), ())
    assert value(postgres_url, "SELECT count(*) FROM t") == 1
    assert dict(os.environ) == before


def test_a_side_effect_of_a_trial_stays_out_of_the_target(postgres_url, own):
    run_here = [
        f"op.execute({s!r})"
        for s in ("CREATE TABLE t (id int PRIMARY KEY, note text)", "CREATE SEQUENCE t_seq")
    ]
    blueprint = own(
        (run_here, "DROP TABLE t; DROP SEQUENCE t_seq"),
        (
            "SELECT 1",
            [
                "op.execute(\"SELECT nextval('t_seq')\")",
                "op.execute('DELETE FROM t')",
                "op.get_bind().commit()",
            ],
        ),
    )
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')")
    refused(blueprint, postgres_url, 1)
    assert value(postgres_url, "SELECT count(*) FROM t") == 1
    assert value(postgres_url, "SELECT is_called FROM t_seq") is False


def test_rows_in_every_schema_are_counted(postgres_url, own):
    blueprint = own(
        (
            (
                "CREATE SCHEMA auth; CREATE TABLE auth.users (id int); "
                "CREATE TABLE auth.empty (id int)"
            ),
            "DROP SCHEMA auth CASCADE",
        ),
        (
            "CREATE SCHEMA bill; CREATE TABLE bill.items (id int, at date)",
            "DROP TABLE bill.items; DROP SCHEMA bill",
        ),
        ("ALTER TABLE bill.items ADD total int", "ALTER TABLE bill.items DROP total"),
    )
    migrate.init(blueprint, url=postgres_url)
    run(
        postgres_url,
        "INSERT INTO auth.users VALUES (1), (2)",
        "INSERT INTO bill.items VALUES (1, NULL, 3)",
    )
    assert list(map(str, refused(blueprint, postgres_url, 1).losses)) == [
        "column bill.items.total (1 row)"
    ]
    told = list(map(str, refused(blueprint, postgres_url).losses))
    assert told == ["table auth.users (2 rows)", "table bill.items (1 row)"]


def test_tables_that_others_made_in_a_schema_that_goes_are_counted(postgres_url, own):
    blueprint = own(("CREATE SCHEMA auth", "DROP SCHEMA auth CASCADE"))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "CREATE TABLE auth.theirs (id int)", "INSERT INTO auth.theirs VALUES (1)")
    assert list(map(str, refused(blueprint, postgres_url).losses)) == ["table auth.theirs (1 row)"]


def test_partitions_made_later_are_counted_with_their_parent(postgres_url, own):
    blueprint = own(("CREATE TABLE r (at date) PARTITION BY RANGE (at)", "DROP TABLE r"))
    migrate.init(blueprint, url=postgres_url)
    run(
        postgres_url,
        "CREATE TABLE r_1 PARTITION OF r DEFAULT",
        "INSERT INTO r VALUES ('2026-01-01')",
    )
    assert list(map(str, refused(blueprint, postgres_url).losses)) == ["table r (1 row)"]


@contextmanager
def role(url, *options):
    name = f"r{uuid4().hex[:8]}"
    address = StoreUrl.parse("postgres", url)
    admin = replace(address, database="postgres").reveal()
    run(admin, f"CREATE ROLE {name} LOGIN PASSWORD 'secret' {' '.join(options)}")
    try:
        yield replace(address, username=name, password="secret").reveal()
    finally:
        with psycopg.connect(url, autocommit=True) as inside:
            inside.execute(f"DROP OWNED BY {name} CASCADE")
        run(admin, f"REASSIGN OWNED BY {name} TO CURRENT_USER", f"DROP ROLE {name}")


POLICY = """
    CREATE TABLE docs (id int PRIMARY KEY, tenant text NOT NULL);
    ALTER TABLE docs ENABLE ROW LEVEL SECURITY;
    ALTER TABLE docs FORCE ROW LEVEL SECURITY;
    CREATE POLICY own ON docs USING (tenant = current_setting('app.tenant', {missing_ok}))
"""


@pytest.mark.parametrize("missing_ok", ["true", "false"])
def test_rows_that_row_level_security_hides_are_not_none(postgres_url, own, missing_ok):
    with role(postgres_url, "CREATEDB") as owner:
        blueprint = own((POLICY.format(missing_ok=missing_ok), "DROP TABLE docs"))
        migrate.init(blueprint, url=owner)
        run(postgres_url, "INSERT INTO docs VALUES (1, 'acme')")
        found = refused(blueprint, owner)
        assert [(loss.table, loss.rows) for loss in found.losses] == [("docs", None)]
        assert (
            "rows could not be counted: query would be affected by row-level security policy"
            in found.message
        )
        assert (
            command(
                "migrate", "downgrade", "base", "-b", str(as_folder(blueprint)), "--url", owner
            )[0]
            == 2
        )
        assert value(postgres_url, "SELECT count(*) FROM docs") == 1
        assert migrate.downgrade(blueprint, "base", url=owner, drop_rows=True).revisions == ("d_1",)


def as_folder(blueprint):
    """The blueprint as a folder that the command can load."""
    folder = blueprint.migrations.parent
    (folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        "\n"
        'BLUEPRINT = Blueprint("own", "for tests")\n'
    )
    return folder


def test_a_table_that_we_may_not_read_is_asked_about(postgres_url, own):
    blueprint = own(("CREATE TABLE t (id int)", "DROP TABLE t"))
    with role(postgres_url, "CREATEDB") as owner:
        migrate.init(blueprint, url=owner)
        name = StoreUrl.parse("postgres", owner).username
        run(postgres_url, f"REVOKE ALL ON t FROM {name}", "INSERT INTO t VALUES (1)")
        [loss] = refused(blueprint, owner).losses
        assert (loss.table, loss.rows) == ("t", None)
        assert "permission denied" in loss.why


def test_a_table_that_another_has_locked_is_asked_about_and_not_waited_for(
    postgres_url, own, monkeypatch
):
    monkeypatch.setattr(loss_count, "COUNT_LOCK_S", 1)
    blueprint = own(TABLE)
    migrate.init(blueprint, url=postgres_url)
    with psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        [loss] = refused(blueprint, postgres_url).losses
    assert (loss.rows, "lock timeout" in loss.why) == (None, True)


def test_a_large_table_is_not_counted_to_its_end(postgres_url, own):
    blueprint = own(TABLE)
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t SELECT n FROM generate_series(1, 10001) n")
    assert list(map(str, refused(blueprint, postgres_url).losses)) == [
        "table t (10000 rows or more)"
    ]


LEAVING = {
    "autocommit_block": [
        "with op.get_context().autocommit_block():",
        "    op.execute('DROP INDEX CONCURRENTLY by_note')",
    ],
    "its own commit": ["op.execute('DROP INDEX by_note')", "op.get_bind().commit()"],
    "COMMIT as text": ["op.execute('DROP INDEX by_note')", "op.execute('COMMIT')"],
    "COMMIT in between": [
        "op.execute('DROP INDEX by_note')",
        "op.execute('COMMIT')",
        "op.execute('SELECT 1')",
    ],
    "COMMIT AND CHAIN": ["op.execute('DROP INDEX by_note')", "op.execute('COMMIT AND CHAIN')"],
    "a word in a variable": [
        "word = 'COM' + 'MIT'",
        "op.execute('DROP INDEX by_note')",
        "op.execute(word)",
    ],
}


def test_a_downgrade_that_leaves_its_transaction_is_asked_about_whichever_way_it_does(
    postgres_url, own
):
    steps = [
        (f"CREATE INDEX by_note{n} ON t (note)", _numbered(way, n))
        for n, way in enumerate(LEAVING.values())
    ]
    blueprint = own(
        TABLE,
        ("CREATE INDEX a ON t (id)", "DROP INDEX a"),
        *steps,
        ("CREATE INDEX b ON t (id)", "DROP INDEX b"),
    )
    migrate.init(blueprint, url=postgres_url)
    found = refused(blueprint, postgres_url)
    assert found.losses == ()
    left = ", ".join(f"d_{number}" for number in range(len(steps) + 2, 2, -1))
    assert found.unknown == (
        (
            f"The downgrade of {left} leaves its transaction, so a failure in it would leave "
            "half of it done."
        ),
    )


def _numbered(lines, number):
    return [line.replace("by_note", f"by_note{number}") for line in lines]


def test_words_of_a_transaction_in_a_text_or_a_comment_are_no_question(postgres_url, own):
    harmless = [
        "# autocommit_block, CONCURRENTLY, COMMIT",
        "op.execute(\"COMMENT ON TABLE t IS 'COMMIT; CONCURRENTLY'\")",
    ]
    blueprint = own(TABLE, ("SELECT 1", harmless), ("SELECT 1", "SELECT 1"))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')")
    assert migrate.downgrade(blueprint, 2, url=postgres_url).revisions == ("d_3", "d_2")


LOOP = [
    "bind = op.get_bind()",
    "for (number,) in bind.exec_driver_sql('SELECT id FROM t').all():",
    "    bind.exec_driver_sql(f'DELETE FROM t WHERE id = {number}')",
]
STREAM = [
    "options = {'stream_results': True}",
    "list(op.get_bind().exec_driver_sql('SELECT id FROM t', execution_options=options))",
]
BELOW_THE_DRIVER = ["op.get_bind().connection.driver_connection.pgconn.exec_(b'DELETE FROM t')"]
#: What a downgrade does with the table `t`, as SQL or as Python, and what is told of it.
TOUCHING = [
    ("DELETE FROM t", "table t (DELETE, 2 rows)"),
    ("UPDATE t SET note = NULL", "table t (UPDATE, 2 rows)"),
    ("TRUNCATE t", "table t (TRUNCATE, 2 rows)"),
    ("DELETE FROM t; UPDATE t SET note = ''", "table t (DELETE and UPDATE, 2 rows)"),
    ("DO $$ BEGIN DELETE FROM t WHERE id > 5; END $$", "table t (changed by DO, 2 rows)"),
    (
        "DO $$ BEGIN IF EXISTS (SELECT FROM t) THEN DELETE FROM t; END IF; END $$",
        "table t (read by DO, 2 rows)",
    ),
    (
        "WITH gone AS (DELETE FROM t RETURNING id) SELECT * FROM gone",
        "table t (changed by SELECT, 2 rows)",
    ),
    (
        "ALTER TABLE t ALTER note TYPE varchar(3) USING left(note, 3)",
        "column t.note (type text to character varying(3), 1 row)",
    ),
    ("ALTER TABLE t ALTER note TYPE text USING 'x'", "column t.note (values computed anew, 1 row)"),
    (
        "ALTER TABLE t RENAME TO was; DELETE FROM was; ALTER TABLE was RENAME TO t",
        "table t (DELETE, 2 rows)",
    ),
    (
        "ALTER TABLE t DISABLE TRIGGER ALL; DELETE FROM t; ALTER TABLE t ENABLE TRIGGER ALL",
        "table t (DELETE, 2 rows)",
    ),
    (LOOP, "table t (read by SELECT, 2 rows)"),
    (STREAM, "table t (read, 2 rows)"),
    (BELOW_THE_DRIVER, "table t (changed, 2 rows)"),
]


def test_a_downgrade_that_deletes_or_changes_rows_is_asked_about(postgres_url, own):
    names = [f"t{number}" for number in range(len(TOUCHING))]
    tables = "; ".join(f"CREATE TABLE {name} (id int, note text)" for name in names)
    steps = [("SELECT 1", _of(name, down)) for name, (down, _) in zip(names, TOUCHING, strict=True)]
    blueprint = own((tables, "SELECT 1"), *steps)
    migrate.init(blueprint, url=postgres_url)
    for name in names:
        run(postgres_url, f"INSERT INTO {name} VALUES (1, 'abc'), (2, NULL)")
    expected = {_of(name, told) for name, (_, told) in zip(names, TOUCHING, strict=True)}
    found = refused(blueprint, postgres_url, len(names))
    assert found.unknown == ()
    assert {*map(str, found.losses)} == expected
    assert "d_2 (d_2.py): DELETE FROM t0" in found.message
    run(postgres_url, *(f"TRUNCATE {name}" for name in names))
    assert len(migrate.downgrade(blueprint, len(names), url=postgres_url).revisions) == len(
        names
    )  # no rows, no question


def _of(name, text):
    """The text, or lines, about the table `t`, about another one."""
    if isinstance(text, list):
        return [_of(name, line) for line in text]
    return re.sub(r"\bt\b", name, text)


MOOD = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE t (id int, feeling mood);
"""
ANOTHER_MOOD = """
    ALTER TYPE mood RENAME TO was;
    CREATE TYPE mood AS ENUM ('good');
    ALTER TABLE t ALTER feeling TYPE mood
        USING (CASE WHEN feeling = 'bad' THEN 'good' ELSE 'good' END)::mood;
    DROP TYPE was
"""


def test_an_enum_that_is_made_anew_is_a_change_of_the_rows_that_have_it(postgres_url, own):
    blueprint = own((MOOD, "SELECT 1"), ("SELECT 1", ANOTHER_MOOD))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'bad')")
    told = list(map(str, refused(blueprint, postgres_url, 1).losses))
    assert told == ["column t.feeling (type mood to mood, which was made anew, 1 row)"]


def test_work_on_a_further_connection_is_asked_about(postgres_url, own):
    beside = [
        "engine = op.get_bind().engine.execution_options(isolation_level='AUTOCOMMIT')",
        "with engine.connect() as other:",
        "    other.exec_driver_sql('DELETE FROM t')",
    ]
    blueprint = own(TABLE, ("SELECT 1", beside))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')")
    found = refused(blueprint, postgres_url, 1)
    assert "d_2 works on a further connection" in found.message
    assert value(postgres_url, "SELECT count(*) FROM t") == 1


def test_a_downgrade_that_asks_only_the_catalogue_is_no_question(postgres_url, own):
    """`Enum.drop` looks whether the type is there, as teams write it; so do inspectors."""
    looks = [
        "import sqlalchemy as sa",
        "assert 't' in sa.inspect(op.get_bind()).get_table_names()",
        "op.drop_index('by_note')",
        "op.alter_column('t', 'note', nullable=True)",
        "sa.Enum(name='mood').drop(op.get_bind())",
    ]
    made = """
        CREATE INDEX by_note ON t (note); CREATE TYPE mood AS ENUM ('a');
        ALTER TABLE t ALTER note SET NOT NULL
    """
    blueprint = own(TABLE, (made, looks))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')")
    assert migrate.downgrade(blueprint, 1, url=postgres_url).revisions == ("d_2",)


BY_STATISTICS = """
    DO $$ BEGIN
        IF (SELECT reltuples FROM pg_class WHERE oid = 't'::regclass) > 0 THEN
            DELETE FROM t;
        END IF;
    END $$
"""
IF_THERE = "DO $$ BEGIN IF to_regclass('theirs') IS NOT NULL THEN DROP TABLE theirs; END IF; END $$"
EMPTIED = "DO $$ BEGIN IF to_regclass('theirs') IS NOT NULL THEN TRUNCATE theirs; END IF; END $$"
ANEW = """
    DO $$ BEGIN
        IF to_regclass('theirs') IS NOT NULL THEN
            ALTER TABLE theirs ALTER note TYPE text USING 'x';
        END IF;
    END $$
"""
#: What only the target has, what a downgrade does with it, and what is told.
UNFORESEEN = {
    "statistics": ("ANALYZE t", BY_STATISTICS, "table t (changed, 1 row)"),
    "a cascade": (
        "CREATE TABLE theirs (note mood); INSERT INTO theirs VALUES ('a')",
        "DROP TYPE mood CASCADE",
        "column theirs.note (1 row)",
    ),
    "a child": (
        "CREATE TABLE theirs () INHERITS (t); INSERT INTO theirs VALUES (2, 'b')",
        "DROP TABLE t CASCADE",
        "table t (2 rows)",
    ),
    "a drop": (
        "CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1)",
        IF_THERE,
        "table theirs (1 row)",
    ),
    "a truncate": (
        "CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1)",
        EMPTIED,
        "table theirs (changed, 1 row)",
    ),
    "new values": (
        "CREATE TABLE theirs (note text); INSERT INTO theirs VALUES ('a')",
        ANEW,
        "column theirs.note (values computed anew, 1 row)",
    ),
}


@pytest.mark.parametrize("way", UNFORESEEN)
def test_a_step_that_does_more_than_its_trial_has_shown_is_rolled_back_and_asked_about(
    postgres_url, own, way
):
    only_here, down, told = UNFORESEEN[way]
    made = "CREATE TABLE t (id int, note text); CREATE TYPE mood AS ENUM ('a')"
    blueprint = own((made, "SELECT 1"), ("SELECT 1", down))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO t VALUES (1, 'a')", only_here)
    found = refused(blueprint, postgres_url, 1)
    assert ", ".join(map(str, found.losses)) == told
    assert value(postgres_url, "SELECT count(*) FROM t WHERE note IS NOT NULL") > 0
    assert migrate.downgrade(blueprint, 1, url=postgres_url, drop_rows=True).revisions == ("d_2",)


def test_what_a_trial_has_not_shown_and_costs_no_row_is_no_question(postgres_url, own):
    made = "CREATE TABLE t (id int); CREATE TYPE mood AS ENUM ('a')"
    blueprint = own((made, "SELECT 1"), ("SELECT 1", "DROP TYPE mood CASCADE"))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "CREATE TABLE theirs (note mood)")
    assert migrate.downgrade(blueprint, 1, url=postgres_url).revisions == ("d_2",)


def test_an_answer_after_half_of_the_steps_undoes_the_rest_and_no_more(postgres_url, own):
    blueprint = own(
        TABLE,
        ("CREATE TABLE u (id int)", IF_THERE),
        ("CREATE INDEX by_note ON t (note)", "DROP INDEX by_note"),
    )
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "CREATE TABLE theirs (id int)", "INSERT INTO theirs VALUES (1)")
    here = ["migrate", "downgrade", "2", "-b", str(as_folder(blueprint)), "--url", postgres_url]
    code, _, err = command(*here)
    assert (code, "d_3 had been undone before, without a loss" in err) == (2, True)
    assert migrate.current(blueprint, url=postgres_url).revision == "d_2"
    run(postgres_url, "CREATE INDEX by_note ON t (note)")
    migrate.stamp(blueprint, "d_3", url=postgres_url)
    assert answered("yes", *here)[0] == 0
    assert migrate.current(blueprint, url=postgres_url).revision == "d_1"


@pytest.mark.parametrize(
    ("target", "left"),
    [("d_3-1", "d_2"), ("d_1+1", "d_2"), ("goods@d_2", "d_2"), ("goods@base", None)],
)
def test_a_downgrade_goes_as_far_as_alembics_own(postgres_url, own, target, left):
    blueprint = own(
        *((f"CREATE TABLE t{each} (id int)", f"DROP TABLE t{each}") for each in range(3))
    )
    first = blueprint.migrations / "d_1.py"
    first.write_text(f'branch_labels = ("goods",)\n{first.read_text()}')
    migrate.init(blueprint, url=postgres_url)
    migrate.downgrade(blueprint, target, url=postgres_url)
    assert migrate.current(blueprint, url=postgres_url).revision == left
    migrate.upgrade(blueprint, "goods@head", url=postgres_url)
    assert migrate.current(blueprint, url=postgres_url).is_head


def test_a_revision_that_depends_on_a_label_is_applied_and_undone_by_itself(postgres_url, own):
    blueprint = own(
        *((f"CREATE TABLE t{each} (id int)", f"DROP TABLE t{each}") for each in range(2))
    )
    first, second = (blueprint.migrations / f"d_{number}.py" for number in (1, 2))
    first.write_text(f'branch_labels = ("goods",)\n{first.read_text()}')
    text = second.read_text().replace("'d_1'", "None")
    second.write_text(f'depends_on = "goods"\n{text}')
    assert migrate.init(blueprint, url=postgres_url).revisions == ("d_1", "d_2")
    assert migrate.init(blueprint, url=postgres_url).revisions == ()
    assert migrate.downgrade(blueprint, 1, url=postgres_url).revisions == ("d_2",)
    assert migrate.current(blueprint, url=postgres_url).revision == "d_1"


def test_a_downgrade_of_one_branch_below_a_merge_undoes_that_branch_or_nothing(postgres_url, own):
    """What is left must have a name, because it may be asked about rows on the way there."""
    blueprint = own(
        *((f"CREATE TABLE t{each} (id int)", f"DROP TABLE t{each}") for each in range(5))
    )
    merged = ("d_2", "d_3", "d_4")
    for number, before in ((2, "d_1"), (3, "d_1"), (4, "d_1"), (5, merged)):
        path = blueprint.migrations / f"d_{number}.py"
        text = re.sub(r"down_revision = .*", f"down_revision = {before!r}", path.read_text())
        path.write_text(f'branch_labels = ("way{number}",)\n{text}' if number < 5 else text)
    migrate.init(blueprint, url=postgres_url)
    assert migrate.downgrade(blueprint, 1, url=postgres_url).revisions == ("d_5",)
    with pytest.raises(ConfigurationError, match="would undo d_2 only, and leave d_3, d_4"):
        migrate.downgrade(blueprint, "way2@d_1", url=postgres_url)
    assert migrate.current(blueprint, url=postgres_url).revision == "d_2, d_3, d_4"
    assert migrate.downgrade(blueprint, "way4@d_1", url=postgres_url).revisions == ("d_4",)
    assert migrate.downgrade(blueprint, "way2@d_1", url=postgres_url).revisions == ("d_2",)
    assert migrate.current(blueprint, url=postgres_url).revision == "d_3"


def test_without_the_right_to_create_databases_it_is_asked_and_said_why(postgres_url, own):
    blueprint = own(TABLE)
    migrate.init(blueprint, url=postgres_url)
    with role(postgres_url) as guest:
        name = StoreUrl.parse("postgres", guest).username
        run(
            postgres_url,
            f"GRANT ALL ON t, alembic_version TO {name}",
            f"GRANT CREATE, USAGE ON SCHEMA public TO {name}",
            f"GRANT USAGE ON SCHEMA is_db_bootstrap TO {name}",
            f"GRANT ALL ON is_db_bootstrap.begun TO {name}",
        )
        found = refused(blueprint, guest)
        assert found.losses == ()
        assert f"the role {name} may not create databases (CREATEDB)" in found.message
        folder = as_folder(blueprint)
        code, _, err = command("migrate", "downgrade", "base", "-b", str(folder), "--url", guest)
        assert (code, "may not create databases" in err) == (2, True)
        code, shown = answered(
            "no", "migrate", "downgrade", "base", "-b", str(folder), "--url", guest
        )
        assert (code, "may not create databases" in shown) == (1, True)


def test_a_downgrade_that_fails_in_its_trial_is_asked_about(postgres_url, own):
    blueprint = own(TABLE, ("SELECT 1", ["raise NotImplementedError('there is no way back')"]))
    migrate.init(blueprint, url=postgres_url)
    found = refused(blueprint, postgres_url, 1)
    assert (
        "the trial in a scratch database failed: NotImplementedError: there is no way back"
        in found.message
    )
    assert scratch_databases(postgres_url) == 0


def test_revisions_that_need_more_than_a_new_database_are_asked_about(postgres_url, own):
    """What was there before the first revision is not in the scratch database."""
    base = Blueprint("own", "for tests", migrations=own(("SELECT 1", "SELECT 1")).migrations)
    migrate.init(base, url=postgres_url)
    run(postgres_url, "CREATE TABLE before (id int)")
    blueprint = own(
        ("SELECT 1", "SELECT 1"),
        ("ALTER TABLE before ADD more int", "ALTER TABLE before DROP more"),
    )
    migrate.upgrade(blueprint, url=postgres_url)
    found = refused(blueprint, postgres_url, 1)
    assert 'relation "before" does not exist' in found.message
    assert migrate.downgrade(blueprint, 1, url=postgres_url, drop_rows=True).revisions == ("d_2",)


def test_the_schema_of_the_setting_is_the_one_that_is_tried(postgres_url, own):
    blueprint = own(TABLE)
    environ = {"POSTGRES_URL": postgres_url, "DB_SCHEMA": "mine"}
    migrate.init(blueprint, environ=environ)
    run(postgres_url, "CREATE TABLE public.t (id int)", "INSERT INTO mine.t VALUES (1, 'a')")
    with pytest.raises(RowsWouldBeLost) as caught:
        migrate.downgrade(blueprint, "base", environ=environ)
    assert list(map(str, caught.value.losses)) == ["table t (1 row)"]


def test_what_else_goes_is_told(postgres_url, own):
    blueprint = own(
        TABLE,
        (
            (
                "CREATE VIEW v AS SELECT id FROM t; CREATE INDEX by_note ON t (note); "
                "CREATE TYPE mood AS ENUM ('a')"
            ),
            "DROP VIEW v; DROP INDEX by_note; DROP TYPE mood",
        ),
    )
    migrate.init(blueprint, url=postgres_url)
    done = migrate.downgrade(blueprint, 1, url=postgres_url)
    assert done.notes == ("The downgrade also drops enum mood, index t.by_note, view v.",)


def test_a_revision_that_acts_on_the_whole_server_is_not_tried_but_asked_about(postgres_url, own):
    name = f"trial_{uuid4().hex[:8]}"
    create = f"DO $$ BEGIN IF to_regrole('{name}') IS NULL THEN CREATE ROLE {name}; END IF; END $$"
    blueprint = own(TABLE, (create, f"DROP ROLE {name}"))
    migrate.init(blueprint, url=postgres_url)
    try:
        found = refused(blueprint, postgres_url, "d_1")
        assert "acts on the whole server" in str(found)
        assert value(postgres_url, f"SELECT to_regrole('{name}')::text") == name
    finally:
        run(postgres_url, f"DROP ROLE IF EXISTS {name}")


def begun(process, url):
    """Wait until the process has begun a downgrade that sleeps on the server or in Python."""
    for _ in range(600):
        if scratch_databases(url) and value(url, SLEEPS):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the trial did not begin")


SLEEPS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname LIKE 'is_db_bootstrap_scratch%' AND (
        state = 'active' AND query LIKE '%a long sleep%'
        OR state = 'idle in transaction' AND state_change < now() - interval '1 second'
    )
"""
HANGING = {
    "on the server": ["op.execute('SELECT pg_sleep(300) /* a long sleep */')"],
    "in Python": ["import time", "time.sleep(300)"],
}


@pytest.mark.parametrize("where", HANGING)
def test_a_terminated_trial_leaves_no_database(postgres_url, own, where):
    blueprint = own(TABLE, ("SELECT 1", HANGING[where]))
    migrate.init(blueprint, url=postgres_url)
    here = ["-b", str(as_folder(blueprint)), "--url", postgres_url]
    process = subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", "migrate", "downgrade", *here],
        env=os.environ | {"IS_DB_BOOTSTRAP_GRACE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        begun(process, postgres_url)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert scratch_databases(postgres_url) == 0
    assert migrate.current(blueprint, url=postgres_url).is_head


def test_a_trial_is_bounded_by_the_timeout(postgres_url, own, monkeypatch):
    monkeypatch.setattr(downgrade, "TRIAL_LEAST_S", 1)
    blueprint = own(TABLE, ("SELECT 1", HANGING["on the server"]))
    migrate.init(blueprint, url=postgres_url)
    flags = {"postgres_url": postgres_url, "timeout_s": 5.0}
    settings = Settings.load(blueprint, environ={}, flags=flags)
    with pytest.raises(RowsWouldBeLost, match="did not end within 5 s"):
        migrate.downgrade(blueprint, settings=settings)
    assert scratch_databases(postgres_url) == 0


# --- what comes up between the count and the step


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_rows_that_come_up_after_the_count_are_asked_about(
    postgres_url, own, monkeypatch, isolation
):
    blueprint = own(
        TABLE,
        ("CREATE TABLE u (id int)", "DROP TABLE u"),
        ("ALTER TABLE t ADD more int", "ALTER TABLE t DROP more"),
        ("ALTER TABLE t RENAME TO w", "ALTER TABLE w RENAME TO t"),
    )
    migrate.init(blueprint, url=postgres_url)
    database = _name(postgres_url)
    run(
        postgres_url,
        f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'",
        "INSERT INTO w (id) VALUES (1)",
    )
    comes_up = {"d_3": "UPDATE t SET more = 1", "d_2": "INSERT INTO u VALUES (1)"}
    step = downgrade.Downgrade._apply_downgrade

    def applied(self, change):
        if change.name in comes_up:
            run(postgres_url, comes_up.pop(change.name))
        return step(self, change)

    monkeypatch.setattr(downgrade.Downgrade, "_apply_downgrade", applied)
    with pytest.raises(RowsWouldBeLost) as caught:
        migrate.downgrade(blueprint, "d_1", url=postgres_url)
    assert list(map(str, caught.value.losses)) == ["column t.more (1 row)"]
    assert "came up after the rows had been counted" in caught.value.message
    assert value(postgres_url, "SELECT more FROM t") == 1
    assert caught.value.undone == ("d_4",)
    run(postgres_url, "UPDATE t SET more = NULL")
    with pytest.raises(RowsWouldBeLost) as caught:
        migrate.downgrade(blueprint, "d_1", url=postgres_url)
    assert list(map(str, caught.value.losses)) == ["table u (1 row)"]
    assert value(postgres_url, "SELECT count(*) FROM u") == 1


WRITES_BESIDE = [
    "import os, psycopg",
    "with psycopg.connect(os.environ['DATABASE_URL'], autocommit=True) as other:",
    "    other.execute(\"SET lock_timeout = '50ms'\")",
    "    try:",
    "        other.execute('INSERT INTO t VALUES (1)')",
    "    except psycopg.errors.LockNotAvailable:",
    "        pass",
    "    else:",
    "        assert 'scratch' in other.info.dbname, 'a row was written that is lost'",
    "op.execute('DROP TABLE t')",
]


def test_nobody_can_write_to_a_table_between_its_last_count_and_its_drop(
    postgres_url, own, monkeypatch
):
    """In the trial, where nothing is counted, the same statement inserts a row."""
    blueprint = own(("CREATE TABLE t (id int)", WRITES_BESIDE))
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    migrate.init(blueprint, url=postgres_url)
    assert migrate.downgrade(blueprint, "base", url=postgres_url).revisions == ("d_1",)


# --- what is lost without a table or a column that goes

ADDRESS = """
    CREATE TYPE address AS (street text, zip text);
    CREATE DOMAIN place AS address;
    CREATE TYPE house AS (at address, floors int);
    CREATE TABLE plain (it address);
    CREATE TABLE many (it address[]);
    CREATE TABLE nested (it house);
    CREATE TABLE domains (it place);
    CREATE TABLE empty (it address);
    CREATE TABLE own (street text, zip text);
    CREATE TABLE whole (it own);
    CREATE TABLE dropped (it address);
"""
WITHOUT_ZIP = """
    ALTER TYPE address DROP ATTRIBUTE zip;
    ALTER TABLE own DROP zip;
    ALTER TABLE dropped DROP it
"""


def test_an_attribute_that_goes_from_a_composite_type_is_a_loss_of_each_column_that_has_it(
    postgres_url, own
):
    blueprint = own((ADDRESS, "SELECT 1"), ("SELECT 1", WITHOUT_ZIP))
    migrate.init(blueprint, url=postgres_url)
    run(
        postgres_url,
        "INSERT INTO plain VALUES (('a', NULL)), (NULL)",
        "INSERT INTO many VALUES (ARRAY[('a', 'b')::address])",
        "INSERT INTO nested VALUES ((('a', 'b'), NULL))",
        "INSERT INTO domains VALUES (('a', 'b'))",
        "INSERT INTO whole VALUES (('a', 'b'))",
        "INSERT INTO dropped VALUES (('a', NULL))",
    )
    assert list(map(str, refused(blueprint, postgres_url, 1).losses)) == [
        "column domains.it (type place without zip, 1 row)",
        "column dropped.it (1 row)",
        "column many.it (type address[] without zip, 1 row)",
        "column nested.it (type house without zip, 1 row)",
        "column plain.it (type address without zip, 1 row)",
        "column whole.it (type own without zip, 1 row)",
    ]
    assert value(postgres_url, "SELECT (it[1]).zip FROM many") == "b"


def test_an_attribute_that_only_gets_another_name_is_no_loss(postgres_url, own):
    down = "ALTER TYPE address RENAME ATTRIBUTE zip TO code; ALTER TYPE address ADD ATTRIBUTE a int"
    blueprint = own((ADDRESS, "SELECT 1"), ("SELECT 1", down))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "INSERT INTO plain VALUES (('a', 'b'))")
    assert migrate.downgrade(blueprint, 1, url=postgres_url).revisions == ("d_2",)


#: How a downgrade removes or changes what is in no table of a team, and what is told of it.
BESIDE_TABLES = {
    "all large objects": (
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
        "table pg_catalog.pg_largeobject_metadata (read by SELECT, 1 row)",
    ),
    "one large object": (
        "DO $$ BEGIN PERFORM lo_unlink(4711); EXCEPTION WHEN undefined_object THEN NULL; END $$",
        "table pg_catalog.pg_largeobject_metadata (changed, 1 row)",
    ),
    "a part of a large object": (
        (
            "DO $$ BEGIN PERFORM lo_put(4711, 0, 'x'); "
            "EXCEPTION WHEN undefined_object THEN NULL; END $$"
        ),
        "table pg_catalog.pg_largeobject (changed, 1 row)",
    ),
    "a value of an enum": (
        "DELETE FROM pg_enum WHERE enumlabel = 'bad'",
        "table pg_catalog.pg_enum (DELETE, 2 rows)",
    ),
    "a sequence": ("DROP SEQUENCE numbers", "sequence numbers (was used)"),
}


@pytest.mark.parametrize("what", BESIDE_TABLES)
def test_what_is_in_no_table_and_would_be_lost_is_asked_about(postgres_url, own, what):
    down, told = BESIDE_TABLES[what]
    made = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE SEQUENCE numbers"
    blueprint = own((made, "SELECT 1"), ("SELECT 1", down))
    migrate.init(blueprint, url=postgres_url)
    run(postgres_url, "SELECT lo_from_bytea(4711, 'abc')", "SELECT nextval('numbers')")
    found = refused(blueprint, postgres_url, 1)
    assert told in list(map(str, found.losses))
    assert value(postgres_url, "SELECT lo_get(4711)") == b"abc"
    assert migrate.downgrade(blueprint, 1, url=postgres_url, drop_rows=True).revisions == ("d_2",)


def test_a_sequence_that_nobody_has_used_is_no_question(postgres_url, own):
    blueprint = own(("CREATE SEQUENCE numbers", "DROP SEQUENCE numbers"))
    migrate.init(blueprint, url=postgres_url)
    assert migrate.downgrade(blueprint, "base", url=postgres_url).revisions == ("d_1",)
