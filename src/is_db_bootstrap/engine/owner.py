"""The process that holds a lock: how a lock names it, and whether it is still there."""

from __future__ import annotations

import getpass
import os
import re
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

#: How every text of an owner begins.
OURS = "is-db-bootstrap "
#: What `describe_owner` has written, now and in earlier versions, also when it was cut off.
_HOST = re.compile(r"\bon ([^\s,]+), (?:user|uid) ")
_PROCESS = re.compile(r"\bprocess (\d+)\b")
#: What tells two boots of a machine apart, and two containers on it (`proc(5)`, `namespaces(7)`).
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def describe_owner(run_id: str) -> str:
    """Who holds a lock, for another run and for the person at its terminal."""
    place = f"on {socket.gethostname()}, {_describe_user()}, process {os.getpid()}"
    return f"{OURS}{run_id} {place}"


def host_of(owner: str) -> str | None:
    """The host in the text of an owner. None where there is none, or it may be cut off."""
    found = _HOST.search(owner)
    return found[1] if found else None


def process_of(owner: str) -> int | None:
    """The process id in the text of an owner. None where there is none."""
    found = _PROCESS.search(owner)
    return int(found[1]) if found else None


@cache
def machine() -> str:
    """What is the same for all processes that can see each other by their ids, and for no others.

    Empty where the system does not tell.
    """
    with suppress(OSError):
        return f"{_BOOT.read_text().strip()}/{_NAMESPACE.readlink()}"
    return ""


def is_running(on_machine: str, process: int | None) -> bool | None:
    """Whether a process of that machine runs. None when that cannot be known from here."""
    if not on_machine or on_machine != machine() or process is None:
        return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _describe_user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):  # a container's uid without an entry in passwd
        return f"uid {os.getuid()}"
