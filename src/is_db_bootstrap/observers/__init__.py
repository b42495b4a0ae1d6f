"""Ready-made observers; any callable that takes an `Event` is one."""

from is_db_bootstrap.observers.logging import to_log

__all__ = ["to_log"]
