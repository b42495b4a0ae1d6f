"""The local stack: how it comes up together, is found again, and goes down."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.download import Progress
from is_db_bootstrap.local.places import data_folder
from is_db_bootstrap.local.process import LOOPBACK
from is_db_bootstrap.local.removal import Removed, refuse_links, remove_data, unused_by_tests
from is_db_bootstrap.local.server import silent
from is_db_bootstrap.local.stack_folder import FOLDER_MODE, LocalStack, StackFolder
from is_db_bootstrap.local.start import Start
from is_db_bootstrap.names import STORE_ORDER, StoreName

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import Settings


def up(
    data_dir: Path | None = None,
    *,
    listen: str | None = None,
    stores: Sequence[StoreName] = STORE_ORDER,
    durable: bool = True,
    progress: Progress = silent,
    versions: Mapping[StoreName, str] | None = None,
) -> LocalStack:
    """Start the stack in `data_dir`, or find the one that runs there and start what is lacking.

    Only `stores` are started, and only they are in what is returned. What else runs is left alone.
    Servers that are not `durable` may lose data when the machine stops, not when they are stopped.
    Two calls at once give one stack.

    Without `listen`, the stack goes on at the address where it runs, else it begins at 127.0.0.1.
    A `listen` other than 127.0.0.1 opens the stack to the network. All servers have generated
    passwords. Milvus, which knows none, stays on 127.0.0.1.

    `versions` chooses versions of servers, such as `{"postgres": "17"}`, of those that
    `local.versions` can have. The folder's data belong to a version, so another one needs another
    folder.

    `progress` gets a line after 2 s, and then every 10 s, while another process starts or stops
    servers of the same folder.

    Raises `ConfigurationError` when a stack runs with another `listen`, `LockTimeout` when another
    process has the folder for 10 minutes, and `StoreError` when a server does not come up. Then
    those that this call started are stopped.
    """
    made = StackFolder.made(
        data_dir, durable=durable, purpose="local up", progress=progress, versions=versions
    )
    with made as folder:
        return _start_stack(folder, listen, progress, stores)


def down(
    data_dir: Path | None = None,
    *,
    stores: Sequence[StoreName] = STORE_ORDER,
    durable: bool = True,
    progress: Progress = silent,
) -> list[str]:
    """Stop what `up` started in `data_dir`; the stores whose servers were stopped. Data stays.

    Only the servers of `stores` are stopped. Servers that are not `durable` are killed, which is
    quicker. `progress` and `LockTimeout` are those of `up`.
    """
    if not StackFolder(data_folder(data_dir)).was_used:
        return []
    made = StackFolder.made(data_dir, durable=durable, purpose="local down", progress=progress)
    with made as folder:
        return _stop_stack(folder, progress, stores)


def reset(
    data_dir: Path | None = None,
    *,
    stores: Sequence[StoreName] = STORE_ORDER,
    progress: Progress = silent,
) -> Removed:
    """Stop the servers of `stores` in `data_dir`, and remove their data for good.

    Ports and passwords stay, so the next `up` gives the same addresses, on empty stores. Only what
    a server of this stack has made is removed. Raises `ConfigurationError` for a folder without a
    stack, and for one that a test session uses. `LockTimeout` is that of `up`.
    """
    path = require_stack(data_dir)
    made = StackFolder.made(data_dir, purpose="local reset", progress=progress)
    with unused_by_tests(path), made as folder:
        servers = [
            server
            for server in folder.servers()
            if server.store in stores and folder.has_known(server.store)
        ]
        refuse_links(servers)
        for server in servers:
            server.kill()
        folder.record_stop([server.store for server in servers])
        return remove_data(servers)


def require_stack(data_dir: Path | None = None) -> Path:
    """The folder of the stack. Raises `ConfigurationError` when no stack was ever started there."""
    path = data_folder(data_dir)
    if not StackFolder(path).has_record:
        raise ConfigurationError(
            f"There is no local stack in {path}, so nothing was removed.",
            hint="--data-dir names another folder.",
        )
    return path


def status(data_dir: Path | None = None) -> LocalStack | None:
    """The servers of the stack that run now, and the stores whose servers have died.

    None when there is neither. Changes nothing.
    """
    folder = StackFolder(data_folder(data_dir))
    servers = folder.servers()
    running = [server for server in servers if server.alive()]
    dead = [
        server.store
        for server in servers
        if server not in running and folder.was_started(server.store)
    ]
    return folder.describe_stack(running, dead) if running or dead else None


@contextmanager
def stack(
    blueprint: Blueprint,
    data_dir: Path | None = None,
    *,
    ephemeral: bool = False,
    progress: Progress = silent,
) -> Iterator[Settings]:
    """Settings of `blueprint` on a local stack, which has the blueprint's stores.

    On leaving, the servers that this call has started are stopped. An ephemeral stack is always
    new, in a folder of its own, and is killed and removed.
    """
    from is_db_bootstrap.settings import Settings

    if ephemeral:
        context = ephemeral_stack(progress, stores=blueprint.stores)
    else:
        context = _stack_while_used(data_dir, blueprint.stores, progress)
    with context as running:
        yield Settings.load(blueprint, environ={**os.environ, **running.environ()})


@contextmanager
def ephemeral_stack(
    progress: Progress = silent, *, stores: Sequence[StoreName] = STORE_ORDER
) -> Iterator[LocalStack]:
    """A stack that leaves nothing behind: on free ports, in a temporary folder, not durable."""
    place = Path(tempfile.mkdtemp(prefix="is-db-bootstrap-")).resolve()
    place.chmod(FOLDER_MODE)
    folder = StackFolder(place, durable=False)
    try:
        yield _start_stack(folder, LOOPBACK, progress, stores)
    finally:
        for server in folder.servers():
            server.kill()
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _stack_while_used(
    data_dir: Path | None, stores: Sequence[StoreName], progress: Progress
) -> Iterator[LocalStack]:
    """These stores of the stack of `data_dir`. Those that did not run before are stopped again."""
    before = status(data_dir)
    ran_before = {server.store for server in before.servers} if before else set()
    running = up(data_dir, stores=stores, progress=progress)
    try:
        yield running
    finally:
        started = [store for store in stores if store not in ran_before]
        if started:
            down(data_dir, stores=started, progress=progress)


def _start_stack(
    folder: StackFolder,
    listen: str | None,
    progress: Progress,
    stores: Sequence[StoreName],
) -> LocalStack:
    """Bring up the servers of `stores`, those that run included."""
    folder.make_passwords()
    every_server = folder.servers()
    servers = [server for server in every_server if server.store in stores]
    is_running = any(server.alive() for server in every_server)
    if listen is None:
        listen = folder.listen if is_running else LOOPBACK
    if is_running and folder.listen != listen:
        raise ConfigurationError(
            f"The stack in {folder.path} already listens on {folder.listen}.",
            hint="Stop it with `is-db-bootstrap local down` first.",
        )
    if listen != LOOPBACK and not is_running and "milvus" in stores:
        progress(f"milvus: has no passwords, so it listens on {LOOPBACK} only")
    for server in servers:
        server.listen = listen if server.has_passwords else LOOPBACK
    not_ready = [server for server in servers if not server.alive() or not folder.was_ready(server)]
    Start(folder, listen, progress).run(not_ready)
    return folder.describe_stack(servers)


def _stop_stack(folder: StackFolder, progress: Progress, stores: Sequence[StoreName]) -> list[str]:
    """Stop the servers of these stores at once; the stores whose servers ran."""
    running = [server for server in folder.servers() if server.store in stores and server.alive()]
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
    if folder.has_record:
        folder.record_stop(stores)
    return [server.store for server in running]
