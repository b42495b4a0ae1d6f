"""Removing the data of a stack's servers, and nothing that is not theirs."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from is_db_bootstrap.errors import ConfigurationError, StoreError
from is_db_bootstrap.local.server import Server


@dataclass(frozen=True, slots=True)
class Removed:
    """What `reset` did.

    `stores` had data, which is gone. `left` are files in their folders that no server has made.
    """

    stores: tuple[str, ...]
    left: tuple[Path, ...]


def remove_data(servers: Sequence[Server]) -> Removed:
    """Remove what these servers, which do not run, have in their folders.

    A server's folder goes too when nothing else is in it. Raises `StoreError` for what cannot be
    removed.
    """
    had_data = [server for server in servers if _own_paths(server)]
    left: list[Path] = []
    for server in had_data:
        for path in _own_paths(server):
            _remove(server, path)
        rest = sorted(server.home.iterdir())
        left += rest
        if not rest:
            server.home.rmdir()
    return Removed(tuple(server.store for server in had_data), tuple(left))


@contextmanager
def unused_by_tests(folder: Path) -> Iterator[None]:
    """Keep test sessions out of the folder meanwhile. Raises `ConfigurationError` when one is in.

    `testing.sources` explains the file `in-use`.
    """
    file = folder / "in-use"
    if not file.exists():
        yield
        return
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"A test session uses the servers in {folder}, so nothing was removed.",
                hint="Run again when it has ended.",
            ) from None
        yield


def refuse_links(servers: Sequence[Server]) -> None:
    """Raise `ConfigurationError` for a server's folder that is a link: it leads elsewhere."""
    for server in servers:
        if server.home.is_symlink():
            raise ConfigurationError(
                f"{server.home} is a link to {server.home.resolve()}, so nothing was removed.",
                hint="Remove what the link leads to by hand, if it is to go.",
            )


def _own_paths(server: Server) -> list[Path]:
    """What the server, and we for it, have made in its folder."""
    paths = [server.home / name for name in server.own_names]
    half_made = server.home.glob(".initdb-*")
    return [*(path for path in paths if path.exists() or path.is_symlink()), *half_made]


def _remove(server: Server, path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as exc:
        raise StoreError(
            server.store,
            f"{exc.filename or path} cannot be removed: {exc.strerror or exc}.",
            hint="Mend its permissions and run again. A part of the data may be gone.",
            subject=str(path),
        ) from exc
