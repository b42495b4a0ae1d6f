"""What agentic_projects declares, on real servers. Numbers are those of the blueprint's acceptance
checks.
"""

from __future__ import annotations

import datetime as dt
import itertools
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from pydantic import ValidationError
from sqlalchemy import create_engine, select
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.agentic_projects import queries, tables
from is_db_bootstrap.blueprints.agentic_projects.models import (
    CATEGORY_FOR_PROJECT_TYPE,
    Modification,
    ModificationStatus,
    ProjectContext,
    ProjectType,
    Template,
    TemplateCategory,
)
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from specification import column, insert, refused, value

pytestmark = pytest.mark.postgres
both_ends = pytest.mark.parametrize("version", ["18", "14"])

BLUEPRINT = load_blueprint("agentic_projects")
PROJECT = {"name": "p", "type": "api", "owner_id": "o"}
TEMPLATE = {"name": "t", "category": "api"}


@pytest.fixture
def version():
    return None


@pytest.fixture
def url(migrated, version):
    return migrated("agentic_projects", version)


@pytest.fixture
def db(url):
    """A connection in a transaction of its own: refusals leave it usable."""
    with psycopg.connect(url) as connection:
        yield connection


@pytest.fixture
def engine(url):
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def run(url, *, seed=False):
    return BootstrapOrchestrator([PostgreSQLBootstrapper(url, BLUEPRINT, seed=seed)]).run()


def modification(db, **columns):
    project = columns.pop("project_id", None) or insert(db, "project_contexts", "id", **PROJECT)
    return {"project_id": project, "request": "r", "requested_by": "me", **columns}


# --- 1 and 2: the catalogue


def test_agt_01_an_empty_server_reaches_the_head(postgres_url):
    result = run(postgres_url)
    assert (result.exit_code, [c.name for c in result.stores[0].changes][1:]) == (
        0,
        ["agt_0001", "agt_0002", "agt_0003"],
    )


@both_ends
def test_agt_01_the_catalogue_is_that_of_the_page(db, version):
    own = "conrelid::regclass::text <> 'alembic_version'"
    counts = dict(
        db.execute(
            "SELECT contype::text, count(*) FROM pg_constraint WHERE connamespace = "
            f"'public'::regnamespace AND contype <> 'n' AND {own} GROUP BY 1"
        )
    )
    assert counts == {"p": 3, "c": 26, "f": 1, "u": 1}
    assert value(db, "SELECT confdeltype::text FROM pg_constraint WHERE contype = 'f'") == "c"
    listed = dict(
        db.execute("SELECT indexname::text, indexdef FROM pg_indexes WHERE indexname LIKE 'idx%'")
    )
    assert len(listed) == 21
    assert sum("USING gin" in text for text in listed.values()) == 7
    assert sum("DESC" in text for text in listed.values()) == 4
    assert sorted(n for n, text in listed.items() if ", " in text) == [
        "idx_modifications_project_status",
        "idx_project_contexts_owner_status",
    ]
    assert value(db, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 2
    assert column(
        db, "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    ) == ["set_updated_at"]
    assert value(db, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 4


def test_agt_01_every_table_and_every_column_with_a_meaning_has_a_comment(db):
    assert (
        value(
            db,
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND "
            "relkind = 'r' AND obj_description(oid) IS NOT NULL",
        )
        == 3
    )
    told = column(
        db,
        "SELECT attrelid::regclass || '.' || attname FROM pg_attribute WHERE "
        "col_description(attrelid, attnum) IS NOT NULL AND attrelid::regclass::text = ANY(%s)",
        ["project_contexts", "modifications", "templates"],
    )
    assert len(told) == 19


def test_agt_02_each_step_works_both_ways_and_base_leaves_nothing(url, db):
    for expected in ("agt_0002", "agt_0001", None):
        migrate.downgrade("agentic_projects", url=url)
        assert migrate.current("agentic_projects", url=url).revision == expected
    db.rollback()
    assert (
        value(db, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace") == 0
    )
    assert column(db, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'") == [
        "alembic_version"
    ]
    assert len(migrate.upgrade("agentic_projects", url=url).revisions) == 3
    assert run(url).outcome == "unchanged"


def test_agt_02_a_shared_function_stays_while_others_use_it(url):
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE theirs (updated_at timestamptz)")
        db.execute(
            "CREATE TRIGGER t BEFORE UPDATE ON theirs FOR EACH ROW EXECUTE FUNCTION "
            "set_updated_at()"
        )
        migrate.downgrade("agentic_projects", "base", url=url)
        assert value(db, "SELECT count(*) FROM pg_proc WHERE proname = 'set_updated_at'") == 1


# --- 3 to 6: rows


def test_agt_03_only_the_columns_without_default_are_needed(db):
    project = insert(db, "project_contexts", **PROJECT)
    assert {
        k: project[k]
        for k in (
            "status",
            "codebase",
            "dependencies",
            "environment_vars",
            "deployment_config",
            "last_deployed_at",
        )
    } == {
        "status": "active",
        "codebase": {},
        "dependencies": [],
        "environment_vars": {},
        "deployment_config": {},
        "last_deployed_at": None,
    }
    assert [
        float(project[k]) for k in ("test_coverage", "security_score", "performance_score")
    ] == [0, 0, 0]
    change = insert(db, "modifications", **modification(db))
    assert (
        change["status"],
        change["applied_at"],
        change["affected_files"],
        change["impact_analysis"],
    ) == (
        "pending",
        None,
        [],
        {},
    )
    template = insert(db, "templates", **TEMPLATE)
    assert (
        template["description"],
        template["estimated_setup_time"],
        template["complexity"],
        template["tags"],
    ) == (
        "",
        15,
        "medium",
        [],
    )
    assert {type(row["id"]) for row in (project, change, template)} == {uuid.UUID}


@pytest.mark.parametrize(
    "name",
    [
        "status",
        "codebase",
        "dependencies",
        "environment_vars",
        "test_coverage",
        "created_at",
        "updated_at",
    ],
)
def test_agt_03_null_in_a_column_with_a_default_is_refused(db, name):
    with refused(db, "23502"):
        insert(db, "project_contexts", **PROJECT, **{name: None})


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("project_contexts", {"type": "other"}),
        ("project_contexts", {"status": "done"}),
        ("project_contexts", {"test_coverage": 1.01}),
        ("project_contexts", {"security_score": -0.01}),
        ("project_contexts", {"name": " "}),
        ("project_contexts", {"codebase": Jsonb([])}),
        ("modifications", {"request": "\n"}),
        ("modifications", {"status": "applied"}),
        ("modifications", {"applied_at": "2026-01-01"}),
        ("modifications", {"status": "done"}),
        ("templates", {"category": "web_app"}),
        ("templates", {"complexity": "hard"}),
        ("templates", {"estimated_setup_time": 0}),
        ("templates", {"estimated_setup_time": -5}),
        ("templates", {"tags": [None]}),
        ("templates", {"files": Jsonb([])}),
        ("templates", {"name": ""}),
    ],
)
def test_agt_04_a_row_that_breaks_a_check_is_refused(db, table, columns):
    least = {
        "project_contexts": lambda: PROJECT,
        "modifications": lambda: modification(db),
        "templates": lambda: TEMPLATE,
    }[table]()
    with refused(db, "23514"):
        insert(db, table, **least | columns)
    insert(db, table, **least)


def test_agt_05_references_and_names_are_kept_and_changes_go_with_their_project(db):
    with refused(db, "23503"):
        insert(db, "modifications", **modification(db, project_id=uuid.uuid4()))
    insert(db, "templates", **TEMPLATE)
    with refused(db, "23505"):
        insert(db, "templates", **TEMPLATE)
    change = insert(db, "modifications", **modification(db))
    db.execute("DELETE FROM project_contexts WHERE id = %s", [change["project_id"]])
    assert value(db, "SELECT count(*) FROM modifications") == 0


def test_agt_06_updated_at_moves_also_within_the_inserting_transaction(db):
    insert(db, "project_contexts", **PROJECT)
    insert(db, "templates", **TEMPLATE)
    for table in ("project_contexts", "templates"):
        before = db.execute(f"SELECT created_at, updated_at FROM {table}").fetchone()
        after = db.execute(
            f"UPDATE {table} SET name = 'n' RETURNING created_at, updated_at"
        ).fetchone()
        assert after[0] == before[0]
        assert after[1] > before[1]


# --- 7: queries

INDEX_OF = {
    "idx_project_contexts_codebase": queries.projects_with_file("a.py"),
    "idx_project_contexts_environment_vars": queries.projects_with_environment({"K": "v"}),
    "idx_modifications_impact_analysis": queries.modifications_with_impact(
        {"risk": {"level": "low"}}
    ),
    "idx_modifications_test_results": queries.modifications_with_test_results({"passed": True}),
    "idx_templates_files": queries.templates_with_file("a.py"),
    "idx_templates_tech_stack": queries.templates_with_tech(["python"]),
    "idx_templates_tags": queries.templates_with_tags(["backend"]),
}


@pytest.mark.parametrize("index", INDEX_OF)
def test_agt_07_the_plan_of_each_query_names_its_index(engine, index):
    with engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        text = "\n".join(connection.execute(Explain(INDEX_OF[index])).scalars())
    assert index in text
    assert "Seq Scan" not in text


class Explain(Executable, ClauseElement):
    """EXPLAIN before a query, whose values stay bound."""

    inherit_cache = False

    def __init__(self, query):
        self.query = query


@compiles(Explain)
def _explain(element, compiler, **options):
    return f"EXPLAIN {compiler.process(element.query, **options)}"


def test_agt_07_any_of_several_tags_uses_the_index_too_and_is_right(engine):
    rows = [("a", ["x", "y"], ["python"]), ("b", ["y"], ["go", "python"]), ("c", ["z"], [])]
    with engine.begin() as connection:
        for name, tags, stack in rows:
            connection.execute(
                insert_into(tables.templates).values(
                    name=name, category="api", tags=tags, tech_stack=stack, files={f"{name}.py": ""}
                )
            )
        project = connection.execute(
            insert_into(tables.project_contexts)
            .values(**PROJECT, codebase={"main.py": "x"}, environment_vars={"A": "1", "B": "2"})
            .returning(tables.project_contexts.c.id)
        ).scalar_one()
        connection.execute(
            insert_into(tables.modifications).values(
                project_id=project,
                request="r",
                requested_by="m",
                impact_analysis={"risk": {"level": "low", "n": 1}},
                test_results={"passed": True},
            )
        )

        def names(query):
            return sorted(row.name for row in connection.execute(query))

        assert names(queries.templates_with_tags(["x", "y"])) == ["a"]
        assert names(queries.templates_with_tags(["x", "z"], match_any=True)) == ["a", "c"]
        assert names(queries.templates_with_tech({"python"})) == ["a", "b"]
        assert names(queries.templates_with_file("b.py")) == ["b"]
        assert names(queries.projects_with_file("main.py")) == ["p"]
        assert names(queries.projects_with_file("other.py")) == []
        assert names(queries.projects_with_environment({"A": "1"})) == ["p"]
        assert names(queries.projects_with_environment({"A": "2"})) == []
        assert (
            len(
                connection.execute(
                    queries.modifications_with_impact({"risk": {"level": "low"}})
                ).all()
            )
            == 1
        )
        assert (
            len(
                connection.execute(queries.modifications_with_test_results({"passed": False})).all()
            )
            == 0
        )


@pytest.mark.parametrize(
    ("query", "empty"),
    [
        (queries.projects_with_file, ""),
        (queries.projects_with_environment, {}),
        (queries.modifications_with_impact, {}),
        (queries.modifications_with_test_results, {}),
        (queries.templates_with_file, ""),
        (queries.templates_with_tech, []),
        (queries.templates_with_tags, []),
    ],
)
def test_agt_07_an_empty_argument_is_refused(query, empty):
    with pytest.raises(ValueError, match="would match everything"):
        query(empty)


# --- 8 and 9: models

A_PROJECT = ProjectContext(
    name="p",
    type="web_app",
    owner_id="o",
    codebase={"a.py": "x = 1"},
    dependencies=["fastapi"],
    environment_vars={"TOKEN": "vault:1"},
    deployment_config={"replicas": 2, "nested": [1, None, {"a": "b"}]},
    test_coverage=0.87654,
    security_score=1,
    performance_score=0.5,
    last_deployed_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
)


def test_agt_08_models_round_trip_through_the_database(engine):
    change = Modification(
        project_id=A_PROJECT.id,
        request="r",
        requested_by="m",
        impact_analysis={"a": 1.5},
        affected_files=["a"],
        modified_files={"a": "b"},
    )
    applied = change.moved_to("approved").moved_to("applied")
    template = Template(
        name="t",
        description="",
        category="data",
        files={"a": "b"},
        required_vars=["x"],
        tags=["t"],
        complexity="simple",
    )
    with engine.begin() as connection:
        for table, model in (
            (tables.project_contexts, A_PROJECT),
            (tables.modifications, applied),
            (tables.templates, template),
        ):
            connection.execute(insert_into(table).values(**model.to_row()))
            row = connection.execute(select(table)).mappings().one()
            assert type(model).from_row(row) == model


def test_agt_08_rows_with_json_as_text_are_read_and_surplus_columns_are_not():
    row = A_PROJECT.to_row() | {"codebase": '{"a.py": "x = 1"}'}
    assert ProjectContext.from_row(row) == A_PROJECT
    with pytest.raises(ValidationError):
        ProjectContext.from_row(row | {"surplus": 1})


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (ProjectContext, {"unknown": 1}),
        (ProjectContext, {"name": " "}),
        (ProjectContext, {"name": "x" * 256}),
        (ProjectContext, {"owner_id": ""}),
        (ProjectContext, {"type": "other"}),
        (ProjectContext, {"status": "done"}),
        (ProjectContext, {"test_coverage": 1.01}),
        (ProjectContext, {"security_score": -0.01}),
        (ProjectContext, {"performance_score": float("nan")}),
        (ProjectContext, {"created_at": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001 - a naive time is the point
        (ProjectContext, {"codebase": {"a": 1}}),
        (ProjectContext, {"codebase": []}),
        (ProjectContext, {"dependencies": [None]}),
        (ProjectContext, {"deployment_config": {"a": object()}}),
        (Modification, {"request": " "}),
        (Modification, {"requested_by": "x" * 256}),
        (Modification, {"status": "applied"}),
        (Modification, {"applied_at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}),
        (Template, {"category": "web_app"}),
        (Template, {"complexity": "hard"}),
        (Template, {"estimated_setup_time": 0}),
        (Template, {"required_vars": ["a"], "optional_vars": ["a"]}),
        (Template, {"files": {"a": None}}),
    ],
)
def test_agt_08_what_a_rule_forbids_is_refused(model, fields):
    least = {
        ProjectContext: PROJECT,
        Modification: {"project_id": uuid.uuid4(), "request": "r", "requested_by": "m"},
        Template: {"name": "t", "description": "", "category": "api"},
    }[model]
    assert model(**least)
    with pytest.raises(ValidationError):
        model(**least | fields)


@pytest.mark.parametrize(
    ("model", "field"),
    [(ProjectContext, f) for f in ("name", "type", "owner_id")] + [(Template, "description")],
)
def test_agt_08_a_field_without_default_is_needed(model, field):
    least = (
        PROJECT if model is ProjectContext else {"name": "t", "description": "", "category": "api"}
    )
    with pytest.raises(ValidationError, match=field):
        model(**{k: v for k, v in least.items() if k != field})


def test_agt_08_assignment_is_validated_and_defaults_are_not_shared():
    one, other = ProjectContext(**PROJECT), ProjectContext(**PROJECT)
    one.codebase["a"] = "b"
    assert other.codebase == {}
    assert one.id != other.id
    with pytest.raises(ValidationError):
        one.test_coverage = 2
    assert one.test_coverage == 0
    one.test_coverage = 0.12345
    assert one.test_coverage == 0.1235
    change = Modification(project_id=one.id, request="r", requested_by="m")
    with pytest.raises(ValidationError):
        change.status = "applied"
    assert change.status is ModificationStatus.PENDING


def test_agt_08_repr_shows_no_environment_variable():
    assert "vault:1" not in repr(A_PROJECT)
    assert "vault:1" not in str(A_PROJECT)


def test_agt_08_each_project_type_has_a_category():
    assert dict(CATEGORY_FOR_PROJECT_TYPE) == dict(zip(ProjectType, TemplateCategory, strict=True))
    with pytest.raises(TypeError):
        CATEGORY_FOR_PROJECT_TYPE["api"] = "web"


def test_agt_09_exactly_four_steps_are_allowed():
    taken = set()
    for before, after in itertools.product(ModificationStatus, repeat=2):
        applied_at = dt.datetime.now(dt.UTC) if before == "applied" else None
        change = Modification(
            project_id=uuid.uuid4(),
            request="r",
            requested_by="m",
            status=before,
            applied_at=applied_at,
        )
        try:
            moved = change.moved_to(after)
        except ValueError:
            continue
        assert moved.status == after
        assert change.status == before
        assert (moved.applied_at is not None) == (after == "applied")
        taken.add((before.value, after.value))
    assert taken == {
        ("pending", "approved"),
        ("pending", "rejected"),
        ("approved", "applied"),
        ("approved", "failed"),
    }


def test_agt_09_the_time_of_applying_may_be_given():
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    change = Modification(project_id=uuid.uuid4(), request="r", requested_by="m", status="approved")
    assert change.moved_to("applied", at=at).applied_at == at


# --- 14: demo data


def test_agt_14_templates_come_once_and_leave_what_was_edited(postgres_url):
    assert run(postgres_url, seed=True).exit_code == 0
    engine = create_engine(postgres_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        found = {
            t.name: t
            for t in (
                Template.from_row(r)
                for r in connection.execute(select(tables.templates)).mappings()
            )
        }
        assert {name: str(t.id) for name, t in found.items()} == {
            "REST API": "c12c6754-d110-57cc-8139-d2bb1df91334",
            "Web application": "ff1069b3-1042-5859-b697-a3c622ff9ef6",
            "Mobile back end": "dc47ea31-622b-5c78-9a4a-6124959c14d6",
            "Data pipeline": "8bb161e8-c42b-5191-9017-843bdd060018",
            "Observable microservice": "be827b9c-11f7-5d9d-9983-5b5d439a05d0",
        }
        assert found["Web application"].tech_stack == ["python", "fastapi", "typescript", "react"]
        assert found["REST API"].files == {"README.md": "# {{ project_name }}\n"}
        assert (found["REST API"].required_vars, found["REST API"].optional_vars) == (
            ["project_name"],
            ["author"],
        )
        assert len(connection.execute(queries.templates_with_tags(["backend"])).all()) == 2
        connection.exec_driver_sql(
            "UPDATE templates SET description = 'mine' WHERE name = 'REST API'"
        )
        connection.exec_driver_sql(
            "UPDATE templates SET id = gen_random_uuid() WHERE name = 'Data pipeline'"
        )
    assert run(postgres_url, seed=True).outcome == "unchanged"
    with engine.begin() as connection:
        assert (
            connection.exec_driver_sql(
                "SELECT description FROM templates WHERE name = 'REST API'"
            ).scalar()
            == "mine"
        )
    engine.dispose()


def test_agt_14_without_seed_all_tables_are_empty(db):
    assert [
        value(db, f"SELECT count(*) FROM {t}")
        for t in ("project_contexts", "modifications", "templates")
    ] == [0, 0, 0]
