"""For tests: stores in memory, with every ability of a real one."""

from is_db_bootstrap.testing.memory import InMemoryBootstrapper

__all__ = ["InMemoryBootstrapper"]
