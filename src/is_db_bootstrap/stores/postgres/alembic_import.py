"""Importing Alembic while the stores answer, because both take about as long."""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress


class AlembicImport:
    """Imports what revisions need, once it is known that one is due."""

    def __init__(self) -> None:
        #: Whether the last plan has a revision, and nothing was imported for it.
        self.is_due = False

    def begin(self) -> None:
        """Import in a thread of its own what revisions need, if any are due.

        It is begun in the first step that only a run that changes something takes.
        """
        if self.is_due:
            self.is_due = False
            threading.Thread(target=_import_alembic, name="import-alembic", daemon=True).start()


def _import_alembic() -> None:
    with suppress(ImportError):  # told by the revision that needs it
        # Alembic first, as `alembic` does: two threads that enter SQLAlchemy from two sides meet
        # half of it.
        importlib.import_module("alembic")
        importlib.import_module("is_db_bootstrap.stores.postgres.alembic")
