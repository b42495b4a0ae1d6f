"""The second release of a blueprint on Neo4j: kinds of changes of its Cypher files.

Each is planned, applied and verified, or refused with what to type. Nodes that the application has
written since the first release are in the database.
"""

from __future__ import annotations

from dataclasses import dataclass

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

pytestmark = pytest.mark.neo4j

FIRST = {
    "V001__keys.cypher": (
        "CREATE CONSTRAINT person_id IF NOT EXISTS FOR (n:Person) REQUIRE n.id IS UNIQUE;\n"
    ),
    "V002__indexes.cypher": (
        "CREATE INDEX person_name IF NOT EXISTS FOR (n:Person) ON (n.name);\n"
        "CREATE INDEX city_name IF NOT EXISTS FOR (n:City) ON (n.name);\n"
        "CREATE VECTOR INDEX near IF NOT EXISTS FOR (n:City) ON (n.place) OPTIONS "
        "{indexConfig: {`vector.dimensions`: 4, `vector.similarity_function`: 'cosine'}};\n"
    ),
    "R003__roles.cypher": "MERGE (:Role {name: 'reader'});\n",
}
#: What the application has written: two cities are there twice, each with people of its own.
NODES = """
UNWIND range(1, 5) AS number
CREATE (p:Person {id: number, name: 'p' + number, born: toString(1990 + number)})
CREATE (c:City {id: number % 3, name: 'c' + number})
CREATE (p)-[:LIVES_IN {since: number}]->(c)
"""
PEOPLE = "MATCH (n:Person)-[r:LIVES_IN]->(c:City) RETURN count(DISTINCT n), count(r), count(c)"
MERGE = """\
MATCH (n:City)
WITH n ORDER BY n.name
WITH n.id AS id, collect(n) AS same
WHERE size(same) > 1
WITH same[0] AS kept, same[1..] AS others
UNWIND others AS other
CALL (kept, other) {
    MATCH (person:Person)-[old:LIVES_IN]->(other)
    MERGE (person)-[new:LIVES_IN]->(kept) ON CREATE SET new = properties(old)
}
DETACH DELETE other;
"""
CITY_ID = "CREATE CONSTRAINT city_id IF NOT EXISTS FOR (n:City) REQUIRE n.id IS UNIQUE;\n"
ENTERPRISE = "// assume that edition is enterprise\n"


@dataclass(frozen=True)
class Change:
    """The files of the second release, and what a query of the application finds then.

    `skipped` are files that this server is not to have.
    """

    files: dict[str, str]
    query: str = PEOPLE
    rows: tuple[tuple[object, ...], ...] = ((5, 5, 5),)
    skipped: tuple[str, ...] = ()


def one(text: str) -> dict[str, str]:
    """One further file."""
    return {"V004__second.cypher": text}


CHANGES = {
    "an index is new": Change(
        one("CREATE INDEX person_born IF NOT EXISTS FOR (n:Person) ON (n.born);\n")
    ),
    "an index of a relationship is new": Change(
        one("CREATE INDEX since IF NOT EXISTS FOR ()-[r:LIVES_IN]-() ON (r.since);\n")
    ),
    "an index is on other properties": Change(
        one(
            "DROP INDEX person_name IF EXISTS;\n"
            "CREATE INDEX person_name IF NOT EXISTS FOR (n:Person) ON (n.name, n.born);\n"
        )
    ),
    "an index is removed": Change(one("DROP INDEX person_name IF EXISTS;\n")),
    "a vector index has another dimension": Change(
        one(
            "DROP INDEX near IF EXISTS;\n"
            "CREATE VECTOR INDEX near IF NOT EXISTS FOR (n:City) ON (n.place) OPTIONS "
            "{indexConfig: {`vector.dimensions`: 8, `vector.similarity_function`: 'cosine'}};\n"
        )
    ),
    "a constraint takes the place of an index": Change(
        one(
            "DROP INDEX person_name IF EXISTS;\n"
            "CREATE CONSTRAINT person_name IF NOT EXISTS "
            "FOR (n:Person) REQUIRE n.name IS UNIQUE;\n"
        )
    ),
    "a constraint is removed": Change(one("DROP CONSTRAINT person_id IF EXISTS;\n")),
    "duplicates are merged, then a property is unique": Change(
        {"V004__merge_cities.cypher": MERGE, "V005__city_id.cypher": CITY_ID},
        "MATCH (n:Person)-[r:LIVES_IN]->(c:City) RETURN count(r), count(DISTINCT c)",
        ((5, 3),),
    ),
    "a property is renamed": Change(
        one("MATCH (n:Person) SET n.title = n.name REMOVE n.name;\n"),
        "MATCH (n:Person) RETURN count(n.title), count(n.name)",
        ((5, 0),),
    ),
    "a property has another type": Change(
        one("MATCH (n:Person) SET n.born = toInteger(n.born);\n"),
        "MATCH (n:Person) RETURN min(n.born), max(n.born)",
        ((1991, 1995),),
    ),
    "a property is filled in batches": Change(
        one(
            "MATCH (n:Person) WHERE n.country IS NULL "
            "CALL { WITH n SET n.country = 'DE' } IN TRANSACTIONS OF 2 ROWS;\n"
        ),
        "MATCH (n:Person) RETURN n.country, count(n)",
        (("DE", 5),),
    ),
    "a label is renamed": Change(
        one("MATCH (n:City) SET n:Town REMOVE n:City;\n"),
        "MATCH (n) WHERE n:Town OR n:City RETURN count(n:Town), count(CASE WHEN n:City THEN 1 END)",
        ((5, 0),),
    ),
    "a repeatable file has another text": Change(
        {"R003__roles.cypher": "UNWIND ['reader', 'writer'] AS n MERGE (:Role {name: n});\n"},
        "MATCH (n:Role) RETURN n.name ORDER BY n.name",
        (("reader",), ("writer",)),
    ),
    "a constraint of the enterprise edition, where it is not": Change(
        {
            "V004__ee.cypher": ENTERPRISE
            + "CREATE CONSTRAINT named IF NOT EXISTS FOR (n:Person) REQUIRE n.name IS NOT NULL;\n",
            "V005__born.cypher": (
                "CREATE INDEX person_born IF NOT EXISTS FOR (n:Person) ON (n.born);\n"
            ),
        },
        skipped=("V004__ee.cypher",),
    ),
}


class Graph:
    """A blueprint's folder, and the database that has its first release and the nodes."""

    def __init__(self, folder, url):
        self.folder = folder
        self.url = url
        self.write(FIRST)
        address = StoreUrl.parse("neo4j", url)
        self.driver = neo4j.GraphDatabase.driver(
            f"bolt://{address.hosts}",
            auth=(address.username, address.password),
            notifications_min_severity="OFF",
        )

    def write(self, files):
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def run(self, mode=Mode.APPLY, **options):
        store = Neo4jBootstrapper(self.url, Blueprint("graph", "People.", cypher=self.folder))
        return BootstrapOrchestrator([store], **options).run(mode)

    def query(self, text):
        return tuple(tuple(row.values()) for row in self.driver.execute_query(text).records)

    def everything(self):
        """All nodes of the application, and all constraints and indexes."""
        return (
            self.query(
                "MATCH (n) WHERE n:Person OR n:City OR n:Role "
                "RETURN labels(n), properties(n) ORDER BY elementId(n)"
            ),
            self.query("SHOW CONSTRAINTS YIELD name, type, properties ORDER BY name"),
            self.query("SHOW INDEXES YIELD name, type, properties ORDER BY name"),
        )


@pytest.fixture
def graph(tmp_path, neo4j_url):
    made = Graph(tmp_path, neo4j_url)
    made.run().raise_for_failure()
    made.query(NODES)
    yield made
    made.driver.close()


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_of_the_files_is_planned_applied_and_verified(graph, kind):
    change = CHANGES[kind]
    graph.write(change.files)
    expected = [name for name in change.files if name not in change.skipped]
    planned = graph.run(Mode.PLAN).stores[0].changes
    assert [each.name for each in planned if each.outcome is Outcome.PLANNED] == expected
    assert graph.run(Mode.VERIFY).exit_code == 3
    applied = graph.run()
    assert applied.outcome is Outcome.CHANGED, applied
    done = applied.stores[0].changes
    assert [each.name for each in done if each.outcome is Outcome.CHANGED] == expected
    assert graph.run().outcome is Outcome.UNCHANGED
    assert graph.run(Mode.VERIFY, strict=True).exit_code == 0
    assert graph.query(change.query) == change.rows

    for name in change.files.keys() - FIRST.keys():
        (graph.folder / name).unlink()
    if not change.files.keys() & FIRST.keys():
        first = graph.run()
        assert (first.exit_code, first.outcome) == (0, Outcome.UNCHANGED), first
        assert graph.query(change.query) == change.rows


@dataclass(frozen=True)
class Refusal:
    """Files that are refused before anything is changed, the exit code, and parts of what is told.

    `removed` are files of the first release that are not there any more.
    """

    files: dict[str, str]
    words: tuple[str, ...]
    exit_code: int = 6
    removed: tuple[str, ...] = ()


REFUSED = {
    "a unique property has duplicates": Refusal(
        one(CITY_ID),
        ("2 groups of nodes share id", "merge the duplicates, such as by a Cypher file"),
    ),
    "a constraint has the name of an index": Refusal(
        one("CREATE CONSTRAINT city_name FOR (n:City) REQUIRE n.name IS UNIQUE;\n"),
        ("the database has RANGE index on (:City) (name)", "DROP INDEX city_name"),
    ),
    "an index is in the way of a constraint": Refusal(
        one("CREATE CONSTRAINT one_name FOR (n:City) REQUIRE n.name IS UNIQUE;\n"),
        ("index city_name is on the same properties", "DROP INDEX city_name IF EXISTS"),
    ),
    "a name stands for an index on something else": Refusal(
        one("CREATE INDEX person_name IF NOT EXISTS FOR (n:Person) ON (n.born);\n"),
        ("the database has RANGE index on (:Person) (name)", "DROP INDEX person_name"),
    ),
    "a constraint needs the enterprise edition": Refusal(
        one("CREATE CONSTRAINT named IF NOT EXISTS FOR (n:Person) REQUIRE n.name IS NOT NULL;\n"),
        ("requires the Enterprise Edition", "`// assume that edition is enterprise`"),
    ),
    "an applied file is edited": Refusal(
        {"V001__keys.cypher": CITY_ID},
        ("was changed after it was applied", "Restore the text, and put the change into a new"),
    ),
    "an applied file is removed": Refusal(
        {},
        ("The history has V001__keys.cypher", "Bring the file back"),
        removed=("V001__keys.cypher",),
    ),
    "a file stands between two that are applied": Refusal(
        {"V001.5__between.cypher": CITY_ID},
        ("R003__roles.cypher behind it was", "Give it a version above 003."),
    ),
    "a number is there twice": Refusal(
        {"V002__other.cypher": CITY_ID},
        ("have the same version 002", "Give each a version of its own"),
        exit_code=2,
    ),
    "a statement is misspelled": Refusal(
        one("CREATE CONSTRAIN x;\n"),
        ("V004__second.cypher, statement 1 (line 1)", "Correct it and run again"),
        exit_code=1,
    ),
}


def refused_with(graph) -> tuple[int, str]:
    """The exit code of an `apply` that is refused, and its message with the hint."""
    try:
        failed = graph.run()
    except BootstrapError as error:
        return error.exit_code, f"{error.message} {error.hint}"
    error = failed.stores[0].error
    return failed.exit_code, f"{error.message} {error.hint}"


def test_a_change_that_cannot_be_made_is_refused_before_anything_is_changed(graph):
    before = graph.everything()
    for kind, refusal in REFUSED.items():
        graph.write(refusal.files)
        for name in refusal.removed:
            (graph.folder / name).unlink()
        code, told = refused_with(graph)
        assert code == refusal.exit_code, f"{kind}: {told}"
        assert [words for words in refusal.words if words not in told] == [], f"{kind}: {told}"
        assert graph.everything() == before, kind
        for name in refusal.files.keys() - FIRST.keys():
            (graph.folder / name).unlink()
        graph.write(FIRST)
    assert graph.run().outcome is Outcome.UNCHANGED
