"""Records of converged stores for tests."""

from __future__ import annotations

from datetime import UTC, datetime

from is_db_bootstrap.engine.memory import Member, Memory

WHEN = datetime(2026, 11, 20, 8, 30, tzinfo=UTC)


def record(store, key="a" * 32, *, blueprint="mine", holds=(), **changes):
    """A record in which one store is a member."""
    given = {
        "key": key,
        "blueprint": blueprint,
        "fingerprint": "f" * 12,
        "run_id": "run-1",
        "version": "0.9.0",
        "recorded_at": WHEN,
        "members": {store: Member("an identity", "a place", "an address", tuple(holds))},
    }
    return Memory(**{**given, **changes})
