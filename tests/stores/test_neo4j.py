from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import neo4j
import pytest

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, SeedNode, SeedRelationship
from is_db_bootstrap.blueprints.novel_genesis import BLUEPRINT
from is_db_bootstrap.blueprints.novel_genesis.graph import (
    NODE_PROPERTIES,
    RELATIONSHIPS,
    check_relationship,
)
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change, LockHolder
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)


@pytest.fixture
def query(neo4j_url):
    """A plain client of the same server."""
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    ) as driver:
        yield lambda text, **p: [dict(r) for r in driver.execute_query(text, p).records]


@pytest.fixture
def store(neo4j_url, tmp_path):
    """A bootstrapper over the files that a test names; each call rewrites the folder."""
    opened = []

    def build(
        files: dict[str, str],
        *,
        blueprint: str = "mine",
        timing: Timing | None = None,
        seed: bool = False,
        **options,
    ) -> Neo4jBootstrapper:
        for old in tmp_path.glob("*.cypher"):
            old.unlink()
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        made = Neo4jBootstrapper(
            neo4j_url,
            Blueprint(blueprint, "test", cypher=tmp_path, **options),
            timing=timing,
            seed=seed,
        )
        opened.append(made)
        made.ping(10)
        return made

    yield build
    for each in opened:
        each.close()


@pytest.fixture
def novel_genesis(neo4j_url):
    made = Neo4jBootstrapper(
        neo4j_url,
        Blueprint("novel_genesis", "test", cypher=files.cypher("novel_genesis")),
        timing=Timing(connect_timeout_s=60),
    )
    yield made
    made.close()


def run(store: Neo4jBootstrapper) -> list[str]:
    done = []
    for change in store.plan().changes:
        store.apply(change)
        done.append(change.name)
    return done


def recorded(query) -> list[str]:
    return [
        r["s"]
        for r in query(
            "MATCH (m:__Neo4jMigration) WHERE m.source IS NOT NULL RETURN m.source AS s ORDER "
            "BY m.version"
        )
    ]


# --- novel_genesis


@both
def test_ng_14_eight_constraints_and_nine_indexes_are_online(novel_genesis, query):
    plan = novel_genesis.plan()
    assert [c.name for c in plan.changes] == ["V001__constraints.cypher", "V002__indexes.cypher"]
    assert [c.name for c in plan.skipped] == ["V003__existence_and_keys.cypher"]
    run(novel_genesis)
    constraints = query("SHOW CONSTRAINTS YIELD name, labelsOrTypes, properties")
    mine = {
        r["name"]: (*r["labelsOrTypes"], *r["properties"])
        for r in constraints
        if "__Neo4j" not in r["name"]
    }
    assert mine == {
        "unique_novel_novel_id": ("Novel", "novel_id"),
        "unique_character_id": ("Character", "id"),
        "unique_world_rule_id": ("WorldRule", "id"),
        "unique_event_id": ("Event", "id"),
        "unique_location_id": ("Location", "id"),
        "unique_transportation_id": ("Transportation", "id"),
        "unique_character_state_id": ("CharacterState", "id"),
        "unique_organization_id": ("Organization", "id"),
    }
    indexes = query(
        "SHOW INDEXES YIELD name, labelsOrTypes, properties, state, owningConstraint, type "
        "WHERE type <> 'LOOKUP'"
    )
    assert {r["state"] for r in indexes} == {"ONLINE"}
    own = [r for r in indexes if r["owningConstraint"] is None and "__Neo4j" not in r["name"]]
    assert {r["name"]: (*r["labelsOrTypes"], *r["properties"]) for r in own} == {
        "novel_app_id_index": ("Novel", "app_id"),
        "character_novel_index": ("Character", "novel_id"),
        "worldrule_novel_index": ("WorldRule", "novel_id"),
        "event_novel_index": ("Event", "novel_id"),
        "location_novel_index": ("Location", "novel_id"),
        "organization_novel_index": ("Organization", "novel_id"),
        "event_timestamp_index": ("Event", "timestamp"),
        "character_state_chapter_index": ("CharacterState", "chapter"),
        "location_coords_index": ("Location", "x", "y"),
    }
    assert novel_genesis.verify() == []
    assert novel_genesis.audit() == []
    assert novel_genesis.plan().changes == ()


def test_ng_14_fourteen_objects_wait_for_the_enterprise_edition():
    folder = files.cypher("novel_genesis")
    text = (folder / "V003__existence_and_keys.cypher").read_text()
    assert text.startswith("// assume that edition is enterprise\n")
    assert text.count("CREATE CONSTRAINT ") == text.count("IF NOT EXISTS") == 14


def test_ng_14_a_name_on_another_property_is_a_conflict_and_kept(novel_genesis, query):
    query("CREATE INDEX novel_app_id_index FOR (n:Novel) ON (n.title)")
    with pytest.raises(
        StoreConflict,
        match=r"novel_app_id_index of V002__indexes.cypher is declared as .*\(app_id\).*\(title\)",
    ):
        novel_genesis.plan()
    (kept,) = query("SHOW INDEXES YIELD name, properties WHERE name = 'novel_app_id_index'")
    assert kept["properties"] == ["title"]
    assert recorded(query) == []


def test_ng_15_every_listed_relationship_is_accepted_and_nothing_else():
    assert len(RELATIONSHIPS) == 11
    assert len(NODE_PROPERTIES) == 8
    for name, ends in RELATIONSHIPS.items():
        for start in ends.from_labels:
            for end in ends.to_labels:
                check_relationship(name, start, end, ends.properties)
    for wrong in (
        ("KNOWS", "Character", "Character"),
        ("USES", "Event", "Transportation"),
        ("USES", "Character", "Novel"),
        ("USES", "Character", "Transportation", ["speed"]),
    ):
        with pytest.raises(ValueError, match=wrong[0]):
            check_relationship(*wrong)
    with pytest.raises(TypeError):
        RELATIONSHIPS["KNOWS"] = RELATIONSHIPS["USES"]


# --- seed

NOVEL = SeedNode(
    "Novel", {"novel_id": "n1"}, {"title": "One", "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
)
MARA = SeedNode("Character", {"id": "c1"}, {"name": "Mara"})
SEED = {
    "seed_nodes": (NOVEL, MARA),
    "seed_relationships": (SeedRelationship("BELONGS_TO", MARA, NOVEL, {"since": 1}),),
}


@both
def test_ng_19_seeds_are_planned_when_missing_and_edits_stay(store, query):
    seeded = store({}, **SEED, seed=True)
    assert [c.kind for c in seeded.plan().changes] == ["seed"] * 3
    assert len(seeded.verify()) == 3
    run(seeded)
    query("MATCH (n:Novel) SET n.title = 'Edited'")
    assert seeded.plan().changes == ()
    assert seeded.verify() == []
    query("MATCH (c:Character) DETACH DELETE c")
    assert run(seeded) == ["Character c1", "Character c1 BELONGS_TO Novel n1"]
    (row,) = query(
        "MATCH (:Character)-[r]->(n:Novel) RETURN n.title AS title, n.created_at.year AS "
        "year, r.since AS since"
    )
    assert row == {"title": "Edited", "year": 2026, "since": 1}
    assert store({}).plan().changes == ()


def test_ng_19_the_demo_data_has_six_nodes_and_nine_relationships(neo4j_url, query):
    for expected in (15, 0):
        made = Neo4jBootstrapper(neo4j_url, BLUEPRINT.resolve({}), seed=True)
        assert sum(name.endswith(".cypher") is False for name in run(made)) == expected
        assert made.verify() == []
        made.close()
    story = "NOT n:__Neo4jMigration"
    assert query(f"MATCH (n) WHERE {story} RETURN count(n) AS n") == [{"n": 6}]
    assert query(f"MATCH (n)-[r]->() WHERE {story} RETURN count(r) AS n") == [{"n": 9}]
    for row in query(
        f"MATCH (n)-[r]->(m) WHERE {story} RETURN type(r) AS t, labels(n)[0] AS a, "
        "labels(m)[0] AS b, keys(r) AS k"
    ):
        check_relationship(row["t"], row["a"], row["b"], row["k"])


def test_a_seeded_relationship_whose_end_is_missing_fails(store):
    seeded = store({}, **SEED, seed=True)
    with pytest.raises(ChangeFailed, match="one of its nodes is missing"):
        seeded.apply(seeded.plan().changes[2])


# --- files and history


@both
def test_data_and_record_are_one_transaction(store, query):
    broken = store({"V1__a.cypher": "CREATE (:Item {n: 1});\nCREATE (:Item {n: 1 / 0});\n"})
    with pytest.raises(
        ChangeFailed, match=r"V1__a\.cypher, statement 2 \(line 2\) was refused: / by zero"
    ):
        run(broken)
    assert query("MATCH (n:Item) RETURN n") == []
    assert recorded(query) == []
    assert run(store({"V1__a.cypher": "CREATE (:Item {n: 1});\nCREATE (:Item {n: 2});\n"})) == [
        "V1__a.cypher"
    ]
    assert len(query("MATCH (n:Item) RETURN n")) == 2


@both
def test_broken_cypher_in_the_second_of_three_files_keeps_the_first_and_does_not_run_the_third(
    store, query
):
    good = {
        "V1__a.cypher": "CREATE INDEX a IF NOT EXISTS FOR (n:X) ON (n.a);",
        "V3__c.cypher": "CREATE (:Third);",
    }
    broken = store(
        {
            **good,
            "V2__b.cypher": "CREATE INDEX b IF NOT EXISTS FOR (n:X) ON (n.b);\nCREATE INDEX oops FOR;",
        }
    )
    with pytest.raises(
        ChangeFailed, match=r"V2__b\.cypher, statement 2 \(line 2\) was refused: Invalid input"
    ) as caught:
        run(broken)
    assert caught.value.subject == "V2__b.cypher"
    assert recorded(query) == ["V1__a.cypher"]
    assert query("MATCH (n:Third) RETURN n") == []
    assert run(
        store({**good, "V2__b.cypher": "CREATE INDEX b IF NOT EXISTS FOR (n:X) ON (n.b);"})
    ) == [
        "V2__b.cypher",
        "V3__c.cypher",
    ]


@both
def test_the_old_syntax_of_a_constraint_is_refused_by_the_server_with_its_line(store, query):
    """`check` takes `ON … ASSERT`, which servers before Neo4j 5 took."""
    old = "CREATE (:X);\nCREATE CONSTRAINT old ON (n:X) ASSERT n.id IS UNIQUE;"
    with pytest.raises(
        ChangeFailed, match=r"V1__a\.cypher, statement 2 \(line 2\) was refused: .*ASSERT"
    ) as caught:
        run(store({"V1__a.cypher": old}))
    assert caught.value.subject == "V1__a.cypher"
    assert recorded(query) == []
    assert query("SHOW CONSTRAINTS YIELD name WHERE name = 'old' RETURN name") == []


def test_a_changed_applied_file_is_a_conflict_that_names_both_checksums(store):
    run(store({"V001__a.cypher": "CREATE (:A);\n"}))
    with pytest.raises(
        StoreConflict, match=r"V001__a\.cypher was changed .*1184523404, now \d+"
    ) as caught:
        store({"V001__a.cypher": "CREATE (:B);\n"}).plan()
    assert "Restore the text" in caught.value.hint


def test_a_flyway_compatible_checksum_is_accepted(store, query):
    from is_db_bootstrap.stores.neo4j.cypher_text import flyway_checksum

    text = {"V001__a.cypher": "CREATE (:A);\nCREATE (:B);\n"}
    run(store(text))
    query(
        "MATCH (m:__Neo4jMigration {version: '001'}) SET m.checksum = $c",
        c=flyway_checksum(text["V001__a.cypher"]),
    )
    assert store(text).plan().changes == ()


def test_a_file_inserted_before_an_applied_one_is_a_conflict(store):
    run(store({"V002__b.cypher": "CREATE (:B);"}))
    with pytest.raises(
        StoreConflict, match=r"V001__a\.cypher was never applied, but V002__b\.cypher behind it was"
    ) as caught:
        store({"V001__a.cypher": "CREATE (:A);", "V002__b.cypher": "CREATE (:B);"}).plan()
    assert "above 002" in caught.value.hint


def test_a_file_whose_assumption_holds_now_is_inserted_into_the_chain(store, query):
    texts = {
        "V1__a.cypher": "CREATE (:A);",
        "V2__b.cypher": "// assume that version is lt 5\nCREATE (:B);",
        "V3__c.cypher": "CREATE (:C);",
    }
    assert run(store(texts)) == ["V1__a.cypher", "V3__c.cypher"]
    texts["V2__b.cypher"] = "// assume that version is ge 5\nCREATE (:B);"
    assert run(store(texts)) == ["V2__b.cypher"]
    (chain,) = query(
        "MATCH p = (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*3]->() RETURN [n "
        "IN nodes(p) | n.version] AS v"
    )
    assert chain["v"] == ["BASELINE", "1", "2", "3"]
    assert len(query("MATCH ()-[r:MIGRATED_TO]->() RETURN r")) == 3


def test_a_history_that_goes_on_is_ahead(store, query):
    texts = {"V1__a.cypher": "CREATE (:A);", "V2__b.cypher": "CREATE (:B);"}
    run(store(texts))
    plan = store({"V1__a.cypher": texts["V1__a.cypher"]}).plan()
    assert plan.ahead
    assert plan.changes == ()
    assert "V2__b.cypher" in plan.notes[0]


LINE = {"V1__a.cypher": "CREATE (:A);", "V2__b.cypher": "CREATE (:B);"}
#: The database's line, the blueprint's line, and what the conflict must name of each.
DIVERGED = {
    "another file behind the common ones": (
        {"V4__d.cypher": "CREATE (:D);"},
        {"V3__c.cypher": "CREATE (:C);"},
        "V4__d.cypher",
        "V3__c.cypher",
    ),
    "another file in front of ours": (
        {"V3__c.cypher": "CREATE (:C);"},
        {"V4__d.cypher": "CREATE (:D);"},
        "V3__c.cypher",
        "V4__d.cypher",
    ),
    "a version between, and both go on": (
        {"V3__c.cypher": "CREATE (:C);", "V5__e.cypher": "CREATE (:E);"},
        {"V4__d.cypher": "CREATE (:D);", "V5__e.cypher": "CREATE (:E);"},
        "V3__c.cypher",
        "V4__d.cypher",
    ),
    "other text under one number": (
        {"V3__c.cypher": "CREATE (:C);", "V4__d.cypher": "CREATE (:D);"},
        {"V3__c.cypher": "CREATE (:X);"},
        "recorded checksum",
        "V3__c.cypher",
    ),
    "a repeatable file with a text that never ran": (
        {"R3__r.cypher": "MERGE (:R);", "V4__d.cypher": "CREATE (:D);"},
        {"R3__r.cypher": "MERGE (:X);"},
        "V4__d.cypher",
        "R3__r.cypher",
    ),
    "a file in front of one that this server does not take": (
        {"V3__c.cypher": "CREATE (:C);"},
        {"V4__d.cypher": "// assume that version is lt 5\nCREATE (:D);"},
        "V3__c.cypher",
        "mine does not know",
    ),
    "a file that this server takes and did not get": (
        {"V4__d.cypher": "CREATE (:D);"},
        {"V3__c.cypher": "// assume that version is ge 5\nCREATE (:C);"},
        "V4__d.cypher",
        "V3__c.cypher",
    ),
}


@pytest.mark.parametrize("case", DIVERGED)
def test_a_history_that_diverged_is_a_conflict_that_names_both_sides(store, query, case):
    theirs, ours, named_there, named_here = DIVERGED[case]
    run(store(LINE | theirs))
    before = recorded(query)
    with pytest.raises(StoreConflict) as caught:
        store(LINE | ours).plan()
    assert named_there in caught.value.message
    assert named_here in caught.value.message
    assert recorded(query) == before


AHEAD = {
    "a repeatable file whose old text ran once": {"R3__r.cypher": "MERGE (:Old);"},
    "a file that this server does not take": {
        "V3__c.cypher": "// assume that version is lt 5\nCREATE (:C);"
    },
}


@pytest.mark.parametrize("case", AHEAD)
def test_a_history_that_contains_ours_and_goes_on_is_ahead_also_with(store, case):
    if "R3__r.cypher" in AHEAD[case]:
        run(store(LINE | AHEAD[case]))
        run(store(LINE | {"R3__r.cypher": "MERGE (:New);", "V4__d.cypher": "CREATE (:D);"}))
    else:
        run(store(LINE | {"V4__d.cypher": "CREATE (:D);"}))
    plan = store(LINE | AHEAD[case]).plan()
    assert plan.ahead
    assert plan.changes == ()


def test_a_file_that_is_gone_in_the_middle_is_a_conflict(store):
    run(store({"V1__a.cypher": "CREATE (:A);", "V2__b.cypher": "CREATE (:B);"}))
    with pytest.raises(
        StoreConflict, match=r"V1__a\.cypher \(version 1\), which mine does not know"
    ):
        store({"V2__b.cypher": "CREATE (:B);"}).plan()


def test_another_blueprints_database_is_a_conflict_that_names_both(store):
    run(store({"V1__a.cypher": "CREATE (:A);"}, blueprint="theirs"))
    with pytest.raises(StoreConflict, match="carries the blueprint theirs, not mine"):
        store({"V1__a.cypher": "CREATE (:A);"}).plan()


@both
def test_a_repeatable_file_runs_again_when_its_text_changes(store, query):
    first, second = "MERGE (a:A) SET a.n = 1;", "MERGE (a:A) SET a.n = 2;"
    assert run(store({"R1__a.cypher": first})) == ["R1__a.cypher"]
    changed = store({"R1__a.cypher": second})
    assert [c.detail for c in changed.plan().changes] == ["a (changed)"]
    run(changed)
    assert query("MATCH (a:A) RETURN a.n AS n") == [{"n": 2}]
    assert changed.plan().changes == ()
    assert run(store({"R1__a.cypher": first})) == ["R1__a.cypher"]
    assert len(query("MATCH (m:__Neo4jMigration)-[r:REPEATED]->(m) RETURN r")) == 2


def test_an_unmet_assertion_is_a_conflict_before_anything_ran(store, query):
    with pytest.raises(StoreConflict, match="assert that edition is enterprise"):
        store(
            {
                "V1__a.cypher": "CREATE (:A);",
                "V2__b.cypher": "// assert that edition is enterprise\nCREATE (:B);",
            }
        ).plan()
    assert query("MATCH (n) RETURN n") == []


def test_enterprise_files_are_skipped_when_the_blueprint_turns_them_off(store):
    plan = store(
        {"V1__a.cypher": "// assume that edition is enterprise\nCREATE (:A);"}, enterprise=False
    ).plan()
    assert [c.name for c in plan.skipped] == ["V1__a.cypher"]
    assert "enterprise files are off" in plan.skipped[0].detail


def test_batched_statements_run_by_themselves(store, query):
    run(
        store(
            {
                "V1__a.cypher": "UNWIND range(1, 20) AS i CALL (i) { MERGE (:Item {n: i}) } IN TRANSACTIONS OF 5 ROWS;"
            }
        )
    )
    assert query("MATCH (n:Item) RETURN count(n) AS n") == [{"n": 20}]
    assert recorded(query) == ["V1__a.cypher"]


def test_statements_that_declare_nothing_are_said_to_be_unverified(store):
    data = store({"V1__a.cypher": "CREATE (:A);"})
    run(data)
    assert "V1__a.cypher (1)" in data.plan().notes[0]


# --- schema objects


@both
def test_duplicates_that_block_a_constraint_are_listed_before_anything_ran(store, query):
    query("UNWIND range(1, 7) AS g UNWIND range(0, g % 3 + 1) AS i CREATE (:X {p: 'v' + g})")
    blocked = store(
        {"V1__a.cypher": "CREATE CONSTRAINT u IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"}
    )
    with pytest.raises(
        StoreConflict,
        match=r"constraint u on \(:X\) \(p\) is blocked by data: more than 5 groups of nodes share p\. 4 nodes share p 'v2'",
    ) as caught:
        blocked.plan()
    assert caught.value.detail.count(" share ") == 5
    assert caught.value.detail.endswith("and more.")
    with pytest.raises(StoreConflict, match="4 nodes share p 'v2'"):
        blocked.apply(Change("V1__a.cypher", "cypher"))
    assert recorded(query) == []


@both
def test_duplicate_relationships_are_listed_too(store, query):
    query("CREATE (a:X), (b:X), (a)-[:R {p: 1}]->(b), (a)-[:R {p: 1}]->(b)")
    with pytest.raises(StoreConflict, match="2 relationships share p 1"):
        store(
            {
                "V1__a.cypher": "CREATE CONSTRAINT u IF NOT EXISTS FOR ()-[r:R]-() REQUIRE r.p IS UNIQUE;"
            }
        ).plan()


@both
def test_a_failed_index_is_reported_with_the_servers_reason_and_not_recorded(store, query):
    query("CREATE (:X {p: $long})", long="x" * 40_000)
    failing = store({"V1__a.cypher": "CREATE INDEX i IF NOT EXISTS FOR (n:X) ON (n.p);"})
    with pytest.raises(ChangeFailed, match=r"index i is FAILED: .*too large") as caught:
        run(failing)
    assert "DROP INDEX i" in caught.value.hint
    assert recorded(query) == []
    (drift,) = failing.verify()
    assert (drift.object, drift.actual) == ("i", "FAILED")


def test_an_index_that_is_not_online_in_time_fails_without_its_record(store, query):
    query(
        "UNWIND range(1, 60000) AS i CREATE (:X {q: reduce(s = '', w IN range(1, 40) | s + ' "
        "w' + (i * w))})"
    )
    slow = store(
        {"V1__a.cypher": "CREATE FULLTEXT INDEX i IF NOT EXISTS FOR (n:X) ON EACH [n.q];"},
        timing=Timing(index_timeout_s=0),
    )
    with pytest.raises(ChangeFailed, match="index i is POPULATING") as caught:
        run(slow)
    assert "IS_DB_BOOTSTRAP_INDEX_TIMEOUT" in caught.value.hint
    assert recorded(query) == []
    query("CALL db.awaitIndexes(120)")
    assert run(slow) == ["V1__a.cypher"]


def test_an_equivalent_object_under_another_name_is_accepted_and_said(store, query):
    query("CREATE CONSTRAINT theirs FOR (n:X) REQUIRE n.p IS UNIQUE")
    ours = store(
        {"V1__a.cypher": "CREATE CONSTRAINT ours IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"}
    )
    assert "constraint ours is there under the name theirs, which is accepted." in ours.plan().notes
    run(ours)
    assert ours.verify() == []
    assert ours.audit() == []
    assert "theirs" in ours.plan().notes[0]


@both
def test_an_index_in_the_way_of_a_constraint_is_a_conflict(store, query):
    query("CREATE INDEX theirs FOR (n:X) ON (n.p)")
    with pytest.raises(StoreConflict, match="index theirs is on the same properties"):
        store(
            {
                "V1__a.cypher": "CREATE CONSTRAINT ours IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;"
            }
        ).plan()


@both
def test_an_index_that_has_the_name_and_properties_of_a_constraint_is_refused_and_kept(
    store, query
):
    query("CREATE INDEX ours FOR (n:X) ON (n.p)")
    with pytest.raises(
        StoreConflict, match=r"ours of V1__a\.cypher is declared as UNIQUENESS constraint"
    ) as caught:
        run(store({"V1__a.cypher": "CREATE CONSTRAINT ours FOR (n:X) REQUIRE n.p IS UNIQUE;"}))
    assert "killed while it makes a constraint leaves such an index" in caught.value.hint
    assert [r["name"] for r in query("SHOW INDEXES YIELD name WHERE name = 'ours'")] == ["ours"]
    assert recorded(query) == []


def test_a_file_may_drop_and_create_a_name_anew(store, query):
    query("CREATE INDEX i FOR (n:X) ON (n.old)")
    new = store(
        {
            "V1__a.cypher": "DROP INDEX i IF EXISTS;\nCREATE INDEX i IF NOT EXISTS FOR (n:X) ON (n.new);"
        }
    )
    run(new)
    assert new.verify() == []


def test_an_unguarded_statement_is_harmless_after_a_crash_before_its_record(store):
    text = {
        "V1__a.cypher": "CREATE CONSTRAINT c FOR (n:X) REQUIRE n.p IS UNIQUE;\nCREATE INDEX i FOR (n:X) ON (n.q);"
    }
    once = store(text)
    (change,) = once.plan().changes
    file = once._files[0]
    with once._database.session() as session:
        for number, statement in enumerate(file.statements, 1):
            once._file_run._statements.apply(session, file, change, number, statement, unsure=False)
    assert run(store(text)) == ["V1__a.cypher"]


@pytest.fixture
def held(neo4j_url):
    """A plain client's transaction, open until the test ends."""
    url = StoreUrl.parse("neo4j", neo4j_url)
    with (
        neo4j.GraphDatabase.driver(
            f"bolt://{url.hosts}", auth=(url.username, url.password)
        ) as driver,
        driver.session() as session,
        session.begin_transaction() as transaction,
    ):
        yield transaction


def rolled_back(query, left: set[str]) -> None:
    """Return when the server has dropped the indexes of a transaction whose client was killed."""
    deadline = time.monotonic() + 60
    while {r["name"] for r in query("SHOW INDEXES YIELD name WHERE name IN ['a', 'b']")} != left:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def blocked(query) -> None:
    """Return when a transaction waits for a lock."""
    deadline = time.monotonic() + 60
    while not query(
        "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@both
def test_a_deadlock_is_busy_and_the_file_succeeds_when_tried_again(store, query, held):
    query("UNWIND [1, 2] AS n CREATE (:X {n: n})")
    held.run("MATCH (x:X {n: 1}) SET x.by = 'held'").consume()
    ours = store(
        {"V1__a.cypher": "MATCH (x:X {n: 2}) SET x.by = 'us';\nMATCH (x:X {n: 1}) SET x.by = 'us';"}
    )
    raised = []

    def apply() -> None:
        try:
            ours.apply(Change("V1__a.cypher", "cypher"))
        except StoreBusy as exc:
            raised.append(exc)

    thread = threading.Thread(target=apply)
    thread.start()
    blocked(query)
    held.run("MATCH (x:X {n: 2}) SET x.by = 'held'").consume()
    held.commit()
    thread.join(20)
    assert "DeadlockDetected" in raised[0].message
    assert (raised[0].subject, recorded(query)) == ("V1__a.cypher", [])
    assert run(ours) == ["V1__a.cypher"]


@both
@pytest.mark.parametrize(
    ("before", "left"),
    [("", set()), ("DROP INDEX other IF EXISTS;\n", {"a"})],
    ids=["in one transaction", "one by one"],
)
def test_a_process_killed_between_a_statement_and_the_record_is_completed_by_the_next(
    store, query, held, neo4j_url, tmp_path, *, before, left
):
    held.run("CREATE (:B)").consume()  # keeps the last statement waiting
    text = {
        "V1__a.cypher": f"{before}CREATE CONSTRAINT a FOR (n:A) REQUIRE n.p IS UNIQUE;\n"
        "CREATE CONSTRAINT b FOR (n:B) REQUIRE n.p IS UNIQUE;"
    }
    again = store(text)
    script = f"""
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
store = Neo4jBootstrapper({neo4j_url!r}, Blueprint("mine", "", cypher=Path({str(tmp_path)!r})))
store.apply(store.plan().changes[0])
"""
    child = subprocess.Popen([sys.executable, "-c", script])
    blocked(query)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    held.rollback()
    rolled_back(query, left)
    shown = query("SHOW CONSTRAINTS YIELD name, labelsOrTypes")
    made = {row["name"] for row in shown if not row["labelsOrTypes"][0].startswith("__")}
    assert made == left
    assert recorded(query) == []
    assert run(again) == ["V1__a.cypher"]
    assert again.verify() == []


@both
def test_existence_constraints_on_community_are_a_conflict_with_the_way_out(store):
    with pytest.raises(StoreConflict, match="requires the Enterprise Edition") as caught:
        run(
            store(
                {
                    "V1__a.cypher": "CREATE CONSTRAINT e IF NOT EXISTS FOR (n:X) REQUIRE n.p IS NOT NULL;"
                }
            )
        )
    assert "assume that edition is enterprise" in caught.value.hint


@both
def test_every_kind_of_index_is_verified(store, query):
    kinds = store(
        {
            "V1__a.cypher": """
        CREATE TEXT INDEX t IF NOT EXISTS FOR (n:X) ON (n.p);
        CREATE POINT INDEX p IF NOT EXISTS FOR (n:X) ON (n.p);
        CREATE FULLTEXT INDEX f IF NOT EXISTS FOR (n:X|Y) ON EACH [n.p, n.q];
        CREATE INDEX r IF NOT EXISTS FOR ()-[r:R]-() ON (r.p);
        CREATE VECTOR INDEX v IF NOT EXISTS FOR (n:X) ON (n.e)
          OPTIONS {indexConfig: {`vector.dimensions`: 8, `vector.similarity_function`: 'cosine'}};
    """
        }
    )
    run(kinds)
    assert kinds.verify() == []
    query("DROP INDEX v")
    query(
        "CREATE VECTOR INDEX v FOR (n:X) ON (n.e) OPTIONS {indexConfig: {`vector.dimensions`: "
        "16, `vector.similarity_function`: 'cosine'}}"
    )
    query("DROP INDEX t")
    drifts = {d.object: d for d in kinds.verify()}
    assert set(drifts) == {"t", "v"}
    assert drifts["t"].message == "is missing"
    assert "vector.dimensions: 16" in drifts["v"].actual


@both
def test_undeclared_objects_are_findings(store, query):
    query("CREATE INDEX stray FOR (n:X) ON (n.p)")
    mine = store({"V1__a.cypher": "CREATE (:A);"})
    run(mine)
    (finding,) = mine.audit()
    assert (finding.object, finding.kind, finding.finding) == ("stray", "index", True)


# --- the lock


@both
def test_the_history_kept_under_the_lock_is_the_one_that_a_new_run_reads(store, query):
    """Versioned, inserted-behind and repeatable files; the kept history must say what a reading
    says.
    """
    files_ = {
        "V1__a.cypher": "CREATE (:A);",
        "R2__b.cypher": "MERGE (:B);",
        "V3__c.cypher": "CREATE INDEX i FOR (n:X) ON (n.p);",
    }
    run(store({"R2__b.cypher": "MERGE (:Old);", "V1__a.cypher": "CREATE (:A);"}))
    mine = store(files_)
    assert mine.plan().changes
    lock = mine.try_lock("one")
    assert run(mine) == ["R2__b.cypher", "V3__c.cypher"]
    kept, mine._file_run.history = mine._file_run.history, None
    mine.plan()
    assert kept == mine._file_run.history
    lock.release()
    assert run(store(files_)) == []


@both
def test_what_another_run_recorded_before_the_lock_is_not_applied_again(store, query):
    mine = store({"V1__a.cypher": "CREATE (:A);"})
    (change,) = mine.plan().changes
    run(store({"V1__a.cypher": "CREATE (:A);"}))
    lock = mine.try_lock("one")
    assert "already" in mine.apply(change)
    lock.release()
    assert len(query("MATCH (n:A) RETURN n")) == 1


@both
def test_the_lock_excludes_tells_and_is_released(store):
    one, other = store({}), store({})
    lock = one.try_lock("run one on web-1")
    holder = other.try_lock("run two")
    assert isinstance(holder, LockHolder)
    assert holder.who == "run one on web-1"
    assert abs((datetime.now(UTC) - holder.since).total_seconds()) < 60
    shown = one.status().lock
    assert replace(shown, lease_left_s=None) == holder
    assert 0 < shown.lease_left_s <= Timing().lease_s
    assert lock.confirm()
    assert lock.release()
    assert not lock.release()
    assert other.try_lock("run two").release()


def test_a_lapsed_lease_is_taken_over_and_noticed(store):
    one, other = store({}, timing=Timing(lease_s=0.2)), store({})
    lapsed = one.try_lock("dead")
    time.sleep(0.3)
    taken = other.try_lock("alive")
    assert not isinstance(taken, LockHolder)
    assert not lapsed.confirm()
    assert not lapsed.release()
    assert taken.confirm()


def test_only_one_of_many_gets_the_lock(store):
    stores = [store({}) for _ in range(6)]
    stores[0].try_lock("first").release()
    got = []
    threads = [threading.Thread(target=lambda s=s: got.append(s.try_lock("x"))) for s in stores]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sum(not isinstance(g, LockHolder) for g in got) == 1


def test_the_lock_of_neo4j_migrations_is_told_and_never_deleted(store, query):
    query("CREATE (:__Neo4jMigrationsLock {id: 'x', name: 'John Doe'})")
    holder = store({}).try_lock("me")
    assert isinstance(holder, LockHolder)
    assert "without a lease" in holder.who
    assert len(query("MATCH (l:__Neo4jMigrationsLock) RETURN l")) == 1


# --- reaching the server


def changed(url: str, **parts: str) -> StoreUrl:
    return replace(StoreUrl.parse("neo4j", url), **parts)


def ping(url: StoreUrl | str):
    store = Neo4jBootstrapper(url, Blueprint("mine", "test"), timing=Timing(connect_timeout_s=2))
    try:
        return store.ping(5)
    finally:
        store.close()


@both
def test_ping_tells_version_and_edition_also_when_routed(neo4j_url):
    for scheme in ("bolt", "neo4j"):
        info = ping(changed(neo4j_url, scheme=scheme))
        assert info.edition == "community"
        assert int(info.version.split(".")[0]) >= 5


@both
def test_a_missing_database_is_a_conflict_with_the_way_out(neo4j_url):
    with pytest.raises(StoreConflict, match="no such database") as caught:
        ping(changed(neo4j_url, database="nowhere"))
    assert "CREATE DATABASE" in caught.value.hint


def plain_login(url: str, password: str) -> None:
    parsed = StoreUrl.parse("neo4j", url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{parsed.hosts}", auth=(parsed.username, password)
    ) as driver:
        driver.verify_connectivity()


@both
def test_a_run_tries_a_wrong_password_once_so_that_two_wrong_ones_do_not_lock_the_user(neo4j_url):
    wrong = Neo4jBootstrapper(changed(neo4j_url, password="wrong-pw1"), Blueprint("mine", "test"))
    result = BootstrapOrchestrator([wrong]).run()
    assert (result.exit_code, result.stores[0].error.kind) == (5, "access_denied")
    with pytest.raises(neo4j.exceptions.AuthError, match="unauthorized"):
        plain_login(neo4j_url, "wrong-pw2")  # the second; a third would lock
    assert ping(neo4j_url)


@both
def test_a_user_whom_others_have_locked_is_denied_with_the_reason(neo4j_url):
    for _ in range(3):
        with pytest.raises(neo4j.exceptions.AuthError):
            plain_login(neo4j_url, "wrong-pw1")
    with pytest.raises(AccessDenied, match="AuthenticationRateLimit") as caught:
        ping(neo4j_url)
    assert "before us" in caught.value.hint
    time.sleep(5.5)
    assert ping(neo4j_url)


@both
def test_a_password_that_must_be_changed_is_denied_with_the_way_out(neo4j_url, query):
    query("CREATE OR REPLACE USER fresh SET PASSWORD 'given-pw1' CHANGE REQUIRED")
    with pytest.raises(AccessDenied, match="CredentialsExpired") as caught:
        ping(changed(neo4j_url, username="fresh", password="given-pw1"))
    query("DROP USER fresh")
    assert "ALTER CURRENT USER SET PASSWORD" in caught.value.hint


@both
def test_a_probe_that_the_server_ends_for_its_time_is_unavailable_so_that_it_is_tried_again(store):
    looking = store({})
    slow = "UNWIND range(1, 100000000000) AS i WITH i WHERE i < 0 RETURN i"
    with pytest.raises(StoreUnavailable, match="could not answer a query yet"), looking._errors():
        looking._database._ask(looking._database.driver, slow, 0.2)


@pytest.mark.parametrize("scheme", ["bolt+s", "bolt+ssc", "neo4j+s", "neo4j+ssc"])
def test_tls_against_a_plain_server_is_denied(neo4j_url, scheme):
    with pytest.raises(AccessDenied, match="TLS to") as caught:
        ping(changed(neo4j_url, scheme=scheme))
    assert f"write {scheme.partition('+')[0]}://" in caught.value.hint


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_nobody_listening_is_unavailable(scheme):
    with pytest.raises(StoreUnavailable, match="does not answer"):
        ping(f"{scheme}://neo4j:x@127.0.0.1:1")


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n"]
)
def test_another_kind_of_server_is_a_configuration_error(scheme, answer):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(ConfigurationError, match="does not speak Bolt"):
            ping(f"{scheme}://neo4j:x@127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_a_real_redis_is_recognised(redis_url, scheme):
    with pytest.raises(ConfigurationError, match="answers Redis"):
        ping(f"{scheme}://neo4j:x@{StoreUrl.parse('redis', redis_url).hosts}")


def test_a_real_postgres_is_recognised(postgres_url):
    with pytest.raises(ConfigurationError, match="answers PostgreSQL"):
        ping(f"bolt://neo4j:x@{StoreUrl.parse('postgres', postgres_url).hosts}")


def test_a_silent_server_is_unavailable_within_the_connect_timeout():
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            ping(f"bolt://neo4j:x@127.0.0.1:{server.getsockname()[1]}")
        # Behind the time of the connection, two looks at what is there take a second each.
        assert time.monotonic() - began < 10


@both
def test_cancel_from_another_thread_ends_a_running_statement(store, query):
    slow = store(
        {
            "V1__a.cypher": "UNWIND range(1, 100000000000) AS i WITH i WHERE i < 0 CREATE (:A {i: i});"
        }
    )
    (change,) = slow.plan().changes
    threading.Timer(1.0, slow.cancel).start()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="ended on the server"):
        slow.apply(change)
    assert time.monotonic() - began < 10
    assert recorded(query) == []
    slow.cancel()
    slow.close()
    slow.close()


def test_nothing_is_written_by_looking(store, query):
    looked = store({"V1__a.cypher": "CREATE (:A);"})
    looked.plan()
    looked.verify()
    looked.audit()
    looked.status()
    assert query("MATCH (n) RETURN n") == []
    assert query("SHOW CONSTRAINTS") == []


def test_the_files_are_where_the_package_says(novel_genesis):
    assert isinstance(files.cypher("novel_genesis"), Path)
    assert novel_genesis.status().head == "V002__indexes.cypher"
