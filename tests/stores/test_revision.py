"""What `revision` writes, leaves out and tells; and that a failure leaves no file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from commands import command
from is_db_bootstrap import files, revision
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.settings import Settings
from is_db_bootstrap.stores.postgres import scratch
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

pytestmark = pytest.mark.postgres

BLUEPRINT = (
    "from is_db_bootstrap.blueprint import Blueprint\n"
    "\n"
    'BLUEPRINT = Blueprint("{name}", "for tests")\n'
)
FIRST = '''"""First."""
from alembic import op

revision = {id!r}
down_revision = None


def upgrade():
    op.execute("""{up}""")


def downgrade():
    pass
'''
METER = """
    CREATE TABLE readings (
        id bigint NOT NULL, at date NOT NULL, CONSTRAINT readings_pkey PRIMARY KEY (id, at)
    ) PARTITION BY RANGE (at);
    CREATE TABLE readings_10 PARTITION OF readings FOR VALUES FROM ('2026-10-01') TO ('2026-11-01');
    CREATE TABLE readings_11 PARTITION OF readings FOR VALUES FROM ('2026-11-01') TO ('2026-12-01')
        PARTITION BY LIST (id);
    CREATE TABLE readings_11_1 PARTITION OF readings_11 FOR VALUES IN (1);
    CREATE TABLE made_by_sql (id int PRIMARY KEY);
    ALTER TABLE readings ADD legacy text;
    CREATE INDEX by_at ON readings (at);
    CREATE INDEX by_expression ON readings ((id + 1));
"""
METER_MODELS = """
from sqlalchemy import BigInteger, Column, Date, Index, MetaData, Numeric, Table

metadata = MetaData()
readings = Table(
    "readings", metadata, Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Date, primary_key=True),
    Column("unit", Numeric), Index("by_at", "at", "unit"), postgresql_partition_by="RANGE (at)",
)
"""


@pytest.fixture
def folder(tmp_path, request):
    """`folder("CREATE …", "models")`: a blueprint with one revision.

    Its folder has a name that no other test has.
    """
    made = tmp_path / f"bp_{abs(hash(request.node.name))}"

    def make(up="", models="", first="app_0001"):
        (made / "migrations").mkdir(parents=True, exist_ok=True)
        (made / "blueprint.py").write_text(BLUEPRINT.format(name="app"))
        if models:
            (made / "models.py").write_text(models)
        if up:
            (made / "migrations" / f"{first}.py").write_text(FIRST.format(id=first, up=up))
        return made

    yield make
    for name in [n for n in sys.modules if n.partition(".")[0] == made.name]:
        del sys.modules[name]


def settings(blueprint, url):
    return Settings.load(blueprint, environ={}, flags={"postgres_url": url})


def written(place, url, message="more", **options):
    """The new revision's text, and the operations that were told."""
    blueprint, told = load_blueprint(place, may_have_no_files=True), []
    paths = revision.postgres(
        blueprint, message, settings(blueprint, url), report=told.append, **options
    )
    text = paths[0].read_text() if paths else ""
    return text, [str(t) for t in told if not t.left_out], [str(t) for t in told if t.left_out]


def names(place):
    return sorted(p.name for p in (place / "migrations").iterdir() if p.name != "__pycache__")


def test_drops_of_what_the_models_do_not_declare_are_left_out_and_told(folder, postgres_url):
    text, operations, left_out = written(folder(METER, METER_MODELS), postgres_url)
    assert operations == [
        "add column readings.unit (NUMERIC)",
        "drop index readings.by_at",
        "create index readings.by_at (at, unit)",
    ]
    assert set(left_out) >= {"drop table made_by_sql", "drop column readings.legacy"}
    assert "drop_table" not in text
    assert "drop_column('readings', 'legacy')" not in text
    assert not any("readings_1" in told for told in [*operations, *left_out])


def test_allowed_drops_are_written_and_partitions_are_none(folder, postgres_url):
    text, operations, left_out = written(
        folder(METER, METER_MODELS), postgres_url, allow_drops=True
    )
    assert left_out == []
    assert {
        "drop table made_by_sql: its rows are lost",
        "drop column readings.legacy: its values are lost",
    } <= set(operations)
    assert "# Look at this: its rows are lost.\n    op.drop_table('made_by_sql')" in text
    assert "readings_1" not in text


def test_nothing_but_drops_writes_no_revision(folder, postgres_url):
    place = folder(
        "CREATE TABLE made_by_sql (id int)",
        "from sqlalchemy import MetaData\n\nmetadata = MetaData()\n",
    )
    assert written(place, postgres_url) == ("", [], ["drop table made_by_sql"])
    assert names(place) == ["app_0001.py"]


def test_the_command_tells_operations_as_text_and_as_json(folder, postgres_url):
    place = folder(METER, METER_MODELS)
    code, out, err = command(
        "revision", "-m", "unit", "-b", str(place), "--url", postgres_url, "--output", "json"
    )
    found = json.loads("\n".join(out))
    assert (code, err) == (0, "")
    assert found["operations"][0] == {
        "operation": "add column",
        "object": "readings.unit",
        "detail": "NUMERIC",
    }
    assert {"operation": "drop table", "object": "made_by_sql", "detail": ""} in found["left_out"]
    assert [path.rpartition("/")[2] for path in found["files"]] == [
        "app_0002_unit.py",
        "catalogue.json",
        "schema.sql",
    ]
    (place / "models.py").write_text(
        METER_MODELS.replace('Column("unit"', 'Column("note", Numeric), Column("unit"')
    )
    code, out, err = command("revision", "-m", "note", "-b", str(place), "--url", postgres_url)
    assert (code, len(out)) == (0, 3)
    assert "add column readings.note (NUMERIC)\n" in err
    assert "left out: drop table made_by_sql\n" in err
    assert "--allow-drops" in err


def test_later_partitions_of_a_declared_table_are_no_finding_and_the_table_itself_is_compared(
    folder, postgres_url
):
    place = folder(METER, METER_MODELS)
    blueprint = load_blueprint(place)
    revision.refresh(blueprint, settings(blueprint, postgres_url))
    BootstrapOrchestrator(
        [PostgreSQLBootstrapper(postgres_url, blueprint)]
    ).run().raise_for_failure()
    store = PostgreSQLBootstrapper(postgres_url, blueprint)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(
            "CREATE TABLE readings_12 PARTITION OF readings FOR VALUES "
            "FROM ('2026-12-01') TO ('2027-01-01')"
        )
        other.execute("CREATE TABLE readings_11_2 PARTITION OF readings_11 FOR VALUES IN (2)")
        other.execute("CREATE TABLE stray (id int)")
        assert ([*store.verify()], [found.object for found in store.audit()]) == ([], ["stray"])
        other.execute("DROP TABLE readings")
        assert "readings" in [drift.object for drift in store.verify()]
    store.close()


# --- files


def test_an_id_that_exists_is_not_given_again(folder):
    place = folder("SELECT 1", first="1a2b3c4d5e6f")
    made = []
    for _ in range(3):
        made += revision.postgres(load_blueprint(place), "fix typo", None)
    assert len({path.name for path in made}) == 3
    for path in made:
        assert path.name.endswith("_fix_typo.py")
        assert len(path.name.partition("_")[0]) == 12
    assert 'down_revision = "1a2b3c4d5e6f"' in made[0].read_text()


@pytest.mark.parametrize("head", ["initial", "1a2b3c4d5678", "abcdefabcdef"])
def test_after_an_id_without_a_number_comes_one_as_alembic_makes_it(folder, head):
    found, template = revision.next_revision(load_blueprint(folder("SELECT 1", first=head)), "more")
    assert (len(found), template) == (12, "%(rev)s_%(slug)s")
    assert int(found, 16) >= 0


def test_a_file_that_is_there_is_never_overwritten(folder):
    place = folder("SELECT 1")
    theirs = place / "migrations" / "app_0002_more.py"
    theirs.write_text(
        FIRST.format(id="app_0000", up="SELECT 2").replace(
            "down_revision = None", 'down_revision = "app_0001"'
        )
    )
    before = theirs.read_text()
    head = place / "migrations" / "app_0001.py"
    head.write_text(head.read_text().replace("down_revision = None", 'down_revision = "app_0000"'))
    theirs.write_text(
        before := before.replace('down_revision = "app_0001"', "down_revision = None")
    )
    with pytest.raises(ConfigurationError, match="is there already; it was not overwritten"):
        revision.postgres(load_blueprint(place), "more", None)
    assert theirs.read_text() == before


def test_a_new_text_is_whole_or_absent_and_no_other_file_is_left(tmp_path):
    files.create_text(tmp_path / "a", "one")
    with pytest.raises(FileExistsError):
        files.create_text(tmp_path / "a", "two")
    assert (tmp_path / "a").read_text() == "one"
    files.replace_text(tmp_path / "a", "three")
    with pytest.raises(UnicodeEncodeError):
        files.replace_text(tmp_path / "a", "\ud800")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "three")]


# --- failures


TYPES = """
from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, TypeDecorator
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType


class Cents(TypeDecorator):
    impl = BigInteger
    cache_ok = True


class Id(TypeDecorator):
    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect):
        return dialect.type_descriptor(postgresql.UUID())


metadata = MetaData()
bills = Table(
    "bills", metadata, Column("id", Id, primary_key=True, autoincrement=False), Column("total", Cents, nullable=False),
    Column("parts", postgresql.ARRAY(Cents)),
)
"""


def test_a_type_of_the_application_is_written_as_what_postgresql_gets(folder, postgres_url):
    place = folder("", TYPES)
    text, operations, _ = written(place, postgres_url)
    assert operations == ["create table bills (id, total, parts)"]
    assert "sa.Column('total', sa.BigInteger(), nullable=False)" in text
    assert "sa.Column('id', sa.UUID(), autoincrement=False, nullable=False)" in text
    assert "item_type=sa.BigInteger()" in text.replace(
        "(sa.BigInteger()", "(item_type=sa.BigInteger()"
    )
    assert place.name not in text


def test_a_type_of_sqlalchemy_stays_also_where_sqlalchemy_decorates_it(folder, postgres_url):
    place = folder(
        "CREATE TABLE jobs (id serial PRIMARY KEY)",
        """
from sqlalchemy import Column, Integer, Interval, MetaData, PickleType, Table, TypeDecorator


class Pause(TypeDecorator):
    impl = Interval
    cache_ok = True


metadata = MetaData()
jobs = Table(
    "jobs", metadata, Column("id", Integer, primary_key=True), Column("every", Interval),
    Column("pause", Pause), Column("state", PickleType),
)
""",
    )
    text, operations, _ = written(place, postgres_url)
    assert "sa.Column('every', sa.Interval()" in text
    assert "sa.Column('pause', sa.Interval()" in text
    assert "sa.Column('state', sa.PickleType()" in text
    assert "add column jobs.every (INTERVAL)" in operations
    assert written(place, postgres_url) == ("", [], [])
    blueprint = load_blueprint(place)
    assert revision.postgres(blueprint, "again", settings(blueprint, postgres_url)) == []


POINT = """
from sqlalchemy.types import UserDefinedType


class Point(UserDefinedType):
    cache_ok = True

    def get_col_spec(self):
        return "point"

    def __repr__(self):
        return "Point()"
"""
PLACES = """
from sqlalchemy import Column, Integer, MetaData, String, Table

metadata = MetaData()
Table("places", metadata, Column("id", Integer, primary_key=True), Column("at", Point))
"""
CODE = """
class Code(String):
    pass


Table("codes", metadata, Column("code", Code(8), primary_key=True))
"""


def test_a_type_of_an_installed_package_is_imported(folder, postgres_url, tmp_path, monkeypatch):
    """Also in the processes that are started below, as one that pip has installed is."""
    name = f"geometry_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(POINT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    text, _, _ = written(folder("", f"from {name} import Point\n{PLACES}"), postgres_url)
    assert f"import {name}\n" in text
    assert f"sa.Column('at', {name}.Point(), nullable=True)" in text


def test_a_revision_with_a_type_of_the_models_runs_in_a_folder_of_another_name(
    folder, postgres_url, tmp_path
):
    place = folder("", POINT + PLACES + CODE)
    warned = []
    text, _, _ = written(place, postgres_url, warn=warned.append)
    assert place.name not in text.replace(f'"""What {place.name}.models.Point was', "")
    assert "sa.Column('at', PointType(), nullable=True)" in text
    assert "sa.Column('code', sa.String(length=8), nullable=False)" in text
    assert {sentence.partition(", which")[0] for sentence in warned} == {
        f"The revision has PointType() for {place.name}.models.Point",
        f"The revision has sa.String(length=8) for {place.name}.models.Code",
    }
    elsewhere = tmp_path / "deployed"
    shutil.copytree(place, elsewhere)
    (elsewhere / "models.py").unlink()
    code, _, err = command("migrate", "init", "-b", str(elsewhere), "--url", postgres_url)
    assert code == 0, err
    assert written(place, postgres_url, "again") == ("", [], [])


#: A default that is computed for the row that is there, and takes long.
SLOW = """
from sqlalchemy import Column, Integer, MetaData, Table, text

metadata = MetaData()
slow = text("length(pg_sleep(300)::text)")
Table("jobs", metadata, Column("id", Integer, primary_key=True),
      Column("slow", Integer, server_default=slow))
"""
SLEEPING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname LIKE 'is_db_bootstrap_scratch%' AND query LIKE '%pg_sleep(300)%'
      AND state = 'active'
"""
SCRATCHES = "SELECT datname FROM pg_database WHERE datname LIKE 'is_db_bootstrap_scratch%'"


def waited(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come")


def test_a_killed_revision_leaves_no_file_and_the_next_command_drops_its_database(
    folder, postgres_url
):
    place = folder("CREATE TABLE jobs (id int PRIMARY KEY); INSERT INTO jobs VALUES (1)", SLOW)
    arguments = ["-m", "slow", "-b", str(place), "--url", postgres_url]
    used, old = f"is_db_bootstrap_scratch_{'ab' * 8}", f"is_db_bootstrap_scratch_{'ab' * 6}"
    with psycopg.connect(postgres_url, dbname="postgres", autocommit=True) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "is_db_bootstrap", "revision", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            waited(lambda: process.poll() is not None or server.execute(SLEEPING).fetchone()[0])
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert names(place) == ["app_0001.py"]
        assert len(server.execute(SCRATCHES).fetchall()) == 2  # at head, and with the revision
        waited(lambda: not server.execute(SLEEPING).fetchone()[0])
        server.execute("SELECT pg_advisory_lock(%s, %s)", scratch._lock_keys(used))
        server.execute(f"CREATE DATABASE {used}")  # one whose process lives
        server.execute(f"CREATE DATABASE {old}")  # nobody can tell whether its process lives
        try:
            assert command("revision", "--refresh", "-b", str(place), "--url", postgres_url)[0] == 0
            assert sorted(server.execute(SCRATCHES).fetchall()) == [(old,), (used,)]
        finally:
            server.execute(f"DROP DATABASE {used}")
            server.execute(f"DROP DATABASE {old}")


BROKEN = {
    "a revision that PostgreSQL refuses": "from sqlalchemy import *\nmetadata = MetaData()\n"
    "Table('t', metadata, Column('a', Integer, server_default=text('no_such_function()')))\n",
    "models that cannot be imported": "from sqlalchemy import MetaData\nimport no_such_module\n",
    "models that raise": "raise RuntimeError('settings are missing')\n",
    "models without metadata": "x = 1\n",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_failure_leaves_no_file_and_says_why_in_one_line(folder, postgres_url, fault):
    place = folder("CREATE TABLE other (id int)", BROKEN[fault])
    before = names(place)
    code, out, err = command("revision", "-m", "more", "-b", str(place), "--url", postgres_url)
    assert (code in {1, 2}, out) == (True, [])
    assert "Traceback" not in err
    assert names(place) == before
    with psycopg.connect(postgres_url.rpartition("/")[0] + "/postgres") as admin:
        left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'is_db_bootstrap_scratch%'"
        assert admin.execute(left).fetchone()[0] == 0


READING = '''"""Reads."""
import sqlalchemy as sa
from alembic import op

revision = "app_0002"
down_revision = "app_0001"


def upgrade():
    for row in op.get_bind().execute(sa.text("SELECT 1")).fetchall():
        assert row


def downgrade():
    pass
'''


def test_a_revision_that_reads_is_told_in_one_line_and_nothing_half_written_is_left(
    folder, postgres_url
):
    place = folder("CREATE TABLE t (id int)")
    (place / "migrations" / "app_0002.py").write_text(READING)
    reason = "cannot be written as SQL without a server: AttributeError"
    code, out, err = command("revision", "--refresh", "-b", str(place), "--url", postgres_url)
    assert (code, [line.rpartition("/")[2] for line in out]) == (0, ["catalogue.json"])
    assert reason in err
    assert "(app_0002.py, line 10)" in err
    assert names(place) == ["app_0001.py", "app_0002.py", "catalogue.json"]
    (place / "migrations" / "schema.sql").write_text("-- of old\n")
    for words, expected in (
        (["check", "-b", str(place)], 3),
        (["migrate", "sql", "-b", str(place)], 2),
    ):
        code, out, err = command(*words)
        assert (code, out, reason in err, "Traceback" in err) == (expected, [], True, False)
    assert command("revision", "--refresh", "-b", str(place), "--url", postgres_url)[0] == 0
    assert (place / "migrations" / "schema.sql").read_text() == "-- of old\n"


def test_a_catalogue_that_cannot_be_made_leaves_both_files_as_they_were(folder, postgres_url):
    place = folder("CREATE TABLE t (id int)")
    blueprint = load_blueprint(place)
    revision.refresh(blueprint, settings(blueprint, postgres_url))
    before = {
        name: (place / "migrations" / name).read_text() for name in ("catalogue.json", "schema.sql")
    }
    (place / "migrations" / "app_0001.py").write_text(
        FIRST.format(id="app_0001", up="CREATE TABLE wrong (id nothing)")
    )
    with pytest.raises(BootstrapError):
        revision.refresh(load_blueprint(place), settings(blueprint, postgres_url))
    assert {name: (place / "migrations" / name).read_text() for name in before} == before


@pytest.mark.parametrize("arguments", [("--refresh",), ("-m", "more")])
def test_a_revision_that_acts_on_the_whole_server_is_not_run_in_a_scratch_database(
    folder, postgres_url, arguments
):
    role = f"of_trial_{abs(hash(postgres_url))}"
    place = folder(f"CREATE TABLE made_by_sql (id int); CREATE ROLE {role}", METER_MODELS)
    code, _, err = command("revision", *arguments, "-b", str(place), "--url", postgres_url)
    assert (code, "sends 'CREATE ROLE', which acts on the whole server" in err) == (2, True), err
    assert names(place) == ["app_0001.py"]
    with psycopg.connect(f"{postgres_url.rpartition('/')[0]}/postgres") as connection:
        query = "SELECT to_regrole(%s) IS NULL"
        assert connection.execute(query, [role]).fetchone() == (True,)


@pytest.mark.parametrize("name", ["schema.sql", "catalogue.json"])
def test_a_file_of_the_team_that_is_called_like_a_generated_one_is_not_replaced(
    folder, postgres_url, name
):
    place = folder(METER, METER_MODELS)
    own = place / "migrations" / name
    own.write_text("-- ours, by hand\n")
    code, _, err = command("revision", "-m", "unit", "-b", str(place), "--url", postgres_url)
    assert code == 2
    assert "not generated by is-db-bootstrap" in err
    assert own.read_text() == "-- ours, by hand\n"
    assert names(place) == sorted(["app_0001.py", name])


@pytest.mark.parametrize(
    ("arguments", "expected"), [(("check",), 3), (("revision", "-m", "more", "--empty"), 2)]
)
def test_a_revision_that_exits_is_told_in_one_line_also_where_it_is_only_rendered(
    folder, arguments, expected
):
    place = folder(METER)
    revision = place / "migrations" / "app_0001.py"
    revision.write_text(f"import sys\n{revision.read_text()}\nsys.exit(0)\n")
    (place / "migrations" / "schema.sql").write_text("-- old. Generated.\n")
    code, _, err = command(*arguments, "-b", str(place))
    assert code == expected
    assert "SystemExit" in err
    assert "Traceback" not in err


SALES = "CREATE SCHEMA sales; CREATE TABLE sales.by_sql (id int)"
SALES_MODELS = """
from sqlalchemy import Column, Enum, ForeignKey, Index, Integer, MetaData, Table, Text

metadata = MetaData()
region = Table("region", metadata, Column("id", Integer, primary_key=True))
note = Table(
    "note", metadata, Column("id", Integer, primary_key=True),
    Column("cust", Integer, ForeignKey("sales.cust.id")),
)
cust = Table(
    "cust", metadata, Column("id", Integer, primary_key=True),
    Column("kind", Enum("old", "new", name="kind", schema="sales")),
    Column("region", Integer, ForeignKey("region.id")),
    Index("by_kind", "kind"), schema="sales",
)
"""
DEAL_MODEL = """
kind = Enum("old", "new", name="kind", schema="sales")
deal = Table(
    "deal", metadata, Column("id", Integer, primary_key=True), Column("kind", kind), schema="sales"
)
"""


@pytest.fixture
def sales(folder, postgres_url):
    """A blueprint whose models name a second schema, with a revision of what they declare."""
    place = folder(SALES, SALES_MODELS)
    text, operations, _ = written(place, postgres_url)
    assert "create table sales.cust (id, kind, region)" in operations
    assert "schema='sales'" in text
    return place


def test_a_second_schema_of_the_models_is_compared_and_its_drops_are_left_out(sales, postgres_url):
    assert written(sales, postgres_url, "again") == ("", [], ["drop table sales.by_sql"])
    assert names(sales)[:2] == ["app_0001.py", "app_0002_more.py"]


def test_what_is_new_in_a_second_schema_is_all_that_is_written(sales, postgres_url):
    """A new column, and a new table with an enum that is there already."""
    changed = SALES_MODELS.replace('Index("by_kind"', 'Column("vip", Text), Index("by_kind"')
    (sales / "models.py").write_text(changed + DEAL_MODEL)
    del sys.modules[f"{sales.name}.models"]
    text, operations, left_out = written(sales, postgres_url, "vip")
    assert operations == [
        "create table sales.deal (id, kind)",
        "add column sales.cust.vip (TEXT)",
    ]
    assert left_out == ["drop table sales.by_sql"]
    assert "sa.Column('vip', sa.Text(), nullable=True), schema='sales')" in text
    assert "create_type=False" in text


def test_the_stock_check_compares_a_second_schema_and_proposes_no_drop_of_others_there(
    sales, postgres_url
):
    ini = sales / "alembic.ini"
    ini.write_text(
        f"[app]\nscript_location = {files.root() / 'migrations'}\nblueprint = {sales}\n"
        f"version_locations = {sales / 'migrations'}\npath_separator = os\n"
    )
    store = PostgreSQLBootstrapper(postgres_url, load_blueprint(sales))
    BootstrapOrchestrator([store]).run().raise_for_failure()

    def checked():
        """Exit code and words of the stock command."""
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", ini, "-n", "app", "check"],
            env={**os.environ, "POSTGRES_URL": postgres_url},
            cwd=sales,
            check=False,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    code, said = checked()
    assert (code, "No new upgrade operations detected" in said) == (0, True), said
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("ALTER TABLE sales.cust DROP region")
    code, said = checked()
    assert (code, "add_column" in said, "by_sql" in said) == (255, True, False), said


def test_what_is_missing_or_undeclared_in_a_second_schema_is_told(sales, postgres_url):
    """A whole table that nobody has declared there may be of another application.

    The blueprint's own schema has another name here than where the catalogue was made.
    """
    store = PostgreSQLBootstrapper(postgres_url, load_blueprint(sales), schema="ours")
    BootstrapOrchestrator([store]).run().raise_for_failure()
    assert ([*store.verify()], [*store.audit()]) == ([], [])
    untried = {proof.name for proof in store.selftest() if proof.ok is None}
    assert {"sales.cust", "sales.by_sql"} <= untried
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("CREATE TABLE sales.theirs (id int)")
        other.execute("ALTER TABLE sales.cust ADD stray int")
        other.execute("DROP INDEX sales.by_kind")
        told = [each.object for each in [*store.verify(), *store.audit()]]
        assert told == ["sales.cust.by_kind", "sales.cust.stray"]
        other.execute("DROP TABLE sales.cust CASCADE")
        assert "sales.cust" in [drift.object for drift in store.verify()]
    store.close()


def test_an_id_that_the_version_table_cannot_hold_is_refused_before_anything_runs(
    folder, postgres_url
):
    place = folder("CREATE TABLE t (id int)", first="a" * 40)
    blueprint = load_blueprint(place)
    store = PostgreSQLBootstrapper(postgres_url, blueprint)
    result = BootstrapOrchestrator([store]).run()
    (failed,) = [each.error for each in result.stores if each.error]
    assert f"Revision {'a' * 40} has an id of 40 characters" in failed.message
    assert '"public"."alembic_version" holds 32' in failed.message
    statement = failed.hint.partition("run: ")[2]
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as other:
        other.execute(f'CREATE DATABASE "{name}"')  # nothing was made, not even the database
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute(statement)
    BootstrapOrchestrator([store]).run().raise_for_failure()
    # A scratch database holds the id, too.
    revision.refresh(blueprint, settings(blueprint, postgres_url))
