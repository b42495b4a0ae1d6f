"""The record of key conventions, and what follows from two of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.blueprints.novel_genesis.keys import CHANNELS, KEYS
from is_db_bootstrap.engine.lineage import Standing
from is_db_bootstrap.stores.redis.convention_record import Order, Record
from is_db_bootstrap.stores.redis.planned_commands import shown_record

BLUEPRINT = Blueprint("novel_genesis", "", keys=KEYS, channels=CHANNELS)
OLD = Record.declared(replace(BLUEPRINT, keys=KEYS[:-1]))
NEW = Record.declared(BLUEPRINT)


def test_a_record_reads_what_it_wrote():
    assert Record.read(NEW.text()) == NEW
    assert Record.read(NEW.text().encode()).conventions == NEW.conventions


def version(**lifetimes):
    """A declaration of these keys, each with its lifetime in seconds."""
    keys = [
        KeyPattern(name, f"{name}:{{id}}", "string", ttl, "app", "for tests")
        for name, ttl in lifetimes.items()
    ]
    return Record.declared(Blueprint("shop", "", keys=tuple(keys)))


def recorded(*versions, at=0.0, together=False):
    """What is in the store after these versions, one after the other."""
    record = None
    for each in versions:
        if record is not None and record.compare(each, together=together).order is Order.SUPPOSED:
            record = record.remembering(each)
        elif (
            record is None or record.compare(each, together=together).standing is not Standing.SAME
        ):
            record = each.after(record, at, together=together)
    return Record.read(record.text())


def test_older_code_recognises_newer_conventions():
    assert recorded(OLD, NEW).compare(OLD).standing is Standing.AHEAD
    assert recorded(OLD, NEW).compare(NEW).standing is Standing.SAME
    assert recorded(OLD).compare(NEW).standing is Standing.PENDING


def test_a_hotfix_that_changes_what_the_last_version_changed_is_the_next_version():
    last, hotfix = version(a=120), version(a=30)
    held = recorded(version(a=60), last, hotfix)
    assert held.conventions == hotfix.conventions
    assert held.compare(last).standing is Standing.AHEAD


def test_an_edited_record_is_written_again_by_its_version_and_still_newer_than_older_ones():
    edited = Record.read(replace(NEW.after(OLD.after(None)), patterns={}).text())
    assert edited.compare(NEW).standing is Standing.PENDING
    assert edited.compare(OLD).standing is Standing.AHEAD
    assert edited.compare(version(a=60)).standing is Standing.PENDING


def test_of_two_versions_that_start_together_the_one_with_all_of_the_other_is_the_newer_for_now():
    for order in ((NEW, OLD), (NEW, OLD, NEW, OLD, OLD)):
        held = recorded(*order, together=True)
        assert held.conventions == NEW.conventions
        assert held.compare(OLD, together=True).order is Order.SUPPOSED
        assert held.compare(OLD).order is Order.UNDECIDED
    assert recorded(OLD, NEW, together=True).compare(OLD).standing is Standing.AHEAD


def test_a_version_that_was_taken_for_the_older_one_wins_with_a_later_run_and_so_does_the_other():
    held = recorded(NEW, OLD, together=True)
    for following in (OLD, NEW, OLD, NEW):
        assert held.compare(following).order is Order.UNDECIDED
        held = Record.read(following.after(held, 1.0).text())
        assert held.conventions == following.conventions


def test_of_two_versions_that_start_together_and_differ_neither_is_older_for_good():
    one, two = version(a=60), version(a=120)
    held = recorded(one, two, together=True)
    assert held.conventions == two.conventions
    for together in (True, False):
        assert held.compare(one, together=together).order is Order.UNDECIDED
    assert recorded(one, two, one, two, one, together=True).conventions == one.conventions


def test_a_version_that_comes_later_than_two_undecided_ones_is_newer_than_both():
    one, two, three = version(a=60), version(a=120), version(a=120, b=1)
    held = three.after(recorded(one, two, together=True), 99.0)
    assert held.compare(one).standing is Standing.AHEAD
    assert held.compare(two).standing is Standing.AHEAD


def test_a_version_that_starts_together_with_two_others_is_newer_only_than_those_that_it_contains():
    one, two, three = version(a=60), version(a=120), version(a=120, b=1)
    held = recorded(one, two, three, together=True)
    assert held.compare(two, together=True).standing is Standing.AHEAD
    assert held.compare(one, together=True).order is Order.UNDECIDED


def test_a_version_with_something_of_the_last_one_is_later_than_that_however_soon_it_comes():
    one, two, three = version(a=60), version(a=60, b=60), version(a=60, b=90)
    held = recorded(one, two, three, together=True)
    assert held.conventions == three.conventions
    assert held.compare(two, together=True).standing is Standing.AHEAD


def test_an_undecided_version_is_no_base_of_a_conflict():
    held = recorded(version(a=60), version(a=120), together=True)
    assert held.compare(version(a=60, b=1)).standing is Standing.PENDING


def test_a_pattern_that_is_removed_later_is_a_change():
    assert recorded(NEW).compare(OLD).standing is Standing.PENDING


def test_a_hotfix_of_an_earlier_version_stands_beside_the_last_one():
    one, two = version(a=60), version(a=60, b=60)
    hotfix = version(a=30)
    assert recorded(one, two).compare(hotfix).standing is Standing.DIVERGED
    assert recorded(one, two).compare(version(a=60, c=60)).standing is Standing.DIVERGED
    assert (
        recorded(version(z=1), one, version(a=60, b=60, c=60)).compare(version(a=60, d=1)).standing
        is Standing.DIVERGED
    )


def test_a_hotfix_of_the_last_version_is_the_next_version():
    one, two = version(a=60), version(a=60, b=60)
    for following in (
        version(a=30, b=60),
        version(a=60, b=30),
        version(b=60),
        version(a=60, b=60, c=60),
    ):
        assert recorded(one, two).compare(following).standing is Standing.PENDING
    assert (
        recorded(version(a=60), version(a=120)).compare(version(a=90)).standing is Standing.PENDING
    )


def test_a_record_of_an_earlier_release_is_read_and_carried_on():
    text = json.loads(recorded(OLD, NEW).text())
    del text["versions"], text["recorded_at"]
    old_release = Record.read(json.dumps(text))
    assert old_release.compare(OLD).standing is Standing.AHEAD
    third = Record.declared(replace(BLUEPRINT, keys=KEYS[1:]))
    assert old_release.compare(third).standing is Standing.PENDING
    assert third.after(old_release, 5.0).history == (*old_release.history, third.digest)
    assert set(third.after(old_release, 5.0).versions) == {NEW.digest, third.digest}


def test_the_difference_names_what_is_added_changed_and_removed():
    assert NEW.difference(OLD) == "add session_lock"
    assert OLD.difference(NEW) == "remove session_lock"
    longer = Record.declared(replace(BLUEPRINT, keys=(replace(KEYS[0], ttl=60), *KEYS[1:])))
    assert longer.difference(NEW) == "change dialogue_session"
    assert NEW.difference(None).startswith("record 12 key patterns")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        "3",
        b"\xff",
        '{"blueprint": 1, "patterns": [], "channels": {}, "history": []}',
    ],
)
def test_a_text_that_is_no_record_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        Record.read(text)


def test_the_history_stays_bounded():
    record = NEW
    for number in range(150):
        record = Record.declared(
            replace(BLUEPRINT, keys=(replace(KEYS[0], ttl=number + 1),))
        ).after(record)
    assert len(record.history) == 100
    assert record.history[-1] == record.digest
    assert len(record.versions) == 20
    assert len(record.text()) < 25_000


def test_a_plan_shows_each_convention_that_the_record_changes():
    before, after = version(a=60, b=None, c=5), version(a=90, b=None, d=7)
    assert shown_record("the:key", before, after).splitlines() == [
        f"SET the:key <conventions {after.digest}>",
        "    ~ key a: a:{id} string, EXPIRE 90 (was a:{id} string, EXPIRE 60)",
        "    + key d: d:{id} string, EXPIRE 7",
        "    - key c",
    ]
    assert "+ key b: b:{id} string, no EXPIRE" in shown_record("the:key", None, before)
    assert shown_record("the:key", before, before).count("\n") == 0
