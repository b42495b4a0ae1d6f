"""Cypher files as people write them and as neo4j-migrations takes them, on a real server."""

from __future__ import annotations

from pathlib import Path

import neo4j
import pytest

from commands import command
from is_db_bootstrap import migrate_cypher
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ChangeFailed, ConfigurationError, StoreConflict
from is_db_bootstrap.results import LockHolder, RecordChange
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j import begun
from is_db_bootstrap.stores.neo4j import lock as neo4j_lock
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.lock import Claim, Lease

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)

UNIQUE = "CREATE CONSTRAINT {} IF NOT EXISTS FOR (n:{}) REQUIRE n.p IS UNIQUE;\n"
KEY = "CREATE CONSTRAINT {} IF NOT EXISTS FOR (n:{}) REQUIRE n.p IS NODE KEY;\n"


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
    """A bootstrapper over the files that a test names, beside those of calls before."""
    opened = []

    def build(files: dict[str, str], **options) -> Neo4jBootstrapper:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        made = Neo4jBootstrapper(
            neo4j_url,
            Blueprint("mine", "test", cypher=tmp_path, **options),
            timing=Timing(connect_timeout_s=60),
        )
        opened.append(made)
        made.ping(60)
        return made

    yield build
    for each in opened:
        each.close()


def run(store: Neo4jBootstrapper) -> list[str]:
    changes = store.plan().changes
    for change in changes:
        store.apply(change)
    return [change.name for change in changes]


def recorded(query) -> list[str]:
    rows = query(
        "MATCH (m:__Neo4jMigration) WHERE m.source IS NOT NULL AND m.migrationTarget IS NULL "
        "RETURN m.source AS s ORDER BY m.version"
    )
    return [row["s"] for row in rows]


# --- which files, and in which order


def test_files_of_sub_folders_are_applied_in_the_order_of_their_numbers(store, query):
    files = {
        "V003__c.cypher": "CREATE (:C);\n",
        "2026/V001__a.cypher": "CREATE (:A);\n",
        "2026/11/V002__b-b.cypher": "CREATE (:B);\n",
    }
    first = store(files)
    assert run(first) == ["V001__a.cypher", "V002__b-b.cypher", "V003__c.cypher"]
    assert run(store({})) == []
    assert recorded(query) == ["V001__a.cypher", "V002__b-b.cypher", "V003__c.cypher"]


def test_of_two_files_of_one_version_the_server_takes_one(store, query):
    files = {
        "V1__ce.cypher": "// assume that edition is community\n" + UNIQUE.format("k", "K"),
        "V1__ee.cypher": "// assume that edition is enterprise\n" + KEY.format("k", "K"),
    }
    first = store(files)
    assert [change.name for change in first.plan().skipped] == ["V1__ee.cypher"]
    assert run(first) == ["V1__ce.cypher"]
    again = store({})
    assert again.plan().changes == ()
    assert again.verify() == []
    assert again.status().recorded == again.status().head == "V1__ce.cypher"


def test_two_files_of_one_version_whose_assumptions_both_hold_are_a_conflict(store):
    twice = store(
        {
            "V1__one.cypher": "// assume that edition is community\nCREATE (:A);\n",
            "V1__other.cypher": "// assume that version is ge 5\nCREATE (:A);\n",
        }
    )
    with pytest.raises(StoreConflict, match=r"V1__one.* and V1__other.* have the same version 1"):
        twice.plan()


def test_the_database_answers_the_questions_of_files(store, query):
    files = {
        "old/V1__a.cypher": "// assume q' MATCH (n:Version) RETURN count(n) > 0\nCREATE (:Old);\n",
        "new/V1__a.cypher": "// assume q' MATCH (n:Version) RETURN count(n) = 0\nCREATE (:New);\n",
    }
    assert run(store(files)) == ["V1__a.cypher"]
    query("CREATE (:Version)")  # now the other one would be taken
    assert run(store({})) == []
    assert query("MATCH (n:New) RETURN count(n) AS n") == [{"n": 1}]
    unanswered = store({"V2__b.cypher": "// assert q' RETURN 1\nCREATE (:B);\n"})
    with pytest.raises(StoreConflict, match="was not answered by true or false"):
        unanswered.plan()
    untrue = store({"V2__b.cypher": "// assert q' CREATE (:Trial) RETURN false\nCREATE (:B);\n"})
    with pytest.raises(StoreConflict, match=r"V2__b\.cypher asks: assert q'"):
        untrue.plan()
    assert query("MATCH (n:Trial) RETURN count(n) AS n") == [{"n": 0}]


def test_line_ends_are_named_as_the_cause_and_do_not_count_with_autocrlf(store):
    lf = "CREATE (:A {text: 'a\nb'});\nCREATE (:B);\n"
    assert run(store({"V1__a.cypher": lf})) == ["V1__a.cypher"]
    crlf = {"V1__a.cypher": lf.replace("\n", "\r\n")}
    with pytest.raises(StoreConflict, match=r"Nothing but the line ends of V1__a\.cypher"):
        store(crlf).plan()
    assert run(store(crlf, cypher_autocrlf=True)) == []


def test_a_byte_order_mark_is_named_as_the_cause(store):
    run(store({"V1__a.cypher": "CREATE (:A);\n"}))
    with pytest.raises(StoreConflict, match="Nothing but the byte order mark"):
        store({"V1__a.cypher": "\ufeffCREATE (:A);\n"}).plan()


# --- callbacks

CALLBACKS = {
    "afterMigrate__2.cypher": "MATCH (n:Log) SET n.told = n.told + 'd';\n",
    "afterMigrate__1.cypher": "MATCH (n:Log) SET n.told = n.told + 'c';\n",
    "sub/beforeMigrate.cypher": "MATCH (n:Log) SET n.told = n.told + 'b';\n",
    "beforeFirstUse.cypher": "MERGE (n:Log) SET n.told = coalesce(n.told, '') + 'a';\n",
    "beforeClean.cypher": "MATCH (n:Log) SET n.told = 'wrong';\n",
}


def told(query) -> str:
    (row,) = query("MATCH (n:Log) RETURN n.told AS told")
    return row["told"]


def test_callbacks_run_around_the_files_of_a_run(store, query):
    first = store({**CALLBACKS, "V1__a.cypher": "MATCH (n:Log) SET n.told = n.told + '1';\n"})
    assert "beforeClean.cypher" in " ".join(first.plan().notes)
    run(first)
    assert told(query) == "ab1cd"
    assert run(store({})) == []
    run(store({"V2__b.cypher": "MATCH (n:Log) SET n.told = n.told + '2';\n"}))
    assert told(query) == "ab1cdab2cd"
    assert recorded(query) == ["V1__a.cypher", "V2__b.cypher"]


def test_callbacks_behind_the_files_are_due_until_the_last_has_run(store, query):
    """A run that ends between a record and these callbacks leaves them to the next run."""
    cut_off = store({**CALLBACKS, "V1__a.cypher": "CREATE (:A);\n"})
    for change in cut_off.plan().changes[:4]:
        cut_off.apply(change)
    assert told(query) == "abc"
    following = store({})
    assert run(following) == ["afterMigrate__1.cypher", "afterMigrate__2.cypher"]
    assert run(store({})) == []


def test_a_callback_that_fails_is_named_and_nothing_of_it_stays(store, query):
    failing = store(
        {"beforeMigrate.cypher": "CREATE (:B);\nRETURN 1 / 0;\n", "V1__a.cypher": "CREATE (:A);\n"}
    )
    with pytest.raises(ChangeFailed, match=r"beforeMigrate\.cypher, statement 2"):
        run(failing)
    assert query("MATCH (n:A|B) RETURN count(n) AS n") == [{"n": 0}]


# --- several kinds of statements in one file

MIXED = (
    UNIQUE.format("u", "M") + "CREATE (:M {p: 1});\n"
    "UNWIND range(2, 4) AS i CALL (i) { CREATE (:M {p: i}) } IN TRANSACTIONS OF 1 ROWS;\n"
    "CREATE (:Counted {all: COUNT { (:M) }});\n"
)


@both
def test_schema_data_and_batches_may_share_a_file(store, query):
    assert run(store({"V1__all.cypher": MIXED})) == ["V1__all.cypher"]
    assert query("MATCH (n:Counted) RETURN n.all AS n") == [{"n": 4}]
    assert query("MATCH (m:__IsDbBootstrapBegun) RETURN m") == []
    assert store({}).verify() == []


def test_a_data_statement_beside_others_runs_once(store, query):
    """Its mark is committed with it. The statement behind it fails, and the file goes on there."""
    broken = MIXED.replace("CREATE (:Counted", "RETURN 1 / 0 AS n; CREATE (:Counted")
    with pytest.raises(ChangeFailed):
        run(store({"V1__all.cypher": broken}))
    assert query("MATCH (n:M) RETURN count(n) AS n") == [{"n": 4}]
    assert run(store({"V1__all.cypher": MIXED})) == ["V1__all.cypher"]
    assert query("MATCH (n:Counted) RETURN n.all AS n") == [{"n": 4}]


# --- the forecast


def test_duplicates_that_a_pending_file_removes_are_no_conflict(store, query):
    query("CREATE (:D {p: 1}), (:D {p: 1}), (:D {p: 2})")
    files = {
        "V1__merge.cypher": "MATCH (n:D {p: 1}) WITH collect(n) AS found "
        "FOREACH (n IN tail(found) | DETACH DELETE n);\n",
        "V2__unique.cypher": UNIQUE.format("d", "D"),
    }
    first = store(files)
    (note,) = [note for note in first.plan().notes if "depends on" in note]
    assert "d depends on what V1__merge.cypher does" in note
    assert run(first) == ["V1__merge.cypher", "V2__unique.cypher"]
    assert first.verify() == []


def test_duplicates_that_a_pending_file_leaves_are_told_before_the_constraint(store, query):
    query("CREATE (:D {p: [1, 2]}), (:D {p: [1, 2]})")
    files = {
        "V1__other.cypher": "CREATE (:Other);\n",
        "V2__unique.cypher": UNIQUE.format("d", "D"),
    }
    with pytest.raises(StoreConflict, match=r"d on \(:D\) \(p\) is blocked") as caught:
        run(store(files))
    assert caught.value.detail == "2 nodes share p [1, 2]."
    assert recorded(query) == ["V1__other.cypher"]


def test_list_valued_duplicates_are_listed_before_anything_is_changed(store, query):
    query("CREATE (:D {p: ['a']}), (:D {p: ['a']}), (:D {p: 1}), (:D {p: 1})")
    with pytest.raises(StoreConflict) as caught:
        store({"V1__unique.cypher": UNIQUE.format("d", "D")}).plan()
    assert "2 nodes share p ['a']" in caught.value.detail


@pytest.mark.parametrize("what", ["n.p IS NODE KEY", "n.p IS NOT NULL", "n.p IS :: STRING"])
def test_what_needs_the_enterprise_edition_is_refused_before_anything_is_changed(
    store, query, what
):
    files = {
        "V1__a.cypher": "CREATE (:A);\n",
        "V2__e.cypher": f"CYPHER 5 CREATE CONSTRAINT e FOR (n:E) REQUIRE {what};\n",
    }
    with pytest.raises(StoreConflict, match=r"e of V2__e\.cypher requires the Enterprise Edition"):
        store(files).plan()
    assert recorded(query) == []


def test_an_index_without_a_name_or_under_another_one_is_waited_for(store, query):
    query("UNWIND range(1, 30000) AS i CREATE (:W {p: toString(i), q: i})")
    unnamed = store(
        {
            "V1__unnamed.cypher": "CREATE INDEX FOR (n:W) ON (n.p);\n",
            "V2__text.cypher": "CREATE TEXT INDEX FOR (n:W) ON (n.p);\n",
        }
    )
    run(unnamed)
    states = "SHOW INDEXES YIELD labelsOrTypes, state WHERE 'W' IN labelsOrTypes RETURN state"
    assert {row["state"] for row in query(states)} == {"ONLINE"}
    query("CREATE INDEX theirs FOR (n:W) ON (n.q)")
    run(store({"V3__ours.cypher": "CREATE INDEX ours IF NOT EXISTS FOR (n:W) ON (n.q);\n"}))
    assert {row["state"] for row in query(states)} == {"ONLINE"}


@both
def test_options_of_a_point_index_are_compared(store, query):
    text = (
        "CREATE POINT INDEX at IF NOT EXISTS FOR (n:P) ON (n.at) OPTIONS {{indexConfig: "
        "{{`spatial.cartesian.min`: [{}, -80], `spatial.cartesian.max`: [100, 80.5]}}}};\n"
    )
    first = store({"V1__at.cypher": text.format("-100.0")})
    run(first)
    assert first.verify() == []
    other = store({"V1__at.cypher": text.format("-90.0")})
    (drift,) = other.verify()
    assert (drift.object, drift.message) == ("at", "differs")


# --- histories of neo4j-migrations


def test_histories_of_other_targets_and_nodes_without_a_version_are_passed_over(store, query):
    query(
        "CREATE (:__Neo4jMigration {version: 'BASELINE', migrationTarget: 'other'})"
        "-[:MIGRATED_TO {at: datetime()}]->(:__Neo4jMigration {version: '1', type: 'CYPHER', "
        "source: 'V1__theirs.cypher', checksum: '1', migrationTarget: 'other'}), "
        "(:__Neo4jMigration {note: 'nobody knows why'}), "
        "(:__Neo4jMigration {version: '7', flyway_failed: true}), "
        "(:__Neo4jMigration {version: '8', type: 'DELETE'})"
    )
    assert run(store({"V1__a.cypher": "CREATE (:A);\n"})) == ["V1__a.cypher"]
    assert run(store({})) == []
    assert recorded(query) == ["V1__a.cypher"]
    assert query("MATCH (b {version: 'BASELINE'})-[:MIGRATED_TO]->(n) RETURN count(n) AS n") == [
        {"n": 2}
    ]


def test_the_history_of_this_database_under_its_name_is_a_conflict(store, query):
    """neo4j-migrations would not find it either, without --schema-database, and start again."""
    query(
        "CREATE (:__Neo4jMigration {version: 'BASELINE', migrationTarget: 'neo4j'})"
        "-[:MIGRATED_TO {at: datetime()}]->(:__Neo4jMigration {version: '1', type: 'CYPHER', "
        "source: 'V1__a.cypher', checksum: '1', migrationTarget: 'neo4j'})"
    )
    with pytest.raises(StoreConflict, match="--schema-database"):
        store({"V1__a.cypher": "CREATE (:A);\n"}).plan()


# --- the lock


def take(store: Neo4jBootstrapper, database: str) -> Lease | LockHolder:
    claim = Claim("a test", store._database.tag, "neo4j", is_alone=True, anchor=None)
    return neo4j_lock.take(store._database.write, claim, 30, lambda _: False, database=database)


def test_the_lock_has_the_node_that_neo4j_migrations_makes_for_the_database(store, query):
    made = store({"V1__a.cypher": "CREATE (:A);\n"})
    run(made)
    lease = take(made, "orders")
    assert isinstance(lease, Lease)
    names = "MATCH (l:__Neo4jMigrationsLock) RETURN l.name AS n ORDER BY n"
    assert [row["n"] for row in query(names)] == ["John Doe", "orders"]
    with pytest.raises(neo4j.exceptions.ConstraintError):
        query("CREATE (:__Neo4jMigrationsLock {name: 'orders', id: '1'})")
    assert made.status().lock is not None
    assert lease.release()
    assert query(names) == []


def test_the_lock_of_neo4j_migrations_for_the_database_keeps_us_out(store, query):
    made = store({"V1__a.cypher": "CREATE (:A);\n"})
    run(made)
    query("CREATE (:__Neo4jMigrationsLock {name: 'orders', id: '1'})")
    held = take(made, "orders")
    assert isinstance(held, LockHolder)
    assert "neo4j-migrations" in held.who
    rows = query("MATCH (l:__Neo4jMigrationsLock) RETURN l.id AS id")
    assert rows == [{"id": "1"}]


# --- by hand


@pytest.fixture
def three(tmp_path) -> Blueprint:
    for number, name in enumerate("abc", 1):
        (tmp_path / f"V{number}__{name}.cypher").write_text(f"CREATE (:{name.upper()});\n")
    return Blueprint("mine", "test", cypher=tmp_path)


def test_cypher_files_are_stamped_to_and_fro(three, neo4j_url, query):
    stamp, current = migrate_cypher.stamp, migrate_cypher.current
    assert current(three, url=neo4j_url).revision is None
    assert stamp(three, "2", url=neo4j_url).revisions == ("V2__b.cypher",)
    assert current(three, url=neo4j_url) == migrate_cypher.Current("V2__b.cypher", is_head=False)
    assert query("MATCH (n:A|B|C) RETURN count(n) AS n") == [{"n": 0}]
    assert stamp(three, "V2__b.cypher", url=neo4j_url).revisions == ()
    assert stamp(three, "head", url=neo4j_url).revisions == ("V3__c.cypher",)
    assert stamp(three, "1", url=neo4j_url).revisions == ("V1__a.cypher",)
    assert recorded(query) == ["V1__a.cypher"]
    made = Neo4jBootstrapper(neo4j_url, three, timing=Timing(connect_timeout_s=60))
    assert run(made) == ["V2__b.cypher", "V3__c.cypher"]
    made.close()
    assert current(three, url=neo4j_url).is_head
    assert stamp(three, "base", url=neo4j_url).revisions == ("base",)
    assert recorded(query) == []


def test_a_stamp_names_every_file_that_it_records_and_takes_out_of_the_record(
    three, neo4j_url, query, tmp_path_factory
):
    stamp, foresee = migrate_cypher.stamp, migrate_cypher.foresee_stamp
    names = ("V1__a.cypher", "V2__b.cypher", "V3__c.cypher")
    foreseen = foresee(three, "head", url=neo4j_url)
    assert foreseen == RecordChange(added=names)
    assert recorded(query) == []
    assert stamp(three, "head", url=neo4j_url).record == foreseen
    assert stamp(three, "head", url=neo4j_url).record == RecordChange()
    foreseen = foresee(three, "1", url=neo4j_url)
    assert foreseen == RecordChange(removed=names[1:])
    assert recorded(query) == list(names)
    assert stamp(three, "1", url=neo4j_url).record == foreseen
    assert recorded(query) == [names[0]]

    folder = tmp_path_factory.mktemp("mine")
    (folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\n"
        f"BLUEPRINT = Blueprint('mine', 'test', cypher={str(three.cypher)!r})\n"
    )
    here = ["--cypher", "--blueprint", str(folder), "--url", neo4j_url]
    code, _, said = command("migrate", "stamp", "3", *here)
    assert "would count as applied from now on: V2__b.cypher, V3__c.cypher" in said
    assert (code, recorded(query)) == (2, [names[0]])
    code, out, said = command("migrate", "stamp", "3", *here, "--yes")
    assert (code, out) == (0, ["V3__c.cypher"])
    assert "(2 added to the record, 0 taken out of it); nothing else was touched" in said
    code, _, said = command("migrate", "stamp", "1", *here, "--yes")
    removed = "count as not applied any more, so the next apply runs them: "
    assert f"{removed}V2__b.cypher, V3__c.cypher" in said
    assert "0 added to the record, 2 taken out of it" in said


def test_a_stamp_of_what_is_recorded_lifts_the_mark_of_a_file_behind_it(three, neo4j_url, query):
    migrate_cypher.stamp(three, "2", url=neo4j_url)
    query(
        f"CREATE (:{begun.LABEL} {{version: '3', begun: 1, running: true, digest: 'another', "
        "owner: 'a test', token: 'x', since: datetime.realtime()})"
    )
    lifted = migrate_cypher.stamp(three, "2", url=neo4j_url)
    assert lifted.record == RecordChange(lifted=("V3__c.cypher",))
    assert query(f"MATCH (m:{begun.LABEL}) RETURN m") == []
    assert recorded(query) == ["V1__a.cypher", "V2__b.cypher"]


def test_a_changed_file_is_recorded_anew_by_a_stamp(three, neo4j_url):
    migrate_cypher.stamp(three, "head", url=neo4j_url)
    assert isinstance(three.cypher, Path)
    (three.cypher / "V2__b.cypher").write_text("CREATE (:B {again: true});\n")
    made = Neo4jBootstrapper(neo4j_url, three, timing=Timing(connect_timeout_s=60))
    with pytest.raises(StoreConflict, match=r"V2__b\.cypher was changed"):
        made.plan()
    stamped = migrate_cypher.stamp(three, "head", url=neo4j_url)
    assert stamped.revisions == ("V3__c.cypher",)
    assert stamped.record == RecordChange(renewed=("V2__b.cypher",))
    assert made.plan().changes == ()
    made.close()


def test_the_files_are_listed_newest_first_without_a_server(three):
    found = migrate_cypher.history(three)
    assert [each.id for each in found] == ["V3__c.cypher", "V2__b.cypher", "V1__a.cypher"]
    assert [each.is_head for each in found] == [True, False, False]


def test_a_target_that_is_no_file_is_refused(three, neo4j_url):
    with pytest.raises(ConfigurationError, match="has no Cypher file 9"):
        migrate_cypher.stamp(three, "9", url=neo4j_url)
