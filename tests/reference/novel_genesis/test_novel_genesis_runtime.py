"""The runtime of novel_genesis on real servers: dialogues, the outbox, the story world. Numbers are
those of the blueprint's checks.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import uuid

import neo4j
import psycopg
import pytest
from neo4j.exceptions import ClientError
from psycopg.types.json import Jsonb
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from is_db_bootstrap.access import Database, PoolProfile
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.blueprints.novel_genesis import graph, graph_models, outbox, sessions
from is_db_bootstrap.blueprints.novel_genesis.graph_models import (
    Character,
    Event,
    Novel,
    WorldRule,
    merge_node,
    merge_relationship,
)
from is_db_bootstrap.blueprints.novel_genesis.models import OutboxMessage, OutboxStatus
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from specification import insert, value


@pytest.fixture
async def database(migrated):
    async with Database(migrated("novel_genesis"), profile=PoolProfile(1, 12)) as database:
        yield database


@pytest.fixture
def db(database):
    with psycopg.connect(database._url.reveal(), autocommit=True) as connection:
        yield connection


def dialogue(db, **columns):
    return insert(
        db,
        "conversation_sessions",
        "id",
        **{"scope_type": "GENESIS", "scope_id": str(uuid.uuid4()), **columns},
    )


def message(db, **columns):
    return insert(db, "event_outbox", "id", topic="t", payload={}, **columns)


# --- dialogues


@pytest.mark.postgres
async def test_ng_06_a_dialogue_is_changed_only_by_who_has_seen_it_last(database, db):
    found = dialogue(db)
    async with database.transaction() as session:
        assert await sessions.update_if(session, found, 0, stage="PLOT", state={"a": 1})
    async with database.transaction() as session:
        assert not await sessions.update_if(session, found, 0, stage="LATE")
        assert not await sessions.update_if(session, uuid.uuid4(), 0, stage="NOWHERE")
    assert db.execute("SELECT stage, state, version FROM conversation_sessions").fetchone() == (
        "PLOT",
        {"a": 1},
        1,
    )


@pytest.mark.postgres
@pytest.mark.parametrize("changes", [{}, {"version": 7}, {"updated_at": None}, {"nothing": 1}])
async def test_a_dialogue_refuses_changes_that_are_not_the_callers(database, changes):
    async with database.session() as session:
        with pytest.raises(ValueError, match="chang"):
            await sessions.update_if(session, uuid.uuid4(), 0, **changes)


@pytest.mark.postgres
async def test_parallel_rounds_get_numbers_of_their_own(database, db):
    found = dialogue(db)

    async def take():
        async with database.transaction() as session:
            return await sessions.next_round(session, found)

    assert sorted(await asyncio.gather(*[take() for _ in range(10)])) == list(range(1, 11))
    async with database.session() as session:
        with pytest.raises(LookupError):
            await sessions.next_round(session, uuid.uuid4())


# --- 12: the outbox


@pytest.mark.postgres
async def test_ng_12_parallel_relays_never_share_a_message(database, db):
    made = [message(db) for _ in range(60)]

    async def relay():
        mine = []
        while True:
            async with database.transaction() as session:
                claimed = await outbox.claim(session, 5)
            if not claimed:
                return mine
            mine += [m.id for m in claimed]

    taken = [m for mine in await asyncio.gather(*[relay() for _ in range(6)]) for m in mine]
    assert sorted(taken) == sorted(made)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("call", "index"),
    [
        (outbox.claim, "idx_event_outbox_pending_scheduled"),
        (outbox.reclaim, "idx_event_outbox_processing_scheduled"),
    ],
)
async def test_ng_12_what_a_relay_sends_is_served_by_its_index_even_by_a_generic_plan(
    database, db, call, index
):
    for status, sent_at, rows in (
        ("SENT", "now()", 5000),
        ("PENDING", "NULL", 300),
        ("PROCESSING", "NULL", 300),
    ):
        db.execute(
            f"INSERT INTO event_outbox (topic, payload, status, sent_at) SELECT 't', '{{}}', "
            f"'{status}', {sent_at} FROM generate_series(1, {rows})"
        )
    db.execute("ANALYZE event_outbox")
    asked = []
    async with database.acquire() as connection, AsyncSession(connection) as session:
        event.listen(
            connection.sync_connection, "before_cursor_execute", lambda *told: asked.append(told[2])
        )
        await call(session)
    assert index in generic_plan(db, *asked)


def generic_plan(db, statement):
    """The plan that serves any values: it cannot use a partial index for a parameter."""
    for number, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)), 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    return "\n".join(line for (line,) in db.execute(f"EXPLAIN (GENERIC_PLAN) {statement}"))


@pytest.mark.postgres
async def test_ng_12_five_failures_end_in_failed_with_growing_delays(database, db):
    found = message(db)
    delays = []
    for _ in range(5):
        db.execute("UPDATE event_outbox SET scheduled_at = created_at WHERE status = 'PENDING'")
        async with database.transaction() as session:
            [claimed] = await outbox.claim(session)
            assert claimed.status is OutboxStatus.PROCESSING
            assert await outbox.failed(session, claimed.id, "no broker")
        delays.append(
            round(
                value(
                    db,
                    "SELECT extract(epoch FROM scheduled_at - clock_timestamp()) FROM event_outbox",
                )
            )
        )
    assert delays == [1, 2, 4, 8, 16]
    row = db.execute(
        "SELECT status::text, retry_count, last_error FROM event_outbox WHERE id = %s", [found]
    ).fetchone()
    assert row == ("FAILED", 5, "no broker")
    async with database.transaction() as session:
        assert await outbox.claim(session) == []
        assert not await outbox.sent(session, found)


@pytest.mark.postgres
async def test_ng_12_a_lapsed_lease_counts_as_a_failure_and_is_handed_out_again(database, db):
    found = message(db)
    async with database.transaction() as session:
        assert [m.id for m in await outbox.claim(session, lease_s=0)] == [found]
    async with database.transaction() as session:
        assert await outbox.claim(session) == []
        assert await outbox.reclaim(session) == 1
        assert await outbox.reclaim(session) == 0
    async with database.transaction() as session:
        [again] = await outbox.claim(session)
        assert (again.id, again.retry_count, again.last_error) == (found, 1, outbox.LAPSED)
        assert await outbox.sent(session, found)
    async with database.session() as session:
        done = await session.get(OutboxMessage, found)
        assert (done.status, done.last_error) == (OutboxStatus.SENT, None)
        assert done.sent_at is not None


@pytest.mark.postgres
async def test_messages_come_the_longest_due_first(database, db):
    event = insert(
        db,
        "domain_events",
        "event_id",
        event_type="X",
        aggregate_type="novel",
        aggregate_id="1",
        payload=Jsonb({}),
    )
    late = message(db, created_at="2026-01-01", scheduled_at="2026-01-03", event_id=event)
    early = message(db, created_at="2026-01-01", scheduled_at="2026-01-02")
    future = message(db, scheduled_at="2999-01-01")
    async with database.transaction() as session:
        found = [m.id for m in await outbox.claim(session)]
    assert found == [early, late]
    assert future not in found


# --- the story world


@pytest.fixture
def world(neo4j_url):
    """A session on a database that is at the blueprint's head."""
    blueprint = load_blueprint("novel_genesis").without_seed()
    BootstrapOrchestrator([Neo4jBootstrapper(neo4j_url, blueprint)]).run().raise_for_failure()
    with (
        neo4j.GraphDatabase.driver(
            neo4j_url.replace(neo4j_url[7 : neo4j_url.index("@") + 1], ""), auth=_auth(neo4j_url)
        ) as driver,
        driver.session() as session,
    ):
        yield session


def _auth(url):
    from is_db_bootstrap.settings import StoreUrl

    found = StoreUrl.parse("neo4j", url)
    return found.username, found.password


def write(session, statement):
    text, parameters = statement
    return session.run(text, parameters).single(strict=True)[0]


NOVEL = Novel(novel_id="173f47a9-e96d-581f-904c-70489789835a", title="T")


def character(name):
    return Character(id=str(uuid.uuid4()), novel_id=NOVEL.novel_id, name=name)


@pytest.mark.neo4j
def test_a_node_is_made_once_and_updated_and_keeps_its_time_of_creation(world):
    first = write(world, merge_node(NOVEL))
    again = write(
        world,
        merge_node(
            Novel(
                novel_id=NOVEL.novel_id,
                title="Other",
                created_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
            )
        ),
    )
    assert first.element_id == again.element_id
    assert (again["title"], again["app_id"], again["created_at"]) == (
        "Other",
        "is-db-bootstrap",
        first["created_at"],
    )
    mara = write(world, merge_node(character("Mara")))
    assert (mara["name"], mara["appearance"]) == ("Mara", "")
    assert set(mara) == set(graph.NODE_PROPERTIES["Character"])


@pytest.mark.neo4j
def test_a_node_of_no_novel_and_an_end_that_is_not_there_are_errors(world):
    with pytest.raises(ClientError, match="zero"):
        write(world, merge_node(character("Nobody")))
    write(world, merge_node(NOVEL))
    mara = character("Mara")
    write(world, merge_node(mara))
    for start, end in ((mara, character("Nobody")), (character("Nobody"), mara)):
        with pytest.raises(ClientError, match="zero"):
            write(
                world,
                merge_relationship(
                    "RELATES_TO", start, end, {"strength": 1, "type": "friend", "symmetric": True}
                ),
            )
    assert world.run("MATCH ()-[r:RELATES_TO]->() RETURN count(r)").single()[0] == 0


@pytest.mark.neo4j
def test_a_relation_is_one_for_each_pair_and_type(world):
    write(world, merge_node(NOVEL))
    mara, tobias = character("Mara"), character("Tobias")
    for node in (mara, tobias):
        write(world, merge_node(node))
        write(world, merge_relationship("BELONGS_TO", node, NOVEL))
    for strength, kind in ((6, "mentor"), (7, "mentor"), (1, "friend")):
        write(
            world,
            merge_relationship(
                "RELATES_TO", mara, tobias, {"strength": strength, "type": kind, "symmetric": False}
            ),
        )
    rows = world.run(
        "MATCH (:Character {name: 'Mara'})-[r:RELATES_TO]->() RETURN r.type AS type, "
        "r.strength AS strength ORDER BY type"
    ).data()
    assert rows == [{"type": "friend", "strength": 1}, {"type": "mentor", "strength": 7}]


@pytest.mark.neo4j
def test_a_conflict_of_rules_is_stored_once_from_the_smaller_id(world):
    write(world, merge_node(NOVEL))
    rules = [
        WorldRule(
            id=f"0000000{n}-0000-4000-8000-000000000000",
            novel_id=NOVEL.novel_id,
            dimension="rules",
            rule=str(n),
            scope={"a": [1]},
        )
        for n in (1, 2)
    ]
    for rule in rules:
        write(world, merge_node(rule))
    for start, end in (rules, rules[::-1]):
        write(world, merge_relationship("CONFLICTS_WITH", start, end))
    rows = world.run(
        "MATCH (a)-[r:CONFLICTS_WITH]->(b) RETURN a.id < b.id AS ordered, r.severity AS "
        "severity, a.scope AS scope"
    ).data()
    assert rows == [{"ordered": True, "severity": "major", "scope": '{"a": [1]}'}]


def test_a_rule_does_not_contradict_itself():
    rule = WorldRule(id=str(uuid.uuid4()), novel_id=NOVEL.novel_id, dimension="rules", rule="r")
    with pytest.raises(ValueError, match="both ends"):
        merge_relationship("CONFLICTS_WITH", rule, rule)


def test_every_label_and_every_relationship_has_a_model_with_the_listed_properties():
    assert set(graph_models.NODES) == set(graph.NODE_PROPERTIES)
    for label, model in graph_models.NODES.items():
        assert tuple(model.model_fields) == graph.NODE_PROPERTIES[label]
    for name, model in graph_models.PROPERTIES.items():
        assert tuple(model.model_fields) == graph.RELATIONSHIPS[name].properties


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (graph_models.RelatesTo, {"strength": 11, "type": "friend", "symmetric": True}),
        (graph_models.RelatesTo, {"strength": 1, "type": "stranger", "symmetric": True}),
        (graph_models.ConflictsWith, {"severity": "mild"}),
        (Character, {"id": "not-a-uuid", "novel_id": NOVEL.novel_id, "name": "n"}),
        (Character, {"id": NOVEL.novel_id, "novel_id": NOVEL.novel_id, "name": "n", "unlisted": 1}),
        (
            WorldRule,
            {"id": NOVEL.novel_id, "novel_id": NOVEL.novel_id, "dimension": "magic", "rule": "r"},
        ),
        (
            graph_models.Organization,
            {"id": NOVEL.novel_id, "novel_id": NOVEL.novel_id, "name": "n", "kind": "club"},
        ),
        (
            graph_models.Location,
            {"id": NOVEL.novel_id, "novel_id": NOVEL.novel_id, "name": "n", "x": float("nan")},
        ),
    ],
)
def test_what_the_lists_forbid_is_refused(model, fields):
    with pytest.raises(ValidationError):
        model(**fields)


def test_ng_15_only_listed_names_become_part_of_a_statement():
    mara = character("Mara'}) DETACH DELETE n //")
    text, parameters = merge_node(mara)
    assert "DETACH" not in text
    assert parameters["values"]["name"] == mara.name
    happening = Event(id=str(uuid.uuid4()), novel_id=NOVEL.novel_id, description="d")
    for name, start, end, properties in (
        ("DROPS", mara, NOVEL, {}),
        ("BELONGS_TO", NOVEL, mara, {}),
        ("CAUSES", happening, mara, {}),
        ("BELONGS_TO", mara, NOVEL, {"since": 1}),
    ):
        with pytest.raises(ValueError, match=r".+"):
            merge_relationship(name, start, end, properties)
