"""What the records of all stores say together, without a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from is_db_bootstrap.engine.memory import FORMAT, Member, Memory, Recall
from is_db_bootstrap.engine.memory_text import BrokenMemory, NewerMemory, from_text, to_text
from is_db_bootstrap.engine.recollection import Doubt, Known, Recollection

THEN = datetime(2026, 11, 1, 12, 30, tzinfo=UTC)
PG = Member("1/16384", "database app, schema public", "postgresql://a/app", ("schema public",))
MILVUS = Member("m1", "database default", "http://m", ("notes_v1", "words_v1"))
REDIS = Member("r1", "database 0", "redis://r")
ALL = Memory(
    "k1", "shop", "f1", "run1", "1.0", THEN, {"postgres": PG, "milvus": MILVUS, "redis": REDIS}
)
NEW = Memory("", "shop", "f1", "run2", "1.0", THEN + timedelta(days=1))


def store(member, *memories, is_cache=False, **changed):
    """A store that is as it was recorded, with these records."""
    identity = member.identity if member is PG else ""
    found = Recall(member.place, identity, holds=member.holds, memories=memories)
    return Known(replace(found, **changed), member.address, is_cache=is_cache)


def blank(member, **extra):
    gone = Recall(member.place, is_blank=True, missing=member.holds)
    return Known(gone, member.address, is_pending=True, **extra)


def converged(**others):
    known = {"postgres": store(PG, ALL), "milvus": store(MILVUS, ALL), "redis": store(REDIS, ALL)}
    return Recollection({**known, **others}, ("postgres", "milvus", "redis"))


def test_a_record_is_read_as_it_was_written():
    assert from_text(to_text(ALL)) == ALL
    assert from_text(to_text(ALL).encode()) == ALL


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "{}", '{"format": true}', '{"format": 1}']
    + [
        to_text(ALL).replace(*words)
        for words in (
            ('"k1"', '""'),
            ('"f1"', "7"),
            ('"members": {', '"members": [], "x": {'),
            ('"1/16384"', "null"),
            ('["schema public"]', '"schema public"'),
            ("2026-11-01T12:30:00+00:00", "yesterday"),
            ("2026-11-01T12:30:00+00:00", "2026-11-01T12:30:00"),
        )
    ],
)
def test_a_text_that_is_no_record_is_broken(text):
    with pytest.raises(BrokenMemory):
        from_text(text)


def test_a_record_of_a_newer_format_tells_its_key_and_its_version():
    text = to_text(ALL).replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}')
    with pytest.raises(NewerMemory) as found:
        from_text(text)
    assert (found.value.key, found.value.version) == ("k1", "1.0")


def test_what_a_later_version_adds_without_a_new_format_is_passed_over():
    text = to_text(ALL).replace('"key"', '"also": 1, "key"')
    text = text.replace('"members": {', '"members": {"sqlite": {"identity": 5}, ')
    assert from_text(text) == ALL


def test_where_all_is_as_recorded_nothing_is_lost_and_nothing_is_to_be_recorded():
    found = converged()
    assert (found.losses(), found.others(), found.blank_caches()) == ({}, {}, {})
    assert found.to_record(NEW) == {}


def test_a_first_run_records_all_stores_under_one_new_key():
    found = Recollection({"postgres": blank(PG), "milvus": blank(MILVUS), "redis": blank(REDIS)})
    assert found.losses() == {}
    due = found.to_record(NEW)
    assert list(due) == ["postgres", "milvus", "redis"]
    [record] = {to_text(each) for each in due.values()}
    assert list(from_text(record).members) == ["milvus", "postgres", "redis"]
    assert from_text(record).key


@pytest.mark.parametrize("lost", [PG, MILVUS, REDIS])
def test_each_store_that_is_blank_while_another_remembers_it_was_lost(lost):
    name = {id(PG): "postgres", id(MILVUS): "milvus", id(REDIS): "redis"}[id(lost)]
    found = converged(**{name: blank(lost)})
    [(store_name, loss)] = found.losses().items()
    assert (store_name, loss.objects, loss.memory) == (name, (), ALL)
    assert loss.remembered_by == tuple(s for s in ("postgres", "milvus", "redis") if s != name)


def test_all_lost_stores_are_told_and_not_only_the_first():
    found = converged(postgres=blank(PG), milvus=blank(MILVUS))
    assert list(found.losses()) == ["postgres", "milvus"]


def test_what_is_gone_of_a_store_that_is_there_is_told_by_its_own_record():
    part = store(MILVUS, ALL, holds=("notes_v1",), missing=("words_v1", "never_recorded_v1"))
    part = replace(part, is_pending=True)
    found = Recollection({"milvus": part})
    assert found.losses()["milvus"].objects == ("words_v1",)


def test_a_blank_store_with_nothing_to_make_was_not_lost():
    found = converged(postgres=replace(blank(PG), is_pending=False))
    assert found.losses() == {}


def test_a_blank_cache_is_no_loss():
    found = converged(redis=blank(REDIS, is_cache=True))
    assert (found.losses(), list(found.blank_caches())) == ({}, ["redis"])
    assert found.to_record(NEW)["redis"].members["redis"].identity not in {"", "r1"}


def test_a_store_that_was_added_to_the_blueprint_is_new():
    before = replace(ALL, members={"postgres": PG, "redis": REDIS})
    known = {"postgres": store(PG, before), "redis": store(REDIS, before), "milvus": blank(MILVUS)}
    found = Recollection(known)
    assert found.losses() == {}
    due = found.to_record(NEW)
    assert list(due) == ["postgres", "redis", "milvus"]
    assert due["redis"].key == "k1"
    assert due["redis"].members["redis"] == REDIS


def test_a_run_of_some_stores_keeps_what_is_remembered_of_the_others():
    moved = store(PG, ALL, identity="1/20000")
    due = Recollection({"postgres": moved}, ("postgres", "milvus", "redis")).to_record(NEW)
    assert due["postgres"].members["milvus"] == MILVUS
    assert due["postgres"].members["postgres"].identity == "1/20000"


def test_an_environment_with_a_database_of_another_name_beside_a_shared_redis_is_new():
    other = Member("", "database staging, schema public", "postgresql://a/staging", PG.holds)
    found = Recollection({"postgres": blank(other), "redis": store(REDIS, ALL)})
    assert found.losses() == {}
    due = found.to_record(NEW)
    assert {*due} == {"postgres", "redis"}
    assert due["redis"].key != "k1"


@pytest.mark.parametrize("identity", ["1/20000", "2/16384"], ids=["copied", "other server"])
def test_a_copied_database_is_no_witness(identity):
    copied = store(PG, ALL, identity=identity)
    found = Recollection({"postgres": copied, "milvus": blank(MILVUS), "redis": blank(REDIS)})
    assert found.losses() == {}
    assert found.others() == {"postgres": ALL}
    due = found.to_record(NEW)
    assert due["postgres"].members["postgres"].identity == identity
    assert {record.key for record in due.values()} == {"k1"}


def test_a_restored_database_is_recorded_anew_beside_stores_that_were_kept():
    found = converged(postgres=store(PG, ALL, identity="1/20000"))
    assert (found.losses(), found.others()) == ({}, {"postgres": ALL})
    assert list(found.to_record(NEW)) == ["postgres", "milvus", "redis"]


def test_a_database_that_was_replaced_by_a_filled_one_is_told():
    found = converged(postgres=store(PG, identity="2/5"))
    assert (found.losses(), found.others()) == ({}, {"postgres": ALL})


def test_another_fingerprint_is_recorded_but_not_by_an_older_release():
    newer = replace(NEW, fingerprint="f2")
    assert list(converged().to_record(newer)) == ["postgres", "milvus", "redis"]
    ahead = converged(postgres=replace(store(PG, ALL), is_ahead=True))
    assert ahead.to_record(newer) == {}


def test_an_older_release_records_nothing_where_no_record_of_the_newer_one_is_left():
    known = {"postgres": replace(store(PG), is_ahead=True), "redis": store(REDIS)}
    assert Recollection(known).to_record(NEW) == {}


def test_an_older_release_forgets_nothing_that_the_newer_one_holds():
    known = replace(store(MILVUS, ALL, holds=("notes_v1",)), is_ahead=True)
    assert converged(milvus=known).to_record(replace(NEW, fingerprint="f0")) == {}


def test_another_address_alone_is_no_reason_to_record():
    forwarded = replace(store(PG, ALL), address="postgresql://localhost:15432/app")
    assert converged(postgres=forwarded).to_record(NEW) == {}


def test_targets_of_a_fleet_are_told_apart_by_their_addresses():
    other = replace(blank(PG), address="postgresql://b/app")
    known = {"postgres": other, "redis": store(REDIS, ALL)}
    assert list(Recollection(known).losses()) == ["postgres"]
    assert Recollection(known, by_address=True).losses() == {}


def test_a_target_whose_store_moved_is_known_by_the_identity_of_another_one():
    moved = replace(blank(MILVUS), address="http://elsewhere")
    known = {"postgres": store(PG, ALL), "milvus": moved}
    assert list(Recollection(known, by_address=True).losses()) == ["milvus"]
    copied = replace(store(PG, ALL), recall=replace(store(PG, ALL).recall, identity="2/16384"))
    assert Recollection({**known, "postgres": copied}, by_address=True).losses() == {}


def test_a_store_that_this_release_does_not_declare_is_not_forgotten():
    older = {"postgres": store(PG, ALL), "redis": store(REDIS, ALL)}
    recorded = Recollection(older, ("postgres", "redis")).to_record(replace(NEW, fingerprint="f0"))
    assert set(recorded["postgres"].members) == {"postgres", "milvus", "redis"}


def test_a_blank_store_is_in_doubt_beside_records_that_only_a_newer_version_can_read():
    keeper = store(REDIS, newer_keys=frozenset({"k9"}))
    found = Recollection({"postgres": blank(PG), "redis": keeper})
    assert found.doubtful() == {"postgres": Doubt((), ("redis",))}
    assert Recollection({"postgres": store(PG), "redis": keeper}).doubtful() == {}
    known = {"postgres": blank(PG), "milvus": store(MILVUS, ALL), "redis": keeper}
    assert (list(Recollection(known).losses()), Recollection(known).doubtful()) == (
        ["postgres"],
        {},
    )


def test_a_part_is_in_doubt_beside_newer_records_where_no_record_of_ours_tells_of_its_store():
    part = store(MILVUS, holds=("notes_v1",), missing=("words_v1",), newer_keys=frozenset({"k9"}))
    part = replace(part, is_pending=True)
    found = Recollection({"milvus": part})
    assert found.doubtful() == {"milvus": Doubt(("words_v1",), ("milvus",))}
    before = replace(ALL, members={"milvus": replace(MILVUS, holds=("notes_v1",))})
    ours = replace(part, recall=replace(part.recall, memories=(before,)))
    found = Recollection({"milvus": ours})
    assert found.doubtful() == {}
    assert found.unsure_parts() == {"milvus": Doubt(("words_v1",), ("milvus",))}
    lost = replace(part, recall=replace(part.recall, memories=(ALL,)))
    found = Recollection({"milvus": lost})
    assert (list(found.losses()), found.doubtful(), found.unsure_parts()) == (["milvus"], {}, {})


def test_a_blank_store_beside_a_copy_is_told_of_and_is_no_loss():
    copied = store(PG, ALL, identity="2/16384")
    found = Recollection({"postgres": copied, "milvus": blank(MILVUS)})
    assert (found.losses(), list(found.foretold())) == ({}, ["milvus"])
    assert converged(milvus=blank(MILVUS)).foretold() == {}


def test_a_run_that_cannot_tell_two_deployments_apart_records_nothing():
    staging = replace(PG, place="database staging, schema public")
    second = replace(ALL, key="k2", members={"postgres": staging, "redis": REDIS})
    redis = store(REDIS, ALL, second)
    alone = Recollection({"redis": redis}, ("postgres", "redis"))
    assert alone.is_ambiguous
    assert alone.to_record(replace(NEW, fingerprint="f2")) == {}
    both = Recollection({"redis": redis, "postgres": store(PG, ALL)}, ("postgres", "redis"))
    assert not both.is_ambiguous
    assert {r.key for r in both.to_record(replace(NEW, fingerprint="f2")).values()} == {"k1"}


def test_records_that_began_apart_become_one():
    of_pg = replace(ALL, key="k8", members={"postgres": PG})
    of_redis = replace(ALL, key="k9", members={"redis": REDIS}, recorded_at=THEN + timedelta(1))
    found = Recollection({"postgres": store(PG, of_pg), "redis": store(REDIS, of_redis)})
    due = found.to_record(NEW)
    assert {(s, r.key, *r.members) for s, r in due.items()} == {
        ("postgres", "k9", "postgres", "redis"),
        ("redis", "k9", "postgres", "redis"),
    }
    after = due["redis"]
    known = {"postgres": store(PG, of_pg, after), "redis": store(REDIS, after)}
    assert Recollection(known).to_record(NEW) == {}


def test_a_store_that_cannot_record_is_remembered_by_the_others():
    unable = store(PG, unable="no right")
    due = Recollection({"postgres": unable, "redis": store(REDIS)}).to_record(NEW)
    assert list(due) == ["redis"]
    [record] = due.values()
    after = Recollection({"postgres": blank(PG), "redis": store(REDIS, record)})
    assert list(after.losses()) == ["postgres"]


def test_what_one_run_could_not_see_of_an_identity_is_neither_equal_nor_other():
    unseen = store(PG, ALL, identity="?/16384")
    found = converged(postgres=unseen, milvus=blank(MILVUS))
    assert (list(found.losses()), found.others()) == (["milvus"], {})
    assert converged(postgres=unseen).to_record(NEW) == {}
    other = store(PG, ALL, identity="?/20000")
    assert converged(postgres=other).others() == {"postgres": ALL}


def test_a_run_that_sees_more_of_an_identity_records_it_once():
    half = replace(ALL, members={**ALL.members, "postgres": replace(PG, identity="?/16384")})
    known = {"postgres": store(PG, half), "redis": store(REDIS, half)}
    due = Recollection(known, ("postgres", "redis")).to_record(NEW)
    assert due["postgres"].members["postgres"].identity == "1/16384"


def test_a_bystander_is_a_witness_and_is_neither_judged_nor_written():
    aside = replace(store(REDIS, ALL), is_bystander=True)
    found = Recollection({"postgres": blank(PG), "redis": aside}, ("postgres", "milvus", "redis"))
    assert found.losses()["postgres"].remembered_by == ("redis",)
    due = found.to_record(NEW)
    assert list(due) == ["postgres"]
    assert (due["postgres"].key, due["postgres"].members["redis"]) == ("k1", REDIS)
    lost = replace(blank(REDIS), is_bystander=True)
    assert Recollection({"postgres": store(PG, ALL), "redis": lost}).losses() == {}


def test_no_record_of_ours_takes_the_key_of_a_newer_version():
    newer = store(PG, newer_keys=frozenset({"k1"}))
    known = {"postgres": newer, "redis": store(REDIS, replace(ALL, members={"redis": REDIS}))}
    due = Recollection(known, ("postgres", "redis")).to_record(NEW)
    assert list(due) == ["postgres", "redis"]
    [key] = {record.key for record in due.values()}
    assert key != "k1"
    again = {
        "postgres": replace(newer, recall=replace(newer.recall, memories=(due["postgres"],))),
        "redis": store(REDIS, ALL, due["redis"]),
    }
    assert Recollection(again, ("postgres", "redis")).to_record(NEW) == {}


def test_a_full_store_renews_its_own_record_and_says_that_it_takes_no_other():
    newer = replace(NEW, fingerprint="f2")
    full = converged(redis=store(REDIS, ALL, full="It is full."))
    assert (list(full.to_record(newer)), full.without_room()) == (
        ["postgres", "milvus", "redis"],
        {},
    )
    lacking = converged(redis=store(REDIS, full="It is full."))
    assert list(lacking.to_record(newer)) == ["postgres", "milvus"]
    assert lacking.without_room() == {"redis": "It is full."}
