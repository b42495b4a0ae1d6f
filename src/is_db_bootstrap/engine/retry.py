"""Trying again: one named error, within one deadline, with jitter. All times are seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from is_db_bootstrap.errors import StoreBusy, StoreUnavailable

T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often.

    `deadline_s` bounds waiting for stores and locks together; `busy_attempts` the repeats of one
    change on `StoreBusy` (12, as long-running migrations need in practice: treg#497).
    """

    deadline_s: float = 60.0
    initial_s: float = 0.1
    maximum_s: float = 2.0
    busy_attempts: int = 12
    busy_initial_s: float = 0.2
    busy_maximum_s: float = 5.0
    clock: Clock = field(default=time.monotonic, repr=False)
    #: None: a sleep that a signal ends.
    sleep: Sleep | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the policy's clock."""

    at: float
    clock: Clock = field(default=time.monotonic, repr=False)

    @classmethod
    def of(cls, policy: RetryPolicy) -> Deadline:
        """The moment `policy.deadline_s` from now."""
        return cls(policy.clock() + policy.deadline_s, policy.clock)

    def left_s(self) -> float:
        """What is left, never negative."""
        return max(0.0, self.at - self.clock())


def until(
    policy: RetryPolicy,
    deadline: Deadline,
    call: Callable[[float], T],
    *,
    sleep: Sleep | None = None,
    on_retry: Callable[[StoreUnavailable], None] = lambda _: None,
) -> T:
    """Call until it succeeds, at least once; raise its last `StoreUnavailable` at the deadline.

    `call` receives what is left of the deadline. Any other error ends it at once.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreUnavailable):
            on_retry(error)

    wait = _growing(policy.initial_s, policy.maximum_s, jitter_s=policy.initial_s)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=lambda state: min(wait(state), deadline.left_s()),
        stop=lambda _: deadline.left_s() <= 0,
        sleep=sleep or policy.sleep or time.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(lambda: call(max(deadline.left_s(), 0.1)))


def while_busy(
    policy: RetryPolicy,
    call: Callable[[], T],
    *,
    sleep: Sleep | None = None,
    on_retry: Callable[[StoreBusy], None] = lambda _: None,
) -> T:
    """Call until it does not raise `StoreBusy`, at most `policy.busy_attempts` times."""

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreBusy):
            on_retry(error)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreBusy),
        wait=_growing(policy.busy_initial_s, policy.busy_maximum_s, jitter_s=1.0),
        stop=tenacity.stop_after_attempt(policy.busy_attempts),
        sleep=sleep or policy.sleep or time.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(call)


def _growing(first_s: float, longest_s: float, jitter_s: float) -> tenacity.wait.wait_base:
    return tenacity.wait_exponential(first_s, longest_s) + tenacity.wait_random(0, jitter_s)
