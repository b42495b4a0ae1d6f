"""Demo data is written only by who asks for it, at every entrance."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql

from commands import command
from is_db_bootstrap import Neo4jBootstrapper, PostgreSQLBootstrapper, app, migrate
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings
from servers import neo4j_driver

NAME = "novel_genesis"
SEEDED = [name for name in blueprint_names() if load_blueprint(name).seed_rows]


def demo_rows(url, name=NAME):
    """How many rows the tables hold that have demo rows."""
    tables = {row.table for row in load_blueprint(name).seed_rows}
    with psycopg.connect(url) as connection:
        counts = [
            connection.execute(
                sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(t))
            ).fetchone()
            for t in tables
        ]
    return sum(count for (count,) in counts)


@pytest.mark.postgres
@pytest.mark.parametrize("name", SEEDED)
def test_the_postgres_class_writes_demo_rows_only_with_seed(postgres_url, name):
    declared = load_blueprint(name)
    for seed, rows in ((False, 0), (True, len(declared.seed_rows))):
        store = PostgreSQLBootstrapper(postgres_url, declared, seed=seed)
        BootstrapOrchestrator([store]).run().raise_for_failure()
        assert demo_rows(postgres_url, name) == rows


@pytest.mark.neo4j
def test_the_neo4j_class_writes_demo_nodes_only_with_seed(neo4j_url, farm):
    declared = load_blueprint(NAME).resolve({})
    for seed, nodes in ((False, 0), (True, len(declared.seed_nodes))):
        BootstrapOrchestrator(
            [Neo4jBootstrapper(neo4j_url, declared, seed=seed)]
        ).run().raise_for_failure()
        with neo4j_driver(farm.shared("neo4j")) as driver:
            ours = "none(l IN labels(n) WHERE l STARTS WITH '__')"
            assert driver.execute_query(f"MATCH (n) WHERE {ours} RETURN count(n)").records[
                0
            ].values() == [nodes]


def by_class(url):
    BootstrapOrchestrator(
        [PostgreSQLBootstrapper(url, load_blueprint(NAME))]
    ).run().raise_for_failure()


def by_orchestrator(url):
    declared = load_blueprint(NAME)
    settings = Settings.load(declared, environ={"POSTGRES_URL": url})
    app.orchestrator(declared, settings, RunOptions(only=("postgres",))).run().raise_for_failure()


def by_migrate(url):
    migrate.init(NAME, url=url)


def by_command(*words):
    def run(url):
        code, _, err = command(*words, "-b", NAME, "--only", "postgres", "--postgres-url", url)
        assert code == 0, err

    return run


def by_migrate_command(url):
    code, _, err = command("migrate", "init", "-b", NAME, "--url", url)
    assert code == 0, err


ENTRANCES = {
    "class": by_class,
    "orchestrator": by_orchestrator,
    "migrate": by_migrate,
    "apply": by_command("apply"),
    "setup": by_command("setup", "--yes"),
    "migrate init": by_migrate_command,
}


@pytest.mark.postgres
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_no_entrance_writes_demo_rows_unasked(postgres_url, entrance):
    ENTRANCES[entrance](postgres_url)
    assert demo_rows(postgres_url) == 0


@pytest.mark.postgres
@pytest.mark.parametrize("option", ["", "--seed"])
def test_a_fleet_writes_demo_rows_only_with_seed(postgres_url, tmp_path, option):
    targets = tmp_path / "targets.jsonl"
    targets.write_text(json.dumps({"name": "one", "postgres": postgres_url}) + "\n")
    words = [
        "apply",
        "-b",
        NAME,
        "--only",
        "postgres",
        "--targets",
        str(targets),
        *filter(None, [option]),
    ]
    code, _, err = command(*words)
    assert code == 0, err
    assert demo_rows(postgres_url) == (len(load_blueprint(NAME).seed_rows) if option else 0)


@pytest.mark.postgres
def test_a_self_test_leaves_no_demo_rows(migrated):
    url = migrated(NAME)
    by_command("selftest")(url)
    assert demo_rows(url) == 0


def planned_seeds(store):
    """The demo data that a plan lists, and the statements that it shows of them."""
    result = BootstrapOrchestrator([store]).run(Mode.PLAN)
    result.raise_for_failure()
    changes = [change for change in result.stores[0].changes if change.kind == "seed"]
    return changes, [text for change in changes for text in change.statements]


@pytest.mark.postgres
def test_the_statements_of_a_plan_write_the_demo_rows(migrated):
    url = migrated(NAME)
    store = PostgreSQLBootstrapper(url, load_blueprint(NAME), seed=True)
    changes, statements = planned_seeds(store)
    assert len(statements) == len(changes) > 0
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    assert planned_seeds(store) == ([], [])


@pytest.mark.neo4j
def test_the_statements_of_a_plan_write_the_demo_nodes(neo4j_url, farm):
    store = Neo4jBootstrapper(neo4j_url, load_blueprint(NAME), seed=True)
    changes, statements = planned_seeds(store)
    assert len(statements) == len(changes) > 0
    with neo4j_driver(farm.shared("neo4j")) as driver:
        for statement in statements:
            driver.execute_query(statement.removesuffix(";"))
    assert planned_seeds(store) == ([], [])
