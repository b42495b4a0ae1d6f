"""Ready-made observers. Any callable that takes an `Event` is an observer."""

from is_db_bootstrap.observers.logging import to_log

__all__ = ["to_log"]
