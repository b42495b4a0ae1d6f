"""What is found in Cypher without a server, and that nothing right is taken for wrong.

The checker was also run over files of other projects: 157 files of neo4j-migrations and of this
one, the examples of the Cypher manual (4.4, 5 and 25), and openCypher's technology kit.
"""

from __future__ import annotations

import pytest

from is_db_bootstrap import files
from is_db_bootstrap.stores.neo4j.cypher_check import problems

WRONG = {
    "CREATE CONSTRANT a FOR (n:A) REQUIRE n.id IS UNIQUE": "did you mean CONSTRAINT?",
    "CREAT CONSTRAINT a FOR (n:A) REQUIRE n.id IS UNIQUE": "did you mean CREATE?",
    "CREATE CONSTRAINT a FOR (n:A) REQIRE n.id IS UNIQUE": "did you mean REQUIRE?",
    "CREATE CONSTRAINT a IF NOT EXIST FOR (n:A) REQUIRE n.id IS UNIQUE": "where FOR is expected",
    "CREATE CONSTRAINT a FOR (n:A) REQUIRE n.id IS UNIQE": "did you mean UNIQUE?",
    "CREATE CONSTRAINT a FOR (n:A) REQUIRE n.id IS NOT NUL": "NOT NULL",
    "CREATE CONSTRAINT a FOR (n:A) REQUIRE n.id": "ends where IS is expected",
    "CREATE CONSTRAINT a FOR n:A REQUIRE n.id IS UNIQUE": "a pattern such as (n:Label)",
    "CREATE CONSTRAINT a FOR (n:A) n.id IS UNIQUE": "where REQUIRE is expected",
    "CREATE INDX a FOR (n:A) ON (n.id)": "did you mean INDEX?",
    "CREATE FULTEXT INDEX a FOR (n:A) ON EACH [n.id]": "did you mean FULLTEXT?",
    "CREATE INDEX a FOR (n:A) (n.id)": "where ON is expected",
    "DROP CONSTRAIN a": "did you mean CONSTRAINT?",
    "DROP INDEX": "ends where a name is expected",
    "CREATE (n:A {id: 1}": "( is not closed",
    "MATCH (n:A)) RETURN n": ") closes nothing",
    "MATCH (n:A {a: [1, 2}) RETURN n": "} closes nothing, while [ is open",
    "MATCH (n:A) SET n.a = 'b": "has no end",
    "MTACH (n) RETURN n": "did you mean MATCH?",
    "MATCH (n) RETRUN n": "did you mean RETURN?",
    "MATCH (n) WERE n.a = 1 RETURN n": "did you mean WHERE?",
    "MATCH (n) DETACH DELTE n": "did you mean DELETE?",
    "UNWIND $rows AS line MERG (:A {id: line})": "did you mean MERGE?",
    "CREATE (:A)\nCREATE CONSTRAINT a IF NOT EXISTS FOR (n:A) REQUIRE n.id IS UNIQUE": "a ; is missing",
    "SELECT * FROM a": "No statement begins with `SELECT`.",
}

RIGHT = [
    "CREATE CONSTRAINT FOR (n:A) REQUIRE n.id IS UNIQUE",
    "create constraint `a b` if not exists for (n:`X Y`) require (n.a, n.`b c`) is node key",
    "CREATE OR REPLACE CONSTRAINT $name FOR (n:A) REQUIRE n.id IS UNIQUE OPTIONS {indexProvider: 'x'}",
    "CREATE CONSTRAINT a FOR ()-[r:R]-() REQUIRE r.id IS RELATIONSHIP KEY",
    "CREATE CONSTRAINT a FOR ()<-[r:R]-() REQUIRE (r.id) IS REL UNIQUE",
    "CREATE CONSTRAINT a FOR (n:A) REQUIRE n.at IS :: ZONED DATETIME | LIST<STRING NOT NULL>",
    "CREATE CONSTRAINT a FOR (n:A) REQUIRE n.at IS TYPED VECTOR<FLOAT32>(3)",
    "CREATE CONSTRAINT a ON (n:A) ASSERT n.id IS UNIQUE",
    "CREATE CONSTRAINT ON (n:A) ASSERT exists(n.id)",
    "DROP CONSTRAINT ON (n:A) ASSERT n.id IS UNIQUE",
    "CREATE INDEX ON :A(id)",
    "CREATE INDEX for FOR (n:A) ON (n.id)",
    "CREATE TEXT INDEX a IF NOT EXISTS FOR ()-[r:R]->() ON (r.text)",
    "CREATE LOOKUP INDEX a FOR (n) ON EACH labels(n)",
    "CREATE LOOKUP INDEX a FOR ()-[r]-() ON EACH type(r)",
    "CREATE FULLTEXT INDEX a FOR (n:A|B) ON EACH [n.x, n.y] OPTIONS {indexConfig: {a: 1}}",
    "CREATE VECTOR INDEX a FOR (n:A) ON n.e WITH [n.x] OPTIONS {indexConfig: {}}",
    "DROP INDEX a IF EXISTS",
    "CYPHER 25 runtime = parallel planner=cost MATCH (n) RETURN n",
    "EXPLAIN CREATE INDEX a FOR (n:A) ON (n.x)",
    "USE neo4j CREATE INDEX a FOR (n:A) ON (n.x)",
    "CREATE p = (a:A)-[:R]->(b), shortestPath = (c)",
    "CREATE UNIQUE (a)-[:R]->(b)",
    "CREATE USER anna IF NOT EXISTS SET PASSWORD 'x' CHANGE REQUIRED",
    "CREATE DATABASE a TOPOLOGY 1 PRIMARY 2 SECONDARIES WAIT",
    "GRANT TRAVERSE ON GRAPH * NODES A (*) TO reader",
    "SHOW INDEXES YIELD name WHERE name STARTS WITH 'a' RETURN name",
    "MATCH (n) CALL (n) { SET n.a = 1 } IN 4 CONCURRENT TRANSACTIONS OF 10 ROWS ON ERROR CONTINUE",
    "USING PERIODIC COMMIT 500 LOAD CSV WITH HEADERS FROM 'f' AS line CREATE (:A {id: line.id})",
    "MATCH (n:A&!B WHERE n.x > 1) (()-[:R]->(m)){1,3} (z) FILTER z.a LET q = 1 RETURN *, q",
    "MATCH (n) RETURN CASE n.a WHEN 1 THEN 'x' ELSE 'y' END AS order ORDER BY order DESC LIMIT 3",
    "MATCH (order:Order) WHERE order.optional = 1 RETURN order.detach, order",
    "FOREACH (x IN [1] | MERGE (:A {id: x}))",
    "CALL apoc.periodic.iterate('MTACH (n)', 'RETRUN n', {}) YIELD batches",
    "CALL db.labels YIELD label RETURN label UNION ALL RETURN 'a' AS label",
    "WHEN true THEN RETURN 1 AS a ELSE RETURN 2 AS a",
    "MATCH (n) WHERE n.name =~ '(?i)a.*(' AND EXISTS { (n)-->() } RETURN n // (",
    "MATCH (n) RETURN [x IN n.list WHERE x > 0 | x], n {.*, y: 1}, all(x IN [1] WHERE x = 1)",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_found_with_its_line(text):
    wanted = WRONG[text]
    before = "// a comment\nRETURN 'a;\nb';\n"
    found = list(problems(before + text + ";\nRETURN 1;\n"))
    assert len(found) == 1, found
    assert wanted in found[0].text
    assert found[0].line == 4 + ("CREATE CONSTRAINT a IF NOT EXISTS" in text and "\n" in text)


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_is_not_taken_for_wrong(text):
    assert list(problems(text)) == []


def test_the_cypher_of_this_project_is_not_taken_for_wrong():
    found = sorted(files.root().glob("cypher/**/*.cypher"))
    assert found
    assert [each for path in found for each in problems(path.read_text(encoding="utf-8"))] == []
