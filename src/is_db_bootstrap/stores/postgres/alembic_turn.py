"""Whose turn it is to run Alembic in this process."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from alembic.script import base as script_base

from is_db_bootstrap.errors import StoreUnavailable
from is_db_bootstrap.guests import guest
from is_db_bootstrap.stores.postgres.errors import NAME
from is_db_bootstrap.stores.postgres.revision_folder import SKIPPED_NAMES


class _OneAtATime:
    """A lock whose holder may be given up, because it hangs.

    Whoever wants it afterwards is told so at once.
    """

    #: Seconds between two looks whether the holder was given up.
    _LOOK_S = 0.2

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: int | None = None
        self._given_up = False

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=self._LOOK_S):
            if self._given_up:
                raise StoreUnavailable(
                    NAME,
                    "A revision of an earlier run did not end and still hangs in this process, "
                    "which can run no other.",
                    hint="End this process, and run again in a new one.",
                )
        self._holder = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._holder, self._given_up = None, False
        self._lock.release()

    def give_up(self, thread: int | None) -> None:
        """Count on `thread`, if it is the holder, never to come back; harmless when it does."""
        if thread is not None and thread == self._holder:
            self._given_up = True


#: Alembic keeps its running environment in module globals: two upgrades in threads fail with
#: KeyError('config').
ALEMBIC = _OneAtATime()


@contextmanager
def running_alembic() -> Iterator[None]:
    """One Alembic command at a time, with the user's code as a guest (`guests`).

    Alembic reads `._x.py`, which macOS leaves beside `x.py`, as a revision, so its pattern is
    replaced meanwhile.
    """
    pattern = script_base._only_source_rev_file  # noqa: SLF001 - Alembic has no option for it
    with ALEMBIC, guest():
        is_read = re.compile(rf"(?!{SKIPPED_NAMES.pattern})(.*\.py)$")
        script_base._only_source_rev_file = is_read  # noqa: SLF001 - the same
        try:
            yield
        finally:
            script_base._only_source_rev_file = pattern  # noqa: SLF001 - the same
