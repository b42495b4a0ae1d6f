"""Which threads run user code that we have called, and which belong to the program around us."""

from __future__ import annotations

import threading


class GuestThreads:
    """The thread that makes this, and all threads that begin afterwards.

    SQLAlchemy's events are heard in every thread. What the threads do that are there already is
    none of our affair: a program has engines of its own.
    """

    def __init__(self) -> None:
        self._others = set(threading.enumerate()) - {threading.current_thread()}

    def is_here(self) -> bool:
        """Whether the calling thread is one of them."""
        return threading.current_thread() not in self._others
