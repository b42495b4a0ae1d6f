"""What a plan marks in pending Cypher, on a real server."""

from __future__ import annotations

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.results import DangerKind, Mode
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_text import split
from is_db_bootstrap.stores.neo4j.dangers import BoundedLook, Dangers, Forecasted

pytestmark = pytest.mark.neo4j
TIMING = Timing(connect_timeout_s=60)
DROPS, LOCKS = DangerKind.DROPS, DangerKind.LOCKS
REFUSED, UNSEEN = DangerKind.REFUSED, DangerKind.UNSEEN
NODES = """
UNWIND range(1, 12) AS i CREATE (:Person {id: i, name: 'p'})-[:KNOWS]->(:Thing {id: i, size: i});
CREATE (:Person {id: 99, age: 'old'});
CREATE CONSTRAINT person_id FOR (n:Person) REQUIRE n.id IS UNIQUE;
"""


def marked(found):
    return sorted((each.kind, each.object) for each in found)


@pytest.fixture
def graph(neo4j_url):
    """A store on a server with some nodes, and its session."""
    url = StoreUrl.parse("neo4j", neo4j_url)
    auth = (url.username, url.password)
    with neo4j.GraphDatabase.driver(f"bolt://{url.hosts}", auth=auth) as driver:
        for statement in split(NODES):
            driver.execute_query(statement.text)
    store = Neo4jBootstrapper(neo4j_url, Blueprint("mine", "test"), timing=TIMING)
    store.ping(60)
    with store._database.session() as session:
        yield store._database, session
    store.close()


FOUND = {
    "MATCH (n:Person) DETACH DELETE n": [(DROPS, "Person")],
    "MATCH (n) DETACH DELETE n": [(DROPS, "all nodes")],
    "MATCH (n:Person {id: 1})-[r:KNOWS]->() DELETE r": [(DROPS, "r")],
    "MATCH (n:Person) WHERE n.id > 5 detach delete n": [(DROPS, "n")],
    "MATCH (n:Person) CALL (n) { DETACH DELETE n } IN TRANSACTIONS": [(DROPS, "n")],
    "MATCH (n:Person) REMOVE n.name": [(DROPS, "n.name")],
    "DROP CONSTRAINT person_id": [(DROPS, "person_id")],
    "DROP CONSTRAINT person_id IF EXISTS": [(DROPS, "person_id")],
    "CREATE INDEX by_size FOR (n:Thing) ON (n.size)": [(LOCKS, "by_size")],
    "CREATE INDEX by_time FOR ()-[r:KNOWS]-() ON (r.at)": [(LOCKS, "by_time")],
    "CREATE CONSTRAINT thing_id FOR (n:Thing) REQUIRE n.id IS UNIQUE": [(LOCKS, "thing_id")],
    "CREATE CONSTRAINT named FOR (n:Person) REQUIRE n.name IS NOT NULL": [
        (LOCKS, "named"),
        (REFUSED, "named"),
    ],
    "CREATE CONSTRAINT aged FOR (n:Person) REQUIRE n.age IS :: INTEGER": [
        (LOCKS, "aged"),
        (REFUSED, "aged"),
    ],
    "CREATE CONSTRAINT keyed FOR (n:Person) REQUIRE n.name IS NODE KEY": [
        (LOCKS, "keyed"),
        (REFUSED, "keyed"),
    ],
}
NONE = [
    "MATCH (n:Nobody) DETACH DELETE n",
    "DROP CONSTRAINT nothing IF EXISTS",
    "CREATE INDEX by_x FOR (n:Nobody) ON (n.x); DROP INDEX by_x",
    "CREATE CONSTRAINT c FOR (n:Nobody) REQUIRE n.x IS NOT NULL",
    "MERGE (n:Person {id: 1}) SET n.name = 'DETACH DELETE n'",
    "MATCH (n:`REMOVE a.b`) RETURN n.delete",
    "MATCH (n:Person) REMOVE n:Old",
]


def new_objects(text):
    """All that a text declares is not there yet, as a plan would have it."""
    names = {each.tokens.split(" ")[2] for each in split(text) if each.is_schema}
    return Forecasted(names, {}, {"person_id"})


@pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
def test_each_danger_is_found_and_what_is_harmless_is_not_marked(graph):
    look = BoundedLook(*graph, query_s=60, all_s=600)
    found = {
        text: marked(Dangers(look, new_objects(text), parse=look, many=12).of([text]))
        for text in [*FOUND, *NONE]
    }
    assert found == FOUND | {text: [] for text in NONE}


@pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
def test_cypher_that_the_server_does_not_take_is_marked_and_not_run(graph):
    wrong = {
        "CREATE CONSTRANT a FOR (n:Nobody) REQUIRE n.x IS UNIQUE": (
            "CREATE CONSTRANT",
            "CONSTRAINT?",
        ),
        "MERGE (n:Mistyped {name 'x'})": ("MERGE", "Invalid input ''x''"),
        "// why\nMERGE (n:Mistyped {name: toUper('x')})": ("MERGE", "toUper"),
        "CALL apoc.nothing()": ("CALL apoc", "apoc.nothing"),
    }
    right = "MATCH (n:Mistyped) CALL (n) { SET n.x = 1 } IN TRANSACTIONS"
    look = BoundedLook(*graph, query_s=60, all_s=600)
    found = Dangers(look, Forecasted(), parse=look).of([right, *wrong])
    assert [(each.kind, each.statement, each.object) for each in found] == [
        (REFUSED, place, name) for place, (name, _) in enumerate(wrong.values(), 1)
    ]
    for each, (_, reason) in zip(found, wrong.values(), strict=True):
        assert reason in each.text
        assert "column" not in each.text
    assert look("MATCH (n:Mistyped) RETURN count(n) AS n") == [{"n": 0}]


def test_what_was_not_parsed_in_time_is_told_once(graph):
    late = BoundedLook(*graph, all_s=0)
    (found,) = Dangers(None, Forecasted(), parse=late).of(["RETURN 1", "RETURN 2"])
    assert (found.kind, found.statement) == (UNSEEN, 0)
    assert "it and the statements behind it could not be seen" in found.text


def test_a_small_label_and_an_object_that_is_there_are_no_danger(graph):
    text = "CREATE CONSTRAINT thing_id FOR (n:Thing) REQUIRE n.id IS UNIQUE"
    assert Dangers(BoundedLook(*graph, query_s=60, all_s=600), new_objects(text)).of([text]) == ()
    assert (
        Dangers(BoundedLook(*graph, query_s=60, all_s=600), Forecasted(), many=1).of([text]) == ()
    )


def test_a_count_comes_with_the_danger_and_its_place(graph):
    statements = ["RETURN 1", "MATCH (n:Person) DETACH DELETE n"]
    (found,) = Dangers(BoundedLook(*graph, query_s=60, all_s=600), Forecasted()).of(statements)
    assert found.statement == 1
    assert found.text == "All nodes of Person are deleted, 13 now."


def test_what_was_not_seen_in_time_is_not_taken_for_none(graph):
    text = "CREATE CONSTRAINT named FOR (n:Person) REQUIRE n.name IS NOT NULL"
    (found,) = Dangers(BoundedLook(*graph, all_s=0), new_objects(text)).of([text])
    assert found.kind is UNSEEN
    assert "within the 0 s that a plan may look" in found.text
    endless = "UNWIND range(1, 10000000000) AS a WITH a WHERE a = 0 RETURN a"
    with pytest.raises(Exception, match=r"could not be seen within 0\.2 s"):
        BoundedLook(*graph, query_s=0.2)(endless)


def test_without_a_server_what_is_deleted_and_dropped_is_found():
    found = {text: marked(Dangers(None, Forecasted()).of([text])) for text in FOUND}
    assert found == {t: [m for m in wanted if m[0] is DROPS] for t, wanted in FOUND.items()}


def test_a_plan_marks_pending_files_and_an_apply_does_not_look(graph, neo4j_url, tmp_path):
    (tmp_path / "V001__delete.cypher").write_text("MATCH (n:Person) DETACH DELETE n;\n")
    later = "CREATE CONSTRAINT thing_size FOR (n:Thing) REQUIRE n.size IS UNIQUE;\n"
    (tmp_path / "V002__size.cypher").write_text(later)
    store = Neo4jBootstrapper(neo4j_url, Blueprint("mine", "test", cypher=tmp_path), timing=TIMING)
    planned = BootstrapOrchestrator([store]).run(Mode.PLAN).stores[0].changes
    assert [marked(each.dangers) for each in planned] == [
        [(DROPS, "Person")],
        [(UNSEEN, "thing_size")],
    ]
    assert "not known before V001__delete.cypher has run" in planned[1].dangers[0].text
    applied = BootstrapOrchestrator([store]).run()
    assert applied.exit_code == 0
    assert [each.dangers for each in applied.stores[0].changes] == [(), ()]
