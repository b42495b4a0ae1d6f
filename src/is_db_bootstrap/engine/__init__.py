"""The run: wait → plan → lock → plan again → apply → verify, over all the stores of a blueprint."""

from is_db_bootstrap.engine.orchestrator import BootstrapOrchestrator
from is_db_bootstrap.engine.track import LockPolicy

__all__ = ["BootstrapOrchestrator", "LockPolicy"]
