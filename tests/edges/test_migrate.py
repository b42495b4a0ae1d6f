"""The `migrate` commands and functions, on real servers. Numbers are those of the blueprints'
acceptance checks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading

import psycopg
import pytest

from commands import answered, command
from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreConflict
from is_db_bootstrap.results import RecordChange
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import live
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost
from specification import column, value

pytestmark = pytest.mark.postgres
EACH = pytest.mark.parametrize(
    "name", [n for n in blueprint_names() if "postgres" in load_blueprint(n).stores]
)
CTX = ["ctx_0001", "ctx_0002", "ctx_0003"]


def catalogue(url):
    with connect(
        StoreUrl.parse("postgres", url), 5, settings=session_settings("public")
    ) as connection:
        return live(connection, "public")


def put(url, *statements):
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


# --- every blueprint


@EACH
def test_down_to_base_and_up_again_gives_the_same_catalogue(migrated, name):
    url = migrated(name)
    before = catalogue(url)
    assert migrate.downgrade(name, "base", url=url).revisions == tuple(
        r.id for r in migrate.history(name)
    )
    left = catalogue(url)
    assert {kind: found for kind, found in left.items() if found} == {}
    assert migrate.upgrade(name, url=url).revisions == tuple(
        r.id for r in reversed(migrate.history(name))
    )
    assert catalogue(url) == before


@EACH
def test_each_step_works_both_ways(migrated, name):
    url = migrated(name)
    chain = [r.id for r in migrate.history(name)]
    for revision in chain:
        assert migrate.downgrade(name, url=url).revisions == (revision,)
    for revision in reversed(chain):
        assert migrate.upgrade(name, "+1", url=url).revisions == (revision,)


# --- ctx 14, agt 13: every command


def test_ctx_14_init_creates_everything_and_again_nothing(postgres_url):
    here = ["--blueprint", "context-service", "--url", postgres_url]
    assert command("migrate", "init", "--seed", *here) == (
        0,
        CTX,
        "13 demo rows added\n3 revisions applied\n",
    )
    assert command("migrate", "init", *here) == (0, ["already at head"], "nothing to do\n")
    assert command("migrate", "current", *here)[:2] == (0, ["ctx_0003 (head)"])


def test_ctx_14_upgrade_needs_a_database_and_goes_by_steps(postgres_url):
    here = ["--blueprint", "context_service", "--url", postgres_url]
    code, out, err = command("migrate", "upgrade", *here)
    assert (code, out) == (1, [])
    assert "migrate init" in err
    assert command("migrate", "init", *here)[0] == 0
    assert command("migrate", "downgrade", "base", *here)[:2] == (0, CTX[::-1])
    assert command("migrate", "current", *here)[:2] == (0, ["(none)"])
    assert command("migrate", "upgrade", "+1", *here)[:2] == (0, ["ctx_0001"])
    assert command("migrate", "current", *here)[:2] == (0, ["ctx_0001"])
    assert command("migrate", "upgrade", "ctx_0002", *here)[:2] == (0, ["ctx_0002"])
    assert command("migrate", "upgrade", "ctx_0001", *here) == (0, [], "nothing to upgrade\n")
    assert command("migrate", "upgrade", *here)[:2] == (0, ["ctx_0003"])


@pytest.mark.parametrize("target", [["-2"], ["2"], ["ctx_0001"]])
def test_ctx_14_downgrade_takes_steps_with_and_without_a_sign(migrated, target):
    here = ["--blueprint", "context_service", "--url", migrated("context_service")]
    assert command("migrate", "downgrade", *target, *here)[:2] == (0, ["ctx_0003", "ctx_0002"])
    assert command("migrate", "downgrade", *here)[:2] == (0, ["ctx_0001"])
    assert command("migrate", "downgrade", *here) == (0, [], "nothing to undo\n")


NUMBERED = """
from alembic import op
revision = {name!r}
down_revision = {before!r}
def upgrade():
    op.execute('CREATE TABLE "t{name}" ()')
def downgrade():
    op.execute('DROP TABLE "t{name}"')
"""


@pytest.mark.parametrize(
    ("ids", "target", "undone"),
    [
        (["0001", "0002", "0003"], "0002", ["0003"]),
        (["0001", "0002", "0003"], "2", ["0003", "0002"]),
        (["1", "2", "3"], "2", ["3"]),
        (["1", "2", "3"], 2, ["3", "2"]),
        (["1", "2", "3"], "-2", ["3", "2"]),
        (["202601010900", "202602010900"], "20260101", ["202602010900"]),
        (["1a2b3c4d5e6f", "2a2b3c4d5e6f"], "1", ["2a2b3c4d5e6f"]),
    ],
)
def test_digits_are_an_id_of_the_chain_before_they_are_a_number_of_steps(
    postgres_url, tmp_path, ids, target, undone
):
    for before, name in zip((None, *ids), ids, strict=False):
        (tmp_path / f"r{name}.py").write_text(NUMBERED.format(name=name, before=before))
    blueprint = Blueprint("numbered", "of a test", migrations=tmp_path)
    migrate.init(blueprint, url=postgres_url)
    assert migrate.downgrade(blueprint, target, url=postgres_url).revisions == tuple(undone)


def test_a_downgrade_without_a_target_is_one_step_also_where_an_id_is_1(postgres_url, tmp_path):
    declared = 'from is_db_bootstrap.blueprint import Blueprint\nBLUEPRINT = Blueprint("n", "")\n'
    (tmp_path / "blueprint.py").write_text(declared)
    (tmp_path / "migrations").mkdir()
    for before, name in ((None, "1"), ("1", "2"), ("2", "3")):
        (tmp_path / "migrations" / f"r{name}.py").write_text(
            NUMBERED.format(name=name, before=before)
        )
    here = ["--blueprint", str(tmp_path), "--url", postgres_url]
    assert command("migrate", "init", *here)[0] == 0
    assert command("migrate", "downgrade", *here)[:2] == (0, ["3"])


def test_ctx_14_an_unknown_revision_names_the_known_ones(migrated):
    here = ["--blueprint", "context_service", "--url", migrated("context_service")]
    for words in (
        ["upgrade", "ctx_9"],
        ["downgrade", "ctx_9"],
        ["stamp", "ctx_9", "--yes"],
        ["sql", "ctx_9"],
    ):
        place = here[:2] if words[0] == "sql" else here
        code, out, err = command("migrate", *words, *place)
        assert (code, out) == (1, [])
        assert "ctx_0001, ctx_0002, ctx_0003" in err


@pytest.mark.parametrize(
    "words", [[], ["upgrate"], ["downgrade", "--yess"], ["upgrade", "--nothing"]]
)
def test_ctx_14_wrong_usage_is_told_on_stderr_with_exit_2(words):
    code, out, err = command("migrate", *words)
    assert (code, out) == (2, [])
    assert "Usage: is-db-bootstrap migrate" in err


def test_ctx_14_history_needs_no_server():
    code, out, _ = command("migrate", "history", "--blueprint", "context_service")
    assert code == 0
    assert [line.split("  ")[0] for line in out] == [
        "ctx_0003 (head)",
        "ctx_0002",
        "ctx_0001 (base)",
    ]
    assert all(line.split("  ")[1] for line in out)


def test_ctx_14_check_tells_what_answers_and_hints_when_nothing_does(migrated, make_server):
    url = migrated("context_service")
    code, out, _ = command("migrate", "check", "--blueprint", "context_service", "--url", url)
    facts = dict(line.split(maxsplit=1) for line in out)
    assert code == 0
    assert facts["extension"] == "pg_trgm available"
    assert (facts["revision"], facts["head"]) == ("ctx_0003", "ctx_0003")
    assert facts["latency"].endswith(" ms")
    code, out, err = command(
        "migrate",
        "check",
        "--blueprint",
        "context_service",
        "--url",
        "postgresql://u:p@127.0.0.1:1/x",
    )
    assert (code, out) == (1, [])
    assert all(
        word in err for word in ("server run", "DB_*", "database been created", "password right")
    )


def test_ctx_14_two_at_once_both_succeed(postgres_url):
    here = ["--blueprint", "context_service", "--url", postgres_url]
    codes, out = [], []

    def run():
        code, lines, _ = command("migrate", "init", *here)
        codes.append(code)
        out.extend(lines)

    both = [threading.Thread(target=run) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert codes == [0, 0]
    assert sorted(set(out) - {"already at head"}) == CTX


async def test_ctx_14_functions_run_while_an_event_loop_does(postgres_url):
    assert migrate.init("context_service", url=postgres_url).revisions == tuple(CTX)
    assert migrate.current("context_service", url=postgres_url) == migrate.Current(
        "ctx_0003", is_head=True
    )
    assert migrate.downgrade("context_service", 1, url=postgres_url).revisions == ("ctx_0003",)
    assert migrate.upgrade("context_service", url=postgres_url).revisions == ("ctx_0003",)
    assert migrate.check("context_service", url=postgres_url).revision == "ctx_0003"
    assert asyncio.get_running_loop().is_running()


def test_ctx_14_logging_stays_as_it_was(migrated):
    before = [
        logging.root.level,
        list(logging.root.handlers),
        logging.getLogger("alembic").level,
        logging.root.manager.disable,
    ]
    own = logging.getLogger("an.application")
    migrate.downgrade("context_service", url=migrated("context_service"))
    assert [
        logging.root.level,
        list(logging.root.handlers),
        logging.getLogger("alembic").level,
        logging.root.manager.disable,
    ] == before
    assert not own.disabled


def test_ctx_14_a_failed_revision_leaves_the_one_before(migrated):
    url = migrated("context_service")
    migrate.downgrade("context_service", 1, url=url)
    put(url, "CREATE TABLE review_records (x int)")
    code, out, err = command("migrate", "upgrade", "--blueprint", "context_service", "--url", url)
    assert (code, out) == (1, [])
    assert "review_records" in err
    assert migrate.current("context_service", url=url).revision == "ctx_0002"


def test_agt_13_every_command_has_its_output(postgres_url):
    here = ["--blueprint", "agentic-projects", "--url", postgres_url]
    steps = ["agt_0001", "agt_0002", "agt_0003"]
    assert command("migrate", "init", "--seed", *here) == (
        0,
        steps,
        "5 demo rows added\n3 revisions applied\n",
    )
    assert command("migrate", "current", *here)[:2] == (0, ["agt_0003 (head)"])
    assert command("migrate", "history", *here[:2])[1][0].startswith("agt_0003 (head)  ")
    assert command("migrate", "check", *here)[0] == 0
    code, _, err = command("migrate", "downgrade", *here)
    assert code == 2
    assert "table templates (5 rows)" in err
    assert command("migrate", "downgrade", "base", "--yes", *here)[:2] == (0, steps[::-1])
    assert command("migrate", "downgrade", *here)[:2] == (0, [])
    assert command("migrate", "upgrade", "+2", *here)[:2] == (0, steps[:2])


# --- rows that a downgrade would drop


def test_rows_are_asked_about_by_table_and_count(migrated):
    url = migrated("agentic_projects")
    put(
        url,
        "INSERT INTO project_contexts (name, type, owner_id) VALUES ('a', 'api', 'o'), ('b', "
        "'api', 'o')",
    )
    here = ["migrate", "downgrade", "base", "--blueprint", "agentic_projects", "--url", url]
    assert command(*here)[0] == 2
    code, shown = answered("no", *here)
    assert code == 1
    assert "table project_contexts (2 rows)" in shown
    assert migrate.current("agentic_projects", url=url).is_head
    code, shown = answered("Yes", *here)
    assert code == 0
    assert migrate.current("agentic_projects", url=url).revision is None


def test_empty_tables_need_no_question_and_the_function_raises_for_others(migrated):
    url = migrated("agentic_projects")
    assert migrate.downgrade("agentic_projects", url=url).revisions == ("agt_0003",)
    put(url, "INSERT INTO project_contexts (name, type, owner_id) VALUES ('a', 'api', 'o')")
    assert migrate.downgrade("agentic_projects", url=url).revisions == ("agt_0002",)
    with pytest.raises(RowsWouldBeLost) as refusal:
        migrate.downgrade("agentic_projects", url=url)
    assert [str(loss) for loss in refusal.value.losses] == ["table project_contexts (1 row)"]
    assert migrate.downgrade("agentic_projects", url=url, drop_rows=True).revisions == ("agt_0001",)


REVISION = '''"""{title}."""

from alembic import op

revision = "{id}"
down_revision = {down}


def upgrade():
{up}


def downgrade():
{undo}
'''


def own(tmp_path, *steps):
    """A private blueprint; each step is (upgrade, downgrade) as lines of Python."""
    before = None
    for number, (up, undo) in enumerate(steps, 1):
        text = REVISION.format(
            title=f"Step {number}",
            id=f"o_{number}",
            down=repr(before),
            up=f"    {up}",
            undo=f"    {undo}",
        )
        (tmp_path / f"o_{number}.py").write_text(text)
        before = f"o_{number}"
    return Blueprint("own", "for tests", migrations=tmp_path)


def test_a_column_with_values_is_asked_about_and_a_rename_is_not(postgres_url, tmp_path):
    blueprint = own(
        tmp_path,
        ("op.execute('CREATE TABLE old (id int, note text)')", "op.execute('DROP TABLE old')"),
        (
            "op.execute('ALTER TABLE old ADD extra int, ADD more int')",
            "op.execute('ALTER TABLE old DROP extra, DROP more')",
        ),
        (
            "op.execute('ALTER TABLE old RENAME TO new')",
            "op.execute('ALTER TABLE new RENAME TO old')",
        ),
    )
    migrate.init(blueprint, url=postgres_url)
    put(postgres_url, "INSERT INTO new (id, extra) VALUES (1, 1), (2, 2), (3, NULL)")
    assert migrate.downgrade(blueprint, url=postgres_url).revisions == ("o_3",)
    with pytest.raises(RowsWouldBeLost) as refusal:
        migrate.downgrade(blueprint, url=postgres_url)
    assert [str(loss) for loss in refusal.value.losses] == ["column old.extra (2 rows)"]
    with psycopg.connect(postgres_url) as connection:
        assert value(connection, "SELECT count(extra) FROM old") == 2


def test_a_revision_whose_way_up_leaves_its_transaction_is_undone_without_a_question(
    postgres_url, tmp_path
):
    blueprint = own(
        tmp_path,
        ("op.execute('CREATE TABLE t (id int)')", "op.execute('DROP TABLE t')"),
        (
            (
                "\n    with op.get_context().autocommit_block():\n        op.execute('CREATE "
                "INDEX CONCURRENTLY i ON t (id)')"
            ),
            "op.execute('DROP INDEX i')",
        ),
    )
    migrate.init(blueprint, url=postgres_url)
    assert migrate.downgrade(blueprint, url=postgres_url).revisions == (
        "o_2",
    )  # its way down stays in its transaction


def test_a_lock_that_another_holds_is_waited_for(migrated):
    url = migrated("context_service")
    store = PostgreSQLBootstrapper(url, load_blueprint("context_service"))
    lock = store.try_lock("a test")
    code, _, err = command(
        "migrate", "downgrade", "--timeout", "0.5", "--blueprint", "context_service", "--url", url
    )
    assert code == 1
    assert "lock" in err
    lock.release()
    store.close()
    assert migrate.downgrade("context_service", url=url).revisions == ("ctx_0003",)


# --- stamp and sql


def test_stamp_writes_the_version_only_and_asks(migrated):
    url = migrated("context_service")
    here = ["migrate", "stamp", "ctx_0001", "--blueprint", "context_service", "--url", url]
    assert command(*here)[:2] == (2, [])
    code, err = answered("n", *here)
    assert code == 1
    assert "would count as not applied any more" in err
    assert "ctx_0002, ctx_0003" in err
    assert migrate.current("context_service", url=url).is_head
    code, out, err = command(*here, "--yes")
    assert (code, out) == (0, ["ctx_0001"])
    assert "not applied any more, so the next apply runs them: ctx_0002, ctx_0003\n" in err
    assert "(0 added to the record, 2 taken out of it); no table was touched" in err
    with psycopg.connect(url) as connection:
        assert value(connection, "SELECT count(*) FROM review_records") == 0
    stamped = migrate.stamp("context_service", "head", url=url)
    assert stamped.revisions == ("ctx_0003",)
    assert stamped.record == RecordChange(added=("ctx_0002", "ctx_0003"))
    assert migrate.stamp("context_service", "head", url=url).revisions == ()
    assert migrate.stamp("context_service", "base", url=url).revisions == ("base",)
    assert migrate.current("context_service", url=url).revision is None


def test_a_stamp_on_sqlite_names_what_it_adds_to_the_record_and_takes_out_of_it(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    three = ("mplp_0001_context", "mplp_0002_plan", "mplp_0003_role")
    assert migrate.foresee_stamp("mplp", "mplp_0003_role", url=url) == RecordChange(added=three)
    assert migrate.stamp("mplp", "mplp_0003_role", url=url).record == RecordChange(added=three)
    foreseen = migrate.foresee_stamp("mplp", "base", url=url)
    assert foreseen == RecordChange(removed=three)
    assert migrate.current("mplp", url=url).revision == "mplp_0003_role"
    assert migrate.stamp("mplp", "base", url=url).record == foreseen
    assert migrate.current("mplp", url=url).revision is None


def test_tables_that_were_made_by_other_means_are_adopted_by_a_stamp(migrated):
    url = migrated("context_service")
    put(url, "DROP TABLE alembic_version")
    with pytest.raises(StoreConflict, match="no revision is recorded") as conflict:
        migrate.init("context_service", url=url)
    assert "migrate stamp" in conflict.value.hint
    migrate.stamp("context_service", "head", url=url)
    assert migrate.init("context_service", url=url).revisions == ()


def test_printed_sql_of_a_span_does_what_an_upgrade_does(migrated):
    url = migrated("context_service")
    migrate.downgrade("context_service", "ctx_0001", url=url)
    code, out, _ = command("migrate", "sql", "ctx_0001:head", "--blueprint", "context_service")
    assert code == 0
    put(url, "\n".join(out))
    assert migrate.current("context_service", url=url).is_head
    assert migrate.init("context_service", url=url).revisions == ()


@pytest.mark.parametrize("schema", ["apart", "odd \"name\" with 'quotes'", "percent%s"])
def test_a_schema_of_any_name_is_searched_created_and_recorded_in(postgres_url, schema):
    environ = {"DB_SCHEMA": schema, "POSTGRES_URL": postgres_url}
    assert command("migrate", "init", "--blueprint", "agentic_projects", environ=environ)[0] == 0
    assert command("migrate", "current", "--blueprint", "agentic_projects", environ=environ)[1] == [
        "agt_0003 (head)"
    ]
    with psycopg.connect(postgres_url) as connection:
        assert column(
            connection, "SELECT count(*) FROM pg_tables WHERE schemaname = %s", schema
        ) == [4]
    code, out, _ = command(
        "migrate", "sql", "--blueprint", "agentic_projects", environ={"DB_SCHEMA": schema}
    )
    assert code == 0
    assert (
        command("migrate", "downgrade", "base", "--blueprint", "agentic_projects", environ=environ)[
            0
        ]
        == 0
    )
    # The downgrade has left the version table.
    again = re.sub(r"CREATE TABLE (?!IF )", "CREATE TABLE IF NOT EXISTS ", "\n".join(out), count=1)
    put(postgres_url, again)
    assert command("migrate", "current", "--blueprint", "agentic_projects", environ=environ)[1] == [
        "agt_0003 (head)"
    ]


# --- bad input


def test_a_schema_of_another_blueprint_is_refused_and_both_are_named(migrated):
    url = migrated("context_service")
    for words in (["upgrade"], ["init"], ["downgrade", "--yes"], ["stamp", "head", "--yes"]):
        code, out, err = command("migrate", *words, "--blueprint", "agentic_projects", "--url", url)
        assert (code, out) == (1, [])
        assert "context_service" in err
        assert "agentic_projects" in err
    assert migrate.current("context_service", url=url).is_head


def test_a_history_with_an_unknown_revision_is_refused(migrated):
    url = migrated("context_service")
    put(
        url,
        "UPDATE alembic_version SET version_num = 'ctx_0099'",
        "COMMENT ON TABLE alembic_version IS NULL",
    )
    for words in (["upgrade"], ["downgrade", "--yes"]):
        code, _, err = command("migrate", *words, "--blueprint", "context_service", "--url", url)
        assert code == 1
        assert "ctx_0099" in err


def test_a_revision_that_is_not_applied_is_no_target_of_a_downgrade(migrated):
    url = migrated("context_service")
    migrate.downgrade("context_service", 1, url=url)
    with pytest.raises(StoreConflict, match="is not applied"):
        migrate.downgrade("context_service", "ctx_0003", url=url)
    with pytest.raises(ConfigurationError):
        migrate.downgrade("context_service", "--", url=url)


def test_agt_11_a_driver_of_applications_is_replaced_and_told_and_another_is_refused(postgres_url):
    given = postgres_url.replace("postgresql://", "postgresql+asyncpg://")
    code, out, err = command(
        "migrate", "init", "--blueprint", "agentic_projects", environ={"DATABASE_URL": given}
    )
    assert (code, len(out)) == (0, 3)
    assert "names the driver asyncpg; psycopg is used" in err
    other = postgres_url.replace("postgresql://", "postgresql+pg8000://")
    code, _, err = command(
        "migrate", "check", "--blueprint", "agentic_projects", environ={"DATABASE_URL": other}
    )
    assert code == 2
    assert "postgresql+asyncpg" in err
