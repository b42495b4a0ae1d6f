"""The lock of a run: a lease on one key, which Redis forgets when its run dies.

The key holds token, owner and since. The token ends with the machine of the process. The key is
renewed and deleted only while it holds our token, so that a lapsed lease touches no other run's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from is_db_bootstrap.engine.owner import host_of, is_running, machine, process_of
from is_db_bootstrap.engine.store import Anchor, LeftLease, Life, PresentLock
from is_db_bootstrap.results import LockHolder

#: What a run sends for the key of its lock.
COMMANDS = ("GET", "SET", "PEXPIRE", "DEL")

#: Sends a command while the key holds the value. False, and nothing is done, when it does not.
Write = Callable[[str, bytes, Sequence[str | int]], bool]


@dataclass(slots=True)
class Lease:
    """A held lock, or one that is to be taken, of `lease_ms` milliseconds."""

    write: Write
    key: str
    value: bytes
    lease_ms: int
    #: Whether it was given back, or found lost when it was to be given back.
    ended: bool = False

    @classmethod
    def new(
        cls, write: Write, key: str, owner: str, lease_s: float, anchor: Anchor | None = None
    ) -> Lease:
        """A lease with a token of its own. It records the anchor of its run, if there is one."""
        since = datetime.now(UTC).isoformat(timespec="milliseconds")
        token = f"{uuid.uuid4().hex}@{machine()}"
        facts = {"token": token, "owner": owner, "since": since}
        if anchor is not None:
            facts |= {"anchor": anchor.lock, "session": anchor.session}
        value = json.dumps(facts)
        return cls(write, key, value.encode(), max(1, int(lease_s * 1000)))

    @property
    def lease_s(self) -> float:
        """Seconds from a renewal to the moment when another run may take the lock."""
        return self.lease_ms / 1000

    def take_from(self, value: bytes) -> bool:
        """Put this lease in the place of another one, if the key still holds that one's `value`."""
        return self.write(
            self.key, value, ("SET", self.key, self.value.decode(), "PX", self.lease_ms)
        )

    def confirm(self) -> bool:
        """Whether the key still holds our token; gives it the full lease again."""
        return self.write(self.key, self.value, ("PEXPIRE", self.key, self.lease_ms))

    def release(self) -> bool:
        """Delete the key if it still holds our token."""
        self.ended = True
        return self.write(self.key, self.value, ("DEL", self.key))


def left_lease(value: Any) -> LeftLease | None:
    """The lease that the key holds. It is not over, because Redis forgets one that is."""
    return None if value is None else LeftLease(holder(value), is_over=False, anchor=_anchor(value))


def _anchor(value: Any) -> Anchor | None:
    """The anchor that a lease records. None when it records none."""
    try:
        told = json.loads(value)
        return Anchor(str(told["anchor"]), str(told["session"]))
    except (ValueError, KeyError, TypeError):
        return None


def holder(value: Any, left_ms: int | None = None) -> LockHolder:
    """Who holds it, from what the key holds; None when it has just gone.

    `left_ms` is what the server says of its end: milliseconds, or less than 0 for none.
    """
    if value is None:
        return LockHolder("a run that has ended this moment")
    left_s = left_ms / 1000 if left_ms is not None and left_ms >= 0 else None
    try:
        told = json.loads(value)
        owner, since = str(told["owner"]), datetime.fromisoformat(told["since"])
    except (ValueError, KeyError, TypeError):
        who = f"someone else, who wrote {len(value)} bytes that are no lock of this tool"
        return LockHolder(who, lease_left_s=left_s)
    return LockHolder(owner, since, host_of(owner), process_of(owner), left_s)


def present(value: bytes, left_ms: int | None) -> PresentLock:
    """The lock that the key holds now, and whether its holder is at work.

    `left_ms` is as `holder` has it.
    """
    found = holder(value, left_ms)
    return PresentLock(found, *_life(value, found, left_ms), value)


def _life(value: bytes, found: LockHolder, left_ms: int | None) -> tuple[Life, str]:
    if left_ms is not None and found.lease_left_s is None:
        return Life.UNKNOWN, "The key has no lifetime, so it does not lapse by itself."
    try:
        told_on = str(json.loads(value)["token"]).partition("@")[2]
    except (ValueError, KeyError, TypeError):
        told_on = ""
    runs = is_running(told_on, found.pid)
    if runs is None:
        why = "Whether its process runs cannot be seen from here."
        if found.lease_left_s is not None:
            why += f" If it does not, the lock lapses in {found.lease_left_s:.0f} s."
        return Life.UNKNOWN, why
    if runs:
        return Life.ALIVE, f"Process {found.pid} runs on this machine."
    return Life.DEAD, f"Process {found.pid} of this machine does not run any more."
