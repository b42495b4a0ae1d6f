"""Graphs whose schema was made by hand, and that `adopt` takes over as they are."""

from __future__ import annotations

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from pages import Reader, blocks

pytestmark = pytest.mark.neo4j

UNIQUE = "CREATE CONSTRAINT user_id IF NOT EXISTS FOR (n:User) REQUIRE n.id IS UNIQUE"
INDEX = "CREATE INDEX user_name IF NOT EXISTS FOR (n:User) ON (n.name)"
DATA = "MERGE (:Role {name: 'admin'})"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "V001__unique.cypher").write_text(f"{UNIQUE};\n")
    (tmp_path / "V002__index.cypher").write_text(f"{INDEX};\n")
    return tmp_path


@pytest.fixture
def query(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}",
        auth=(url.username, url.password),
        notifications_min_severity="OFF",
    ) as driver:
        yield lambda text: [dict(row) for row in driver.execute_query(text).records]


@pytest.fixture
def run(neo4j_url, folder):
    def run_mode(mode=Mode.ADOPT, *, foresees=False, accepted=()):
        blueprint = Blueprint("mine", "test", cypher=folder)
        store = Neo4jBootstrapper(neo4j_url, blueprint, timing=Timing(connect_timeout_s=60))
        engine = BootstrapOrchestrator([store], blueprint="mine", accepted=accepted)
        return engine.run(mode, foresees=foresees)

    return run_mode


RECORDED = (
    "MATCH (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*]->(n:__Neo4jMigration) "
    "RETURN n.source AS source ORDER BY source"
)
OTHERS = "MATCH (n) WHERE NOT n:__Neo4jMigration RETURN labels(n) AS l, properties(n) AS p"


def names(result):
    return [drift.object for drift in result.stores[0].drifts]


def test_a_schema_made_by_hand_is_recorded_file_by_file(query, run):
    query(UNIQUE)
    query(INDEX)
    query("CREATE (:User {id: 1, name: 'a'})")
    before = query(OTHERS)
    foreseen = run(foresees=True)
    assert [(c.name, c.kind, c.outcome) for c in foreseen.stores[0].changes] == [
        ("V001__unique.cypher", "record", Outcome.PLANNED),
        ("V002__index.cypher", "record", Outcome.PLANNED),
    ]
    assert query("MATCH (n:__Neo4jMigration) RETURN n") == []
    result = run()
    assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result
    assert [row["source"] for row in query(RECORDED)] == [
        "V001__unique.cypher",
        "V002__index.cypher",
    ]
    assert query(OTHERS) == before
    assert run(Mode.VERIFY).exit_code == 0
    assert run(Mode.APPLY).stores[0].changes == ()
    assert run().outcome is Outcome.UNCHANGED


def test_a_graph_without_the_declared_objects_holds_nothing_to_adopt(query, run):
    query("CREATE (:User {id: 1})")
    result = run()
    assert result.exit_code == 6
    assert "`apply`" in result.stores[0].error.hint
    assert query("MATCH (n:__Neo4jMigration) RETURN n") == []


def test_a_graph_that_is_half_built_is_refused_with_what_is_missing_and_what_is_extra(query, run):
    query(UNIQUE)
    query("CREATE INDEX other FOR (n:User) ON (n.age)")
    result = run()
    assert (result.exit_code, names(result)) == (3, ["user_name", "other"])
    missing, extra = result.stores[0].drifts
    assert missing.actual is None
    assert extra.expected is None
    assert query("MATCH (n:__Neo4jMigration) RETURN n") == []


def test_data_of_a_file_is_unverified_until_a_person_accepts_it(query, run, folder):
    (folder / "V003__roles.cypher").write_text(f"{DATA};\n")
    query(UNIQUE)
    query(INDEX)
    query(DATA)
    refused = run()
    assert (refused.exit_code, names(refused)) == (3, ["V003__roles.cypher"])
    assert "unverified" in refused.stores[0].drifts[0].message
    wrong = run(accepted=["V003__roles.cypher", "V002__index.cypher"])
    assert wrong.exit_code == 2
    assert "V002__index.cypher does not differ" in wrong.stores[0].error.message
    assert query("MATCH (n:__Neo4jMigration) RETURN n") == []
    done = run(accepted=["neo4j:V003__roles.cypher"])
    assert (done.exit_code, done.outcome) == (0, Outcome.CHANGED), done
    assert len(query(RECORDED)) == 3
    assert query("MATCH (n:Role) RETURN n.name AS n") == [{"n": "admin"}]
    assert run(Mode.VERIFY).exit_code == 0
    assert run(Mode.APPLY).stores[0].changes == ()


BLUEPRINT = """
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("shop", "test", cypher=Path(__file__).parent / "cypher")
"""


def test_the_line_of_the_page_is_typed(neo4j_url, query, tmp_path):
    """That of docs/how-to/adopt.md about Neo4j."""
    *_, line = blocks("docs/how-to/adopt.md")
    (tmp_path / "shop/cypher").mkdir(parents=True)
    (tmp_path / "shop/blueprint.py").write_text(BLUEPRINT)
    (tmp_path / "shop/cypher/V001__unique.cypher").write_text(f"{UNIQUE};\n")
    (tmp_path / "shop/cypher/V003__roles.cypher").write_text(f"{DATA};\n")
    query(UNIQUE)
    environ = {"NEO4J_URL": neo4j_url, "IS_DB_BOOTSTRAP_BLUEPRINT": "shop"}
    Reader(tmp_path, environ).follow(line)
    assert len(query(RECORDED)) == 2
