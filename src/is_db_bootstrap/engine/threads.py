"""Threads that nobody has to wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from is_db_bootstrap.sentences import end_sentence

#: The name of a thread whose call may be left behind without harm: a question, a cancel.
_BESIDE_THREAD = "is-db-bootstrap-beside"

T = TypeVar("T")


def start_thread(call: Callable[[], T], name: str = _BESIDE_THREAD) -> Future[T]:
    """Run `call` in a daemon thread called `name`.

    An executor's threads would keep the process from ending after a signal.
    """
    future: Future[T] = Future()

    def target() -> None:
        try:
            result = call()
        except Exception as exc:  # noqa: BLE001 - handed to the thread that asks for the result
            future.set_exception(exc)
        except BaseException as exc:  # noqa: BLE001 - an exit in a thread must not end the process
            said = end_sentence(f"A step of the run raised {type(exc).__name__}: {exc}")
            failure = RuntimeError(said)
            failure.__cause__ = exc
            future.set_exception(failure)
        else:
            future.set_result(result)

    threading.Thread(target=target, name=name, daemon=True).start()
    return future


def call_within(seconds: float, calls: Sequence[Callable[[], T]]) -> list[Future[T]]:
    """Make all `calls` at once, and wait for them for at most `seconds`.

    A future that is not done belongs to a call that has not come back.
    """
    futures = [start_thread(call) for call in calls]
    wait(futures, timeout=seconds)
    return futures
