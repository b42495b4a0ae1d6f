"""The local stack: how it comes up together, is found again, and goes down."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.places import data_folder
from is_db_bootstrap.local.process import LOOPBACK
from is_db_bootstrap.local.server import Server, silent
from is_db_bootstrap.local.stack_folder import FOLDER_MODE, LocalStack, StackFolder
from is_db_bootstrap.local.start import Start
from is_db_bootstrap.names import STORE_ORDER, StoreName

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings


def up(
    data_dir: Path | None = None,
    *,
    listen: str = LOOPBACK,
    stores: Sequence[StoreName] = STORE_ORDER,
    durable: bool = True,
    progress: Progress = silent,
) -> LocalStack:
    """Start the stack in `data_dir`, or find the one that runs there and start what of it has died.

    Only `stores` are started when they are given. Servers that are not `durable` may lose data when
    the machine stops, not when they are stopped. Two calls at once give one stack.

    A `listen` other than 127.0.0.1 opens the stack to the network. All servers have generated
    passwords. Milvus, which knows none, stays on 127.0.0.1.

    Raises `ConfigurationError` when a stack runs with another `listen`, and `StoreError` when a
    server does not come up. Then those that this call started are stopped.
    """
    with StackFolder.made(data_dir, durable=durable) as folder:
        return _start_stack(folder, listen, progress, stores)


def down(
    data_dir: Path | None = None, *, durable: bool = True, progress: Progress = silent
) -> list[str]:
    """Stop what `up` started in `data_dir`; the stores whose servers were stopped. Data stays.

    Servers that are not `durable` are killed, which is quicker.
    """
    if not StackFolder(data_folder(data_dir)).has_record:
        return []
    with StackFolder.made(data_dir, durable=durable) as folder:
        return _stop_stack(folder, progress)


def status(data_dir: Path | None = None) -> LocalStack | None:
    """The servers of the stack that run now; None when there are none. Changes nothing."""
    folder = StackFolder(data_folder(data_dir))
    running = _running_servers(folder)
    return folder.describe_stack(running) if running else None


@contextmanager
def stack(
    blueprint: Blueprint,
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    progress: Progress = silent,
) -> Iterator[Settings]:
    """Settings of `blueprint` on a local stack.

    On leaving, a stack that this call has started is stopped. An ephemeral one is always new, in a
    folder of its own, and is killed and removed.
    """
    from is_db_bootstrap.settings import Settings

    context = ephemeral_stack(progress) if ephemeral else _stack_while_used(data_dir, progress)
    with context as running:
        yield Settings.load(blueprint, environ={**os.environ, **running.environ()})


@contextmanager
def ephemeral_stack(progress: Progress = silent) -> Iterator[LocalStack]:
    """A stack that leaves nothing behind: on free ports, in a temporary folder, not durable."""
    place = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-")).resolve()
    place.chmod(FOLDER_MODE)
    folder = StackFolder(place, durable=False)
    try:
        yield _start_stack(folder, LOOPBACK, progress)
    finally:
        for server in folder.servers():
            server.kill()
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _stack_while_used(data_dir: Path | None, progress: Progress) -> Iterator[LocalStack]:
    """The stack of `data_dir`. It is stopped on leaving unless it ran before."""
    ran_before = status(data_dir) is not None
    running = up(data_dir, progress=progress)
    try:
        yield running
    finally:
        if not ran_before:
            down(data_dir, progress=progress)


def _running_servers(folder: StackFolder) -> list[Server]:
    return [server for server in folder.servers() if server.alive()]


def _start_stack(
    folder: StackFolder,
    listen: str,
    progress: Progress,
    stores: Sequence[StoreName] = STORE_ORDER,
) -> LocalStack:
    """Bring up the servers of `stores`, those that run included."""
    folder.make_passwords()
    servers = [server for server in folder.servers() if server.store in stores]
    is_running = any(server.alive() for server in servers)
    if is_running and folder.listen != listen:
        raise ConfigurationError(
            f"The stack in {folder.path} already listens on {folder.listen}.",
            hint="Stop it with `is-db-bootstrap local down` first.",
        )
    if listen != LOOPBACK and not is_running:
        progress(f"milvus: has no passwords, so it listens on {LOOPBACK} only")
    for server in servers:
        server.listen = listen if server.has_passwords else LOOPBACK
    not_ready = [server for server in servers if not server.alive() or not folder.was_ready(server)]
    Start(folder, listen, progress).run(not_ready)
    return folder.describe_stack(servers)


def _stop_stack(folder: StackFolder, progress: Progress) -> list[str]:
    """Stop all servers of the folder at once; the stores whose servers ran."""
    running = _running_servers(folder)
    if running:
        progress(f"stopping {', '.join(server.store for server in running)}")
    threads = [
        threading.Thread(target=server.stop if folder.durable else server.kill)
        for server in running
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder.record_stop()
    return [server.store for server in running]
