"""What mplp declares, on PostgreSQL, MariaDB and SQLite. Numbers are those of the blueprint's
acceptance checks.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import uuid

import pytest
import sqlalchemy as sa
from sqlalchemy import exc, func, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprints.mplp import entities
from is_db_bootstrap.blueprints.mplp.cleanup import ExpiredCleanup, cleanup_expired_contexts
from is_db_bootstrap.blueprints.mplp.tables import MODULES, metadata
from is_db_bootstrap.errors import AccessDenied, ConfigurationError, StoreConflict, StoreUnavailable
from is_db_bootstrap.stores.postgres.moves import RowsWouldBeLost
from is_db_bootstrap.stores.postgres.portable import engine as portable_engine
from portable_catalogue import declared, live
from servers import drop_database

REVISIONS = [f"mplp_{n:04}_{module}" for n, module in enumerate(MODULES, 1)]
ENGINES = [
    pytest.param("postgres", marks=pytest.mark.postgres),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
    pytest.param("sqlite"),
]
T = metadata.tables


@pytest.fixture(scope="module")
def place(farm, tmp_path_factory):
    """`place("mariadb")`: the address of a new empty database on that engine."""
    made = []

    def make(kind):
        name = f"test_{uuid.uuid4().hex[:12]}"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/{name}.db"
        server = farm.shared(kind)
        made.append((server, name))
        return f"{server.url}/{name}"

    yield make
    for server, name in made:
        if server.store == "postgres" and server.alive():
            drop_database(server, name)


@pytest.fixture(scope="module", params=ENGINES)
def migrated_engine(request, place):
    """An engine whose database is at the head, shared by the module; tests roll back what they
    write.
    """
    url = place(request.param)
    assert list(migrate.init("mplp", url=url).revisions) == REVISIONS
    engine = opened(url)
    yield engine
    engine.dispose()


def opened(url):
    if url.startswith("postgresql"):
        return sa.create_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            connect_args={"options": "-c timezone=UTC"},
        )
    return portable_engine(make_url(url))


@pytest.fixture
def connection(migrated_engine):
    with migrated_engine.connect() as connection:
        yield connection
        connection.rollback()


def utc(*parts):
    """A time as the tables hold it: UTC without time zone."""
    return dt.datetime(*parts, tzinfo=dt.UTC).replace(tzinfo=None)


def uid():
    return str(uuid.uuid4())


def value_for(column):
    """A value that the column takes."""
    kind = column.type
    if isinstance(kind, sa.Enum):
        return kind.enums[0]
    if isinstance(kind, sa.JSON):
        return {"a": 1}
    if isinstance(kind, sa.DateTime):
        return utc(2026, 1, 2, 3, 4, 5, 678901)
    return {sa.Boolean: True, sa.Integer: 1, sa.BigInteger: 1, sa.Double: 1.5}.get(
        type(kind)
    ) or uid()[: kind.length or 36]


def least(connection, table, **given):
    """Insert a row of the required columns, with the rows that it refers to; all of its values."""
    table = T[f"mplp_{table}"] if isinstance(table, str) else table
    references = {key.column_keys[0]: key for key in table.foreign_key_constraints}
    values = {}
    for column in table.columns:
        if column.name in given:
            continue
        if column.primary_key or column.nullable or column.server_default is not None:
            continue
        if column.name in references:
            key = references[column.name]
            parent = least(connection, key.referred_table)
            values[column.name] = parent[key.elements[0].column.name]
        else:
            values[column.name] = value_for(column)
    result = connection.execute(sa.insert(table).values(values | given))
    row = (
        connection.execute(select(table).where(table.c.id == result.inserted_primary_key[0]))
        .mappings()
        .one()
    )
    return dict(row)


def refused(connection, statement):
    """The statement is refused by a rule of the database; what came before stays."""
    with pytest.raises((exc.IntegrityError, exc.OperationalError)), connection.begin_nested():
        connection.execute(statement)


# --- 1 to 4: the catalogue


def test_mplp_01_the_catalogue_is_what_the_schemas_say(migrated_engine):
    with migrated_engine.connect() as connection:
        found = live(connection)
    assert found == declared(metadata, migrated_engine.dialect.name)
    assert len(found) == 35
    assert sum(len(t["columns"]) for t in found.values()) == 461
    assert sum(len(t["references"]) for t in found.values()) == 37
    assert sum(len(t["uniques"]) for t in found.values()) == 28
    assert sum(len(t["indexes"]) for t in found.values()) == 131
    assert sum(unique for t in found.values() for _, unique in t["indexes"].values()) == 2
    assert sum(len(t["checks"]) for t in found.values()) == 51
    assert set(inspect(migrated_engine).get_table_names()) == {*T, "alembic_version"}


@pytest.mark.parametrize("kind", ENGINES)
def test_mplp_02_each_step_removes_the_tables_of_its_module_and_no_others(place, kind):
    url = place(kind)
    migrate.init("mplp", url=url)
    engine = opened(url)
    left = dict(T)
    for module, revision in zip(reversed(MODULES), reversed(REVISIONS), strict=True):
        assert list(migrate.downgrade("mplp", 1, url=url).revisions) == [revision]
        left = {name: table for name, table in left.items() if table.info["module"] != module}
        assert set(inspect(engine).get_table_names()) == {*left, "alembic_version"}
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar() == 0
        if kind == "postgres":
            query = (
                "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                "AND relkind IN ('S', 'i') AND relname !~ '^alembic'"
            )
            assert connection.exec_driver_sql(query).scalar() == 0
            assert (
                connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_type WHERE typnamespace = 'public'::regnamespace "
                    "AND typname ~ 'mplp'"
                ).scalar()
                == 0
            )
    for revision in REVISIONS:
        assert list(migrate.upgrade("mplp", "+1", url=url).revisions) == [revision]
    with engine.connect() as connection:
        assert live(connection) == declared(metadata, engine.dialect.name)
    assert list(migrate.downgrade("mplp", "base", url=url).revisions) == REVISIONS[::-1]
    assert list(migrate.upgrade("mplp", url=url).revisions) == REVISIONS
    with engine.connect() as connection:
        assert live(connection) == declared(metadata, engine.dialect.name)
    engine.dispose()


def test_mplp_03_postgresql_has_no_enum_trigger_or_function(migrated_engine):
    if migrated_engine.dialect.name != "postgresql":
        pytest.skip("PostgreSQL only")
    with migrated_engine.connect() as connection:
        for query in (
            "SELECT count(*) FROM pg_type WHERE typtype = 'e'",
            "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal",
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
        ):
            assert connection.exec_driver_sql(query).scalar() == 0


def test_mplp_04_names_are_unique_without_regard_to_case_and_short_enough(migrated_engine):
    with migrated_engine.connect() as connection:
        found = live(connection)
    names = [
        n
        for t in found.values()
        for kind in ("references", "uniques", "indexes", "checks")
        for n in t[kind]
    ]
    assert len({n.lower() for n in names}) == len(names) == 37 + 28 + 131 + 51
    assert max(map(len, names)) <= 63


# --- 5 to 10: rows


@pytest.mark.parametrize("name", T)
def test_mplp_05_a_row_of_the_required_columns_gets_the_defaults(connection, name):
    row = least(connection, T[name])
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    for column in T[name].columns:
        if column.server_default is None or column.primary_key:
            continue
        default = column.server_default.arg
        if isinstance(column.type, sa.DateTime):
            assert abs(now - row[column.name]) < dt.timedelta(seconds=30)
        elif isinstance(column.type, sa.JSON):
            assert row[column.name] == {"'[]'": [], "'{}'": {}}[str(default)]
        else:
            assert shown(row[column.name]) == shown(default)


def shown(value):
    """A scalar in one form: numbers as numbers, truth as 1 and 0, text as it is."""
    text = {"true": "1", "false": "0"}.get(str(value).lower(), str(value))
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else text


def test_mplp_06_an_enumerated_column_takes_its_values_in_their_case_only(connection):
    for table in T.values():
        row = least(connection, table)
        for column in (c for c in table.columns if isinstance(c.type, sa.Enum)):
            change = sa.table(table.name, sa.column("id"), sa.column(column.name))
            for wrong in ("no such value", column.type.enums[0].swapcase()):
                refused(
                    connection,
                    sa.update(change).where(change.c.id == row["id"]).values({column.name: wrong}),
                )
            if column.nullable:
                connection.execute(
                    sa.update(change).where(change.c.id == row["id"]).values({column.name: None})
                )


def test_mplp_07_references_are_kept_as_listed(connection):
    for table in T.values():
        for key in table.foreign_key_constraints:
            column, target = key.column_keys[0], key.elements[0].column
            parent = least(connection, key.referred_table)
            row = least(connection, table, **{column: parent[target.name]})
            refused(
                connection, sa.update(table).where(table.c.id == row["id"]).values({column: uid()})
            )
            if key.referred_table is not table:
                connection.execute(
                    sa.delete(key.referred_table).where(target == parent[target.name])
                )
            else:
                connection.execute(sa.delete(table).where(table.c.id == parent["id"]))
            left = (
                connection.execute(select(table.c[column]).where(table.c.id == row["id"]))
                .scalars()
                .all()
            )
            assert left == ([] if key.ondelete == "CASCADE" else [None]), key.name


def test_mplp_08_a_second_life_cycle_and_a_second_state_of_a_key_are_refused(connection):
    life = least(connection, "extension_lifecycles")
    table = T["mplp_extension_lifecycles"]
    refused(connection, sa.insert(table).values({k: v for k, v in life.items() if k != "id"}))
    state = least(connection, "shared_states", state_key="key")
    table = T["mplp_shared_states"]
    again = {k: v for k, v in state.items() if k != "id"}
    refused(connection, sa.insert(table).values(again))
    connection.execute(sa.insert(table).values(again | {"state_key": "KEY"}))


@pytest.mark.parametrize("value", [{"a": [1, None]}, [1, "x"], 12.5, "text", True, False, 0])
def test_mplp_09_json_values_come_back_equal(connection, value):
    row = least(connection, "shared_states", state_value=value)
    assert row["state_value"] == value
    assert type(row["state_value"]) is type(value)


def test_mplp_09_missing_json_is_null_and_numbers_and_times_keep_their_digits(connection):
    row = least(connection, "contexts", session_data=None)
    table = T["mplp_contexts"]
    assert (
        connection.execute(
            select(func.count())
            .select_from(table)
            .where(table.c.session_data.is_(None), table.c.id == row["id"])
        ).scalar()
        == 1
    )
    at = utc(2026, 1, 2, 3, 4, 5, 678901)
    assert least(connection, "contexts", expires_at=at)["expires_at"] == at
    assert (
        least(connection, "tasks", progress_percentage=0.12345678901234567)["progress_percentage"]
        == 0.12345678901234567
    )
    counts = [
        c.name for c in T["mplp_performance_metrics"].columns if isinstance(c.type, sa.BigInteger)
    ]
    assert counts
    row = least(connection, "performance_metrics", **dict.fromkeys(counts, 2**40))
    assert {row[name] for name in counts} == {2**40}


def test_mplp_10_an_update_moves_updated_at_forward(connection):
    table = T["mplp_contexts"]
    past = utc(2020, 1, 1)
    row = least(connection, "contexts", created_at=past, updated_at=past)
    connection.execute(sa.update(table).where(table.c.id == row["id"]).values(name="other"))
    created, updated = connection.execute(
        select(table.c.created_at, table.c.updated_at).where(table.c.id == row["id"])
    ).one()
    assert created == past
    assert abs(dt.datetime.now(dt.UTC).replace(tzinfo=None) - updated) < dt.timedelta(seconds=30)


# --- 11: clean-up


def test_mplp_11_the_clean_up_changes_what_has_expired_and_nothing_else(connection):
    now = utc(2026, 6, 1)
    past, future = now - dt.timedelta(seconds=1), now + dt.timedelta(seconds=1)
    contexts = {
        at: least(connection, "contexts", expires_at=at) for at in (past, future, now, None)
    }
    ended = least(
        connection, "contexts", expires_at=past, status="terminated", lifecycle_stage="active"
    )
    owner = contexts[None]["context_id"]
    states = {
        at: least(connection, "shared_states", context_id=owner, state_key=str(at), expires_at=at)
        for at in (past, future, None)
    }
    sessions = {
        at: least(connection, "context_sessions", context_id=owner, expires_at=at)
        for at in (past, future, None)
    }
    least(connection, "context_sessions", context_id=owner, expires_at=past, is_active=False)
    assert cleanup_expired_contexts(connection, now=now) == ExpiredCleanup(1, 1, 1)
    assert cleanup_expired_contexts(connection, now=now) == ExpiredCleanup(0, 0, 0)

    def ids(table, condition):
        return set(connection.execute(select(table.c.id).where(condition)).scalars())

    table = T["mplp_contexts"]
    assert ids(table, table.c.lifecycle_stage == "terminated") == {contexts[past]["id"]}
    assert ids(table, table.c.status == "terminated") == {contexts[past]["id"], ended["id"]}
    table = T["mplp_shared_states"]
    assert ids(table, table.c.context_id == owner) == {states[future]["id"], states[None]["id"]}
    table = T["mplp_context_sessions"]
    assert ids(table, table.c.is_active == sa.true()) == {
        sessions[future]["id"],
        sessions[None]["id"],
    }


def test_mplp_11_without_a_time_it_is_the_current_one(connection):
    least(connection, "contexts", expires_at=utc(2020, 1, 1))
    least(connection, "contexts", expires_at=utc(2999, 1, 1))
    assert cleanup_expired_contexts(connection).contexts == 1


# --- 15, and what else comes with it


def test_mplp_15_importing_the_blueprint_imports_no_sqlalchemy():
    code = "import sys, is_db_bootstrap.blueprints.mplp; print('sqlalchemy' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        == "False\n"
    )


def test_entities_join_in_both_directions(migrated_engine):
    with Session(migrated_engine) as session:
        parent = entities.MplpContext(context_id=uid(), user_id="u", name="parent")
        child = entities.MplpContext(context_id=uid(), user_id="u", name="child", parent=parent)
        state = entities.MplpSharedState(
            context=child, state_key="k", state_value=1, source_module="m"
        )
        plan = entities.MplpPlan(plan_id=uid(), context_id=child.context_id, name="p")
        tasks = [entities.MplpTask(task_id=uid(), name=n, plan=plan) for n in ("a", "b")]
        link = entities.MplpTaskDependency(
            dependency_id=uid(), source_task=tasks[0], target_task=tasks[1]
        )
        session.add_all([parent, state, link])
        session.flush()
        assert parent.children == [child]
        assert child.shared_states == [state]
        assert tasks[0].task_dependencies_by_source_task == [link]
        assert tasks[1].task_dependencies_by_target_task == [link]
        assert {t.name for t in plan.tasks} == {"a", "b"}
        session.delete(child)
        session.flush()
        session.expire_all()
        assert (
            session.scalar(
                select(func.count())
                .select_from(entities.MplpSharedState)
                .where(entities.MplpSharedState.state_key == "k")
            )
            == 0
        )
        session.rollback()


def test_every_reference_has_a_relationship_on_both_sides():
    names = {r.key for e in entities.ENTITIES.values() for r in e.__mapper__.relationships}
    assert sum(len(e.__mapper__.relationships) for e in entities.ENTITIES.values()) == 2 * 37
    assert {"parent", "children", "source_task", "target_task"} <= names
    with pytest.raises(TypeError, match="no column"):
        entities.MplpContext(nothing=1)


@pytest.mark.parametrize("kind", ENGINES)
def test_rows_that_a_downgrade_would_drop_are_named_on_every_engine(place, kind):
    url = place(kind)
    migrate.init("mplp", url=url)
    engine = opened(url)
    with engine.begin() as connection:
        least(connection, "extensions")
        least(connection, "extensions")
    with pytest.raises(RowsWouldBeLost) as refusal:
        migrate.downgrade("mplp", url=url)
    assert [str(loss) for loss in refusal.value.losses] == ["table mplp_extensions (2 rows)"]
    assert migrate.current("mplp", url=url).is_head
    assert list(migrate.downgrade("mplp", drop_rows=True, url=url).revisions) == [REVISIONS[-1]]
    engine.dispose()


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_every_migrate_command_works_on_other_engines(place, kind):
    from commands import command

    url = place(kind)
    here = ["--blueprint", "mplp", "--url", url]
    code, out, err = command("migrate", "init", *here)
    assert (code, out) == (0, REVISIONS)
    assert "no lock is taken" in err
    assert command("migrate", "current", *here)[1] == [f"{REVISIONS[-1]} (head)"]
    facts = dict(line.split(maxsplit=1) for line in command("migrate", "check", *here)[1])
    assert re.match(r"(mysql|sqlite) \d", facts["server"])
    assert command("migrate", "downgrade", "-2", *here)[1] == REVISIONS[:3:-1]
    assert command("migrate", "upgrade", REVISIONS[4], *here)[1] == [REVISIONS[4]]
    assert command("migrate", "stamp", "head", "--yes", *here)[1] == [REVISIONS[-1]]
    code, _, err = command("migrate", "upgrade", "nothing", *here)
    assert code == 1
    assert "mplp_0001_context" in err
    code, _, err = command("migrate", "init", "--blueprint", "context_service", "--url", url)
    assert code == 2
    assert "PostgreSQL only" in err


@pytest.mark.parametrize("kind", ENGINES)
def test_a_table_that_is_taken_is_named_before_anything_is_changed(place, kind):
    url = place(kind)
    migrate.init("mplp", url=url)
    migrate.downgrade("mplp", "base", url=url)
    engine = opened(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE mplp_tasks (x integer)")
    with pytest.raises(StoreConflict, match="mplp_tasks already"):
        migrate.upgrade("mplp", url=url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", "mplp_tasks"}
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE mplp_tasks")
    assert list(migrate.upgrade("mplp", url=url).revisions) == REVISIONS
    engine.dispose()


def test_a_revision_that_breaks_off_leaves_nothing_on_sqlite(place):
    url = place("sqlite")
    migrate.upgrade("mplp", REVISIONS[0], url=url)
    engine = opened(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE INDEX idx_failures_resolved ON mplp_contexts (name)")
    before = set(inspect(engine).get_table_names())
    with pytest.raises(StoreConflict, match="already exists"):
        migrate.upgrade("mplp", url=url)
    assert set(inspect(engine).get_table_names()) == before
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP INDEX idx_failures_resolved")
    assert list(migrate.upgrade("mplp", url=url).revisions) == REVISIONS[1:]
    engine.dispose()


@pytest.mark.mariadb
def test_what_mariadb_refuses_has_its_own_error(place):
    url = make_url(place("mariadb"))
    wrong = {
        AccessDenied: url.set(username="nobody", password="secret-word"),
        StoreUnavailable: url.set(port=1, password="secret-word"),
        ConfigurationError: url.set(database="", password="secret-word"),
    }
    for error, address in wrong.items():
        with pytest.raises(error) as refusal:
            migrate.init("mplp", url=address.render_as_string(hide_password=False))
        assert "secret-word" not in str(refusal.value) + repr(refusal.value)
        assert refusal.value.hint
    with pytest.raises(StoreUnavailable, match="unable to open"):
        migrate.init("mplp", url="sqlite:////nowhere/at/all.db")


@pytest.mark.mariadb
def test_every_table_of_mariadb_compares_text_byte_by_byte_and_checks_its_json(place):
    url = place("mariadb")
    migrate.init("mplp", url=url)
    engine = opened(url)
    with engine.connect() as connection:
        tables = (
            "SELECT DISTINCT engine, table_collation FROM information_schema.tables WHERE "
            "table_schema = database()"
        )
        assert connection.exec_driver_sql(tables).all() == [("InnoDB", "utf8mb4_bin")]
        checks = (
            "SELECT table_name, constraint_name FROM information_schema.check_constraints "
            "WHERE constraint_schema = database() AND check_clause LIKE 'json_valid(%%'"
        )
        found = {tuple(row) for row in connection.exec_driver_sql(checks)}
    assert found == {
        (t.name, c.name) for t in T.values() for c in t.columns if isinstance(c.type, sa.JSON)
    }
    engine.dispose()


def test_columns_stand_in_the_order_of_the_schemas_and_keys_have_their_names(migrated_engine):
    inspector = inspect(migrated_engine)
    for name, table in T.items():
        assert [c["name"] for c in inspector.get_columns(name)] == list(table.columns.keys())
        if migrated_engine.dialect.name != "mysql":
            assert inspector.get_pk_constraint(name)["name"] == f"pk_{name}"
