"""The record of key conventions, and what follows from two of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprints.novel_genesis.keys import CHANNELS, KEYS
from is_db_bootstrap.stores.redis.convention_record import Record

BLUEPRINT = Blueprint("novel_genesis", "", keys=KEYS, channels=CHANNELS)
OLD = Record.declared(replace(BLUEPRINT, keys=KEYS[:-1]))
NEW = Record.declared(BLUEPRINT)


def test_a_record_reads_what_it_wrote():
    assert Record.read(NEW.text()) == NEW
    assert Record.read(NEW.text().encode()).conventions == NEW.conventions


def test_older_code_recognises_newer_conventions():
    recorded = NEW.after(OLD)
    assert recorded.goes_beyond(OLD)
    assert not recorded.goes_beyond(NEW)
    assert not OLD.goes_beyond(NEW)


def test_an_edited_record_is_not_newer():
    edited = replace(NEW.after(OLD), patterns={})
    assert not edited.goes_beyond(OLD)


def test_the_difference_names_what_is_added_changed_and_removed():
    assert NEW.difference(OLD) == "add session_lock"
    assert OLD.difference(NEW) == "remove session_lock"
    longer = Record.declared(replace(BLUEPRINT, keys=(replace(KEYS[0], ttl=60), *KEYS[1:])))
    assert longer.difference(NEW) == "change dialogue_session"
    assert NEW.difference(None).startswith("record 12 key patterns")


@pytest.mark.parametrize(
    "text", ["nonsense", "[]", "{}", "3", b"\xff", '{"blueprint": 1, "patterns": [], "channels": {}, "history": []}']
)
def test_a_text_that_is_no_record_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        Record.read(text)


def test_the_history_stays_bounded():
    record = NEW
    for number in range(150):
        record = Record.declared(replace(BLUEPRINT, keys=(replace(KEYS[0], ttl=number + 1),))).after(record)
    assert len(record.history) == 100
    assert record.history[-1] == record.digest
