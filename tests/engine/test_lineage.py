"""One rule says how what a store records stands to what a blueprint declares."""

from __future__ import annotations

import pytest

from is_db_bootstrap.engine.lineage import Comparison, Lineage, Standing, Step

CHAIN = Lineage.in_order


def standing(recorded, declared):
    return recorded.compare(declared).standing


@pytest.mark.parametrize(
    ("recorded", "declared", "expected"),
    [
        ((), (), Comparison(Standing.SAME)),
        ("abc", "abc", Comparison(Standing.SAME)),
        ((), "ab", Comparison(Standing.PENDING, pending=("a", "b"))),
        ("a", "abc", Comparison(Standing.PENDING, pending=("b", "c"))),
        ("abcd", "ab", Comparison(Standing.AHEAD, beyond=("c", "d"))),
        ("abd", "abc", Comparison(Standing.DIVERGED, pending=("c",), beyond=("d",))),
        ("ac", "abc", Comparison(Standing.DIVERGED, pending=("b",), skipped=("b",))),
        ("abcd", "axbc", Comparison(Standing.DIVERGED, ("x",), ("d",), skipped=("x",))),
        ("abc", "ac", Comparison(Standing.DIVERGED, beyond=("b",), between=("b",))),
        ("abc", "acb", Comparison(Standing.DIVERGED, moved=("b",))),
    ],
)
def test_two_lines_are_compared_by_containment_and_order(recorded, declared, expected):
    assert CHAIN(*recorded).compare(CHAIN(*declared)) == expected


def test_a_branch_that_is_not_done_is_pending_and_not_skipped():
    merged = Lineage((Step("a"), Step("b", ("a",)), Step("c", ("a",)), Step("d", ("b", "c"))))
    assert CHAIN("a", "b").compare(merged) == Comparison(Standing.PENDING, pending=("c", "d"))
    recorded = Lineage((Step("a"), Step("b"), Step("d")))
    assert recorded.compare(merged).skipped == ("c",)


def test_a_recorded_step_of_a_merged_branch_is_ahead_and_not_between():
    recorded = Lineage((Step("a"), Step("x", ("a",)), Step("b", ("a",)), Step("m", ("x", "b"))))
    assert standing(recorded, CHAIN("a", "b")) is Standing.AHEAD


def test_last_steps_alone_stand_for_what_led_to_them():
    declared = CHAIN("a", "b", "c")
    assert standing(Lineage((Step("c"),), is_complete=False), declared) is Standing.SAME
    assert Lineage((Step("b"),), is_complete=False).compare(declared).pending == ("c",)


def test_an_unknown_last_step_without_a_lineage_is_not_ahead():
    recorded = Lineage((Step("z"),), is_complete=False)
    assert standing(recorded, CHAIN("a", "b")) is Standing.UNKNOWN


def test_another_text_under_one_name_has_diverged():
    recorded = Lineage((Step("1", digests=frozenset({"x"})),))
    declared = Lineage((Step("1", digests=frozenset({"y"})),))
    assert recorded.compare(declared) == Comparison(Standing.DIVERGED, rewritten=("1",))


def test_another_text_of_a_step_that_may_repeat_is_pending_and_no_state_of_newer_code():
    new = Lineage((Step("1", digests=frozenset({"y"}), may_repeat=True),))
    texts = {"x"}
    for standing, names in ((Standing.PENDING, ("1",)), (Standing.DIVERGED, ("1", "2"))):
        recorded = Lineage(tuple(Step(name, digests=frozenset(texts)) for name in names))
        assert recorded.compare(new) == Comparison(standing, pending=("1",), beyond=names[1:])


def test_newer_code_that_has_rewritten_a_text_is_ahead_of_the_older_text():
    texts = frozenset({"old", "new"})
    recorded = Lineage((Step("1", digests=texts), Step("2", digests=frozenset({"z"}))))
    declared = Lineage((Step("1", digests=frozenset({"old"})),))
    assert standing(recorded, declared) is Standing.AHEAD


def test_a_step_that_an_assumption_kept_out_may_come_late():
    declared = Lineage((Step("1"), Step("2", ("1",), may_come_late=True), Step("3", ("2",))))
    recorded = Lineage((Step("1"), Step("3")))
    assert recorded.compare(declared) == Comparison(Standing.PENDING, pending=("2",))
