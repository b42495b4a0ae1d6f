"""Four real servers on this machine, as child processes, without Docker and with or without root.

`up` starts or finds the stack, `status` looks, `down` stops it; `stack` is both ends as a context manager.
"""

from is_db_bootstrap.local.running import (
    LocalServer,
    LocalStack,
    down,
    ephemeral_stack,
    stack,
    status,
    up,
)

__all__ = ["LocalServer", "LocalStack", "down", "ephemeral_stack", "stack", "status", "up"]
