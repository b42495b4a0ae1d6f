"""Trying again: one named error, within one deadline, with jitter. All times are seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Self, TypeVar

import tenacity

from is_db_bootstrap.errors import StoreBusy, StoreUnavailable
from is_db_bootstrap.results import Change
from is_db_bootstrap.settings.timing import DEFAULT, Timing

#: Seconds that a call gets at least, also after the deadline.
LEAST_CALL_S = 0.1

T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long and how often a run tries again. The defaults are those of `Timing`.

    `deadline_s` bounds waiting for stores and locks together. `busy_attempts` bounds how often a
    change that meets `StoreBusy` is tried. `lock_timeout_s` is how long a change waits for a lock
    of somebody else before it counts as busy, on a store that has no such limit itself.
    """

    deadline_s: float = DEFAULT.timeout_s
    initial_s: float = DEFAULT.retry_initial_s
    maximum_s: float = DEFAULT.retry_maximum_s
    busy_attempts: int = DEFAULT.busy_attempts
    busy_initial_s: float = DEFAULT.busy_initial_s
    busy_maximum_s: float = DEFAULT.busy_maximum_s
    lock_timeout_s: float = DEFAULT.lock_timeout_s
    clock: Clock = field(default=time.monotonic, repr=False)
    #: None: a sleep that a signal ends.
    sleep: Sleep | None = field(default=None, repr=False)

    @classmethod
    def of(cls, timing: Timing) -> Self:
        """The policy that `timing` asks for."""
        return cls(
            deadline_s=timing.timeout_s,
            initial_s=timing.retry_initial_s,
            maximum_s=timing.retry_maximum_s,
            busy_attempts=timing.busy_attempts,
            busy_initial_s=timing.busy_initial_s,
            busy_maximum_s=timing.busy_maximum_s,
            lock_timeout_s=timing.lock_timeout_s,
        )


class Limit(Protocol):
    """What `until` and `while_busy` need to know of a deadline."""

    def left_s(self) -> float:
        """Seconds that are left, never negative."""


def until(
    policy: RetryPolicy,
    deadline: Limit,
    call: Callable[[float], T],
    *,
    sleep: Sleep | None = None,
    on_retry: Callable[[StoreUnavailable], None] = lambda _: None,
) -> T:
    """Call until `call` succeeds, and at least once.

    `call` receives the seconds that are left. Raises the last `StoreUnavailable` at the deadline.
    Any other error is raised at once.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreUnavailable):
            on_retry(error)

    wait = _growing_wait(policy.initial_s, policy.maximum_s, jitter_s=policy.initial_s)
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreUnavailable),
        wait=lambda state: min(wait(state), deadline.left_s()),
        stop=lambda _: deadline.left_s() <= 0,
        sleep=sleep or policy.sleep or time.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(lambda: call(max(deadline.left_s(), LEAST_CALL_S)))


def while_busy(
    policy: RetryPolicy,
    call: Callable[[], T],
    *,
    left_s: Callable[[], float | None] = lambda: None,
    sleep: Sleep | None = None,
    on_retry: Callable[[StoreBusy], None] = lambda _: None,
) -> T:
    """Call until `call` does not raise `StoreBusy`, at most `policy.busy_attempts` times.

    `left_s` are the seconds after which there is no further attempt. None means no such limit.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, StoreBusy):
            on_retry(error)

    enough = tenacity.stop_after_attempt(policy.busy_attempts)

    def stop(state: tenacity.RetryCallState) -> bool:
        left = left_s()
        return enough(state) or (left is not None and left <= 0)

    growing = _growing_wait(policy.busy_initial_s, policy.busy_maximum_s, jitter_s=1.0)

    def wait(state: tenacity.RetryCallState) -> float:
        left = left_s()
        return growing(state) if left is None else min(growing(state), left)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(StoreBusy),
        wait=wait,
        stop=stop,
        sleep=sleep or policy.sleep or time.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )
    return retrying(call)


def while_busy_change(
    policy: RetryPolicy,
    change: Change,
    call: Callable[[], T],
    *,
    sleep: Sleep | None = None,
    on_retry: Callable[[StoreBusy], None] = lambda _: None,
) -> T:
    """Make a change, as `while_busy` calls, if it is one that may run again unasked.

    Any other change is made once: a part of it may be done, and nobody knows which.
    """
    if not change.nature.may_run_again:
        return call()
    return while_busy(policy, call, sleep=sleep, on_retry=on_retry)


def _growing_wait(first_s: float, longest_s: float, jitter_s: float) -> tenacity.wait.wait_base:
    """Waits that double from `first_s` to `longest_s`, with up to `jitter_s` added to each."""
    return tenacity.wait_exponential(first_s, longest_s) + tenacity.wait_random(0, jitter_s)
