"""A run takes the lock that ends with its session first, and lets the other stores know it."""

from __future__ import annotations

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.store import Anchor, LeftLease
from is_db_bootstrap.errors import AccessDenied, StoreUnavailable
from is_db_bootstrap.results import LockHolder
from is_db_bootstrap.testing import InMemoryBootstrapper

ANCHOR = Anchor("a lock", "a session")


class Anchoring(InMemoryBootstrapper):
    found: Anchor | None = ANCHOR

    def anchor(self):
        if self.found is None:
            raise StoreUnavailable(self.name, "The server does not answer.")
        return self.found


class TakingOver(InMemoryBootstrapper):
    known: Anchor | str | None = "never told"
    #: The anchor that a lease of another run records, which holds the lock then.
    left: Anchor | None = None

    def left_lease(self):
        if self.lock_owner is None:
            return None
        return LeftLease(LockHolder(self.lock_owner), is_over=False, anchor=self.left)

    def try_lock(self, owner):
        if self.left is not None and self.left_lease().has_lost(self.known):
            self.lock_owner = None
        return super().try_lock(owner)

    def know_anchor(self, anchor):
        self.calls.append("anchor")
        self.known = anchor


def test_the_anchor_is_held_from_the_first_lock_to_the_end_also_with_nothing_pending_there():
    anchor, leased = Anchoring("postgres", ["a"], applied=["a"]), TakingOver("neo4j", ["b"])
    held = []
    leased.on_apply = lambda _: held.append(anchor.lock_owner)
    assert BootstrapOrchestrator([leased, anchor]).run().outcome == "changed"
    assert held[0] is not None
    assert leased.known == ANCHOR
    assert leased.calls.index("anchor") < leased.calls.index("lock")
    assert anchor.lock_owner is None


def test_a_run_with_nothing_to_do_takes_no_anchor():
    anchor = Anchoring("postgres", ["a"], applied=["a"])
    BootstrapOrchestrator([anchor, TakingOver("neo4j", ["b"], applied=["b"])]).run()
    assert "lock" not in anchor.calls


def test_a_lost_anchor_fails_the_run_before_the_next_change_of_another_store():
    anchor, leased = Anchoring("postgres"), TakingOver("neo4j", ["b", "c"])

    def steal(_):
        anchor.lock_owner = "a thief"

    leased.on_apply = steal
    result = BootstrapOrchestrator([anchor, leased], lock=LockPolicy(fresh_s=0)).run()
    assert (result.exit_code, leased.applied) == (4, ["b"])


@pytest.mark.parametrize("stores", ["unreadable", "without an anchor"])
def test_no_anchor_is_told_where_none_is_held_or_can_be_read(stores):
    leased = TakingOver("neo4j", ["b"])
    other = Anchoring("postgres") if stores == "unreadable" else InMemoryBootstrapper("postgres")
    other.found = None
    assert BootstrapOrchestrator([other, leased]).run().exit_code == 0
    assert leased.known is None


LOST = Anchor(ANCHOR.lock, "an earlier session")


def left_behind(anchor, applied=("b",)):
    """A store with nothing pending, and with the lease of another run that records `anchor`."""
    store = TakingOver("neo4j", ["b"], applied=applied)
    store.lock_owner, store.left = "a killed run", anchor
    return store


@pytest.mark.parametrize("pending", [[], ["a"]], ids=["nothing pending", "pending elsewhere"])
def test_the_lease_of_a_run_that_lost_its_anchor_is_removed_also_with_nothing_pending(pending):
    anchor, leased = Anchoring("postgres", pending), left_behind(LOST)
    result = BootstrapOrchestrator([anchor, leased]).run()
    assert result.exit_code == 0
    assert leased.lock_owner is None
    assert anchor.lock_owner is None
    assert "removed the lock of a run that has lost its other lock: a killed run" in str(
        result.stores[1].notes
    )


@pytest.mark.parametrize(
    ("held_by", "recorded"),
    [("a run at work", LOST), (None, ANCHOR), (None, Anchor("another lock", "x")), (None, None)],
    ids=["its run is at work", "the same session", "another lock", "no anchor"],
)
def test_a_lease_whose_run_has_not_provably_lost_its_anchor_stays(held_by, recorded):
    anchor, leased = Anchoring("postgres", ["a"], applied=["a"]), left_behind(recorded)
    anchor.lock_owner = held_by
    result = BootstrapOrchestrator([anchor, leased]).run()
    assert (result.exit_code, result.stores[1].notes) == (0, ())
    assert leased.lock_owner == "a killed run"
    assert anchor.lock_owner == held_by


@pytest.mark.parametrize(
    ("refused", "note"),
    [("left_lease", "could not be seen: No."), ("know_anchor", "could not be removed: No.")],
)
def test_a_lease_that_cannot_be_seen_or_removed_is_a_note(refused, note):
    anchor, leased = Anchoring("postgres"), left_behind(LOST)

    def refuse(*_):
        raise AccessDenied("neo4j", "No.")

    setattr(leased, refused, refuse)
    result = BootstrapOrchestrator([anchor, leased]).run()
    assert result.exit_code == 0
    assert note in result.stores[1].notes[0]
