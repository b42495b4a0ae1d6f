"""Four real servers on this machine, as child processes, without Docker and with or without root.

`up` starts or finds the stack, `status` looks whether it runs, `down` stops it, and `reset` removes
its data. `stack` is a context manager that does both ends.
"""

from is_db_bootstrap.local.running import (
    down,
    ephemeral_stack,
    require_stack,
    reset,
    stack,
    status,
    up,
)
from is_db_bootstrap.local.stack_folder import LocalServer, LocalStack

__all__ = [
    "LocalServer",
    "LocalStack",
    "down",
    "ephemeral_stack",
    "require_stack",
    "reset",
    "stack",
    "status",
    "up",
]
