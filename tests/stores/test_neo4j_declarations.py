"""Every constraint and index that a community server can carry is recognised, made, compared and
tried; the rest is refused in words.
"""

from __future__ import annotations

import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_file import load
from is_db_bootstrap.stores.neo4j.schema_forecast import declared

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)

CONSTRAINTS = """
CREATE CONSTRAINT one_book IF NOT EXISTS FOR (b:Book) REQUIRE b.isbn IS UNIQUE;
CREATE CONSTRAINT one_page IF NOT EXISTS FOR (p:Page) REQUIRE (p.book, p.number) IS UNIQUE;
CREATE CONSTRAINT one_loan IF NOT EXISTS FOR ()-[l:LENT]-() REQUIRE l.ticket IS UNIQUE;
"""
INDEXES = """
CREATE INDEX book_year IF NOT EXISTS FOR (b:Book) ON (b.year, b.month);
CREATE INDEX lent_on IF NOT EXISTS FOR ()-[l:LENT]-() ON (l.day);
CREATE TEXT INDEX book_title IF NOT EXISTS FOR (b:Book) ON (b.title);
CREATE TEXT INDEX lent_note IF NOT EXISTS FOR ()-[l:LENT]-() ON (l.note);
CREATE POINT INDEX shop_place IF NOT EXISTS FOR (s:Shop) ON (s.place);
CREATE FULLTEXT INDEX words IF NOT EXISTS FOR (n:Book|Page) ON EACH [n.title, n.text]
  OPTIONS {indexConfig: {`fulltext.analyzer`: 'english', `fulltext.eventually_consistent`: true}};
CREATE FULLTEXT INDEX notes IF NOT EXISTS FOR ()-[l:LENT]-() ON EACH [l.note];
CREATE VECTOR INDEX meaning IF NOT EXISTS FOR (b:Book) ON (b.embedding)
  OPTIONS {indexConfig: {`vector.dimensions`: 8, `vector.similarity_function`: 'cosine'}};
CREATE VECTOR INDEX lent_meaning IF NOT EXISTS FOR ()-[l:LENT]-() ON (l.embedding)
  OPTIONS {indexConfig: {`vector.dimensions`: 4, `vector.similarity_function`: 'euclidean'}};
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "V001__constraints.cypher").write_text(CONSTRAINTS)
    (tmp_path / "V002__indexes.cypher").write_text(INDEXES)
    return tmp_path


def store(url, folder):
    return Neo4jBootstrapper(url, Blueprint("declared", "for tests", cypher=folder))


def test_every_kind_is_recognised(folder):
    found = declared(load(folder))
    assert {o.type for o in found.values()} == {
        "UNIQUENESS",
        "RANGE",
        "TEXT",
        "POINT",
        "FULLTEXT",
        "VECTOR",
    }
    assert {o.entity for o in found.values()} == {"NODE", "RELATIONSHIP"}
    assert sum(f.unrecognised for f in load(folder)) == 0
    assert len(found) == 12


@both
def test_every_kind_is_made_compared_and_tried(neo4j_url, folder):
    made = store(neo4j_url, folder)
    result = BootstrapOrchestrator([made]).run()
    assert result.exit_code == 0
    assert [n for n in result.stores[0].notes if "verif" in n] == []
    assert BootstrapOrchestrator([made]).run().outcome == "unchanged"
    tried = list(made.selftest())
    assert [p for p in tried if p.ok is False] == []
    assert len(tried) == 12
    assert made.verify() == []
    made.close()


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("book_title", "CREATE INDEX book_title FOR (b:Book) ON (b.title)"),
        ("shop_place", "CREATE POINT INDEX shop_place FOR (s:Shop) ON (s.site)"),
        ("words", "CREATE FULLTEXT INDEX words FOR (n:Book) ON EACH [n.title, n.text]"),
        (
            "meaning",
            (
                "CREATE VECTOR INDEX meaning FOR (b:Book) ON (b.embedding) OPTIONS {indexConfig: "
                "{`vector.dimensions`: 9, `vector.similarity_function`: 'cosine'}}"
            ),
        ),
        ("lent_on", "CREATE INDEX lent_on FOR ()-[l:LENT]-() ON (l.hour)"),
    ],
)
def test_an_index_that_is_made_otherwise_is_drift(neo4j_url, folder, name, instead):
    made = store(neo4j_url, folder)
    BootstrapOrchestrator([made]).run().raise_for_failure()
    with made._database.session() as session:
        session.run(f"DROP INDEX {name}").consume()
        session.run(instead).consume()
        session.run("CALL db.awaitIndexes(60)").consume()
    assert [(d.object, d.message) for d in made.verify()] == [(name, "differs")]
    made.close()


def test_a_dropped_constraint_of_relationships_is_drift(neo4j_url, folder):
    made = store(neo4j_url, folder)
    BootstrapOrchestrator([made]).run().raise_for_failure()
    with made._database.session() as session:
        session.run("DROP CONSTRAINT one_loan").consume()
    assert [(d.object, d.message) for d in made.verify()] == [("one_loan", "is missing")]
    made.close()


@both
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE CONSTRAINT c IF NOT EXISTS FOR (b:Book) REQUIRE b.isbn IS NOT NULL",
        "CREATE CONSTRAINT c IF NOT EXISTS FOR (b:Book) REQUIRE (b.isbn, b.year) IS NODE KEY",
        "CREATE CONSTRAINT c IF NOT EXISTS FOR (b:Book) REQUIRE b.year IS :: INTEGER",
        "CREATE CONSTRAINT c IF NOT EXISTS FOR ()-[l:LENT]-() REQUIRE l.day IS NOT NULL",
        "CREATE CONSTRAINT c IF NOT EXISTS FOR ()-[l:LENT]-() REQUIRE l.day IS RELATIONSHIP KEY",
    ],
)
def test_what_needs_the_enterprise_edition_is_refused_in_words(neo4j_url, tmp_path, statement):
    (tmp_path / "V001__enterprise.cypher").write_text(f"{statement};")
    result = BootstrapOrchestrator([store(neo4j_url, tmp_path)]).run()
    assert result.exit_code == 6
    assert "nterprise" in f"{result.stores[0].error.message} {result.stores[0].error.hint}"
    (tmp_path / "V001__enterprise.cypher").write_text(
        f"// assume that edition is enterprise\n{statement};"
    )
    assert BootstrapOrchestrator([store(neo4j_url, tmp_path)]).run().exit_code == 0
