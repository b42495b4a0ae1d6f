"""The processes below one process: who they are, whom they talk to, and how to end all of them.

A child that leaves its process group or its session, or that clears its environment, still has a
parent. So a process is found by its descent and by nothing else. On Linux a process can adopt the
orphans below it (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so that a child whose parent has ended does
not get out of sight either. A process that a service such as a container engine has started is no
descendant, and is not found.

All of this reads `/proc`. Where there is no `/proc`, no descendant is found.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path

_PROC = Path("/proc")
#: From <linux/prctl.h>.
_PR_SET_CHILD_SUBREAPER = 36
#: States of a process that has ended (proc_pid_stat(5)).
_ENDED = frozenset("ZXx")
#: The state of an established connection in /proc/net/tcp.
_ESTABLISHED = "01"
#: How the target of an open file begins that is a socket.
_SOCKET = "socket:["
#: Seconds between two looks at processes that were killed.
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Client:
    """A TCP connection as its client sees it: the client's address and port, and the server's."""

    address: str
    port: int
    server_address: str
    server_port: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What `end_descendants` found: the connections of the processes, and who is still alive.

    `survivors` are descriptions for a person, such as `process 123 (sleep)`.
    """

    clients: frozenset[Client] = frozenset()
    survivors: tuple[str, ...] = ()


def adopt_orphans() -> bool:
    """From now on, let this process be the parent of every orphan among its descendants.

    Returns whether the system can do that.
    """
    import ctypes  # takes a while, and most runs change nothing

    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return int(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) == 0


def descendants(root: int, spared: Iterable[int] = ()) -> list[int]:
    """The living processes below `root`, parents first.

    The processes of `spared` are left out, and so are all processes below these.
    """
    children: dict[int, list[int]] = {}
    states: dict[int, str] = {}
    for pid, parent, state in _all_processes():
        children.setdefault(parent, []).append(pid)
        states[pid] = state
    left_out = set(spared)
    found: list[int] = []
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(0), []):
            if pid in left_out:
                continue
            waiting.append(pid)
            if states[pid] not in _ENDED:
                found.append(pid)
    return found


def end_descendants(root: int, spared: Iterable[int] = (), *, within_s: float = 10.0) -> Ended:
    """Kill every process below `root`, and wait until the last one is gone.

    All processes are stopped first, so that none starts another one, or opens a connection, while
    the others are looked at. `root` itself goes on. A process of another user, and one that hangs
    in the kernel, may survive, and `Ended.survivors` names each survivor. `within_s` is seconds.
    """
    spared = tuple(spared)
    deadline = time.monotonic() + within_s
    stopped = _stop_all(root, spared, deadline)
    clients = frozenset(client for pid in stopped for client in connections(pid))
    while alive := descendants(root, spared):
        for pid in alive:
            _send_signal(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return Ended(clients, tuple(_process_text(pid) for pid in alive))
        time.sleep(_LOOK_S)
    return Ended(clients)


def connections(pid: int) -> Iterator[Client]:
    """The established TCP connections of a process. None where we may not look at the process."""
    inodes = _socket_inodes(pid)
    if not inodes:
        return
    for inode, client in _established(pid).items():
        if inode in inodes:
            yield client


def _established(pid: int) -> dict[str, Client]:
    """Every established TCP connection that the process could see, by the inode of its socket.

    That is every one of this machine, or of the container that the process is in.
    """
    found: dict[str, Client] = {}
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            lines = (_PROC / str(pid) / "net" / table).read_text().splitlines()
            for line in lines[1:]:  # the first line is the table's head
                fields = line.split()
                if fields[3] == _ESTABLISHED:
                    ends = *_read_endpoint(fields[1]), *_read_endpoint(fields[2])
                    found[fields[9]] = Client(*ends)
    return found


def is_in_use(client: Client) -> bool:
    """Whether a process of this machine has the connection, as far as can be seen."""
    return client in set(_established(os.getpid()).values())


def _stop_all(root: int, spared: tuple[int, ...], deadline: float) -> set[int]:
    """Stop all processes below `root`, until a look finds no new one."""
    stopped: set[int] = set()
    while time.monotonic() < deadline:
        new = set(descendants(root, spared)) - stopped
        if not new:
            break
        for pid in new:
            _send_signal(pid, signal.SIGSTOP)
        stopped |= new
    return stopped


def _send_signal(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone, or that may be somebody else's."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _all_processes() -> Iterator[tuple[int, int, str]]:
    """Number, parent and state of every process that can be seen."""
    for entry in _PROC.glob("[0-9]*"):
        with suppress(OSError, ValueError):
            text = (entry / "stat").read_text(errors="replace")
            # The name stands in brackets and may hold anything, brackets included.
            behind_the_name = text.rpartition(")")[2]
            state, parent, *_ = behind_the_name.split()
            yield int(entry.name), int(parent), state


def _process_text(pid: int) -> str:
    """A process for a person, such as `process 123 (sleep)`."""
    name = ""
    with suppress(OSError):
        name = (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
    is_shown = bool(name) and name.isprintable()
    return f"process {pid} ({name})" if is_shown else f"process {pid}"


def _socket_inodes(pid: int) -> set[str]:
    """The inodes of a process's sockets, which are the targets `socket:[INODE]` of its files."""
    found: set[str] = set()
    with suppress(OSError):
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith(_SOCKET):
                    found.add(target.removeprefix(_SOCKET).removesuffix("]"))
    return found


def _read_endpoint(text: str) -> tuple[str, int]:
    """Address and port of `ADDRESS:PORT` as /proc/net/tcp has it, in hexadecimal digits.

    The kernel writes an address as words of 32 bits in the machine's own byte order.
    """
    address, _, port = text.partition(":")
    digits = [address[start : start + 8] for start in range(0, len(address), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in digits)
    return plain_address(str(ip_address(packed))), int(port, 16)


def plain_address(text: str) -> str:
    """An address in one spelling. An IPv4 address within IPv6 becomes the IPv4 address.

    Text that is no address is returned as it is.
    """
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(found)
