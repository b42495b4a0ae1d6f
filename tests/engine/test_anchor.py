"""A run takes the lock that ends with its session first, and lets the other stores know it."""

from __future__ import annotations

import pytest

from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.store import Anchor
from is_db_bootstrap.errors import StoreUnavailable
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
