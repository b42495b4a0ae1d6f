"""Importing Alembic while the stores answer, because both take about as long."""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress


def begin_import() -> None:
    """Import what revisions need, in a thread of its own."""
    threading.Thread(target=_import_alembic, name="import-alembic", daemon=True).start()


def _import_alembic() -> None:
    with suppress(ImportError):  # told by the revision that needs it
        # Alembic first, as `alembic` does: two threads that enter SQLAlchemy from two sides meet
        # half of it.
        importlib.import_module("alembic")
        importlib.import_module("is_db_bootstrap.stores.postgres.alembic")
