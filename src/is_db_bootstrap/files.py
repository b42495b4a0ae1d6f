"""Where migrations and Cypher files are, and how a file is written whole or not at all.

Migrations and Cypher files are inside the installed package, else beside `src` in a checkout.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PACKAGE = Path(__file__).parent
_INSTALLED = _PACKAGE / "_files"


def root() -> Path:
    """The folder that holds `migrations/` and `cypher/`."""
    return _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent.parent


def is_installed(folder: Path) -> bool:
    """Whether `folder` is inside the installed package, where files are not to be changed."""
    return folder.is_relative_to(_INSTALLED)


def migrations(blueprint: str) -> Path:
    """The folder of a reference system's Alembic revisions. The folder may not exist."""
    return root() / "migrations" / blueprint


def cypher(blueprint: str) -> Path:
    """The folder of a reference system's Cypher files. The folder may not exist."""
    return root() / "cypher" / blueprint


def replace_text(path: Path, text: str) -> None:
    """Write `text` as the file `path`, in the place of a file that may be there.

    A reader meets the old file or the new one, and never a part.
    """
    with _written_beside(path, text) as written:
        written.replace(path)


def create_text(path: Path, text: str) -> None:
    """Write `text` as the new file `path`.

    Raises `FileExistsError` when there is a file already, which is left alone.
    """
    with _written_beside(path, text) as written:
        try:
            os.link(written, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if path.exists():
                raise FileExistsError(path) from None
            written.rename(path)


@contextmanager
def _written_beside(path: Path, text: str) -> Iterator[Path]:
    """A file with `text` in the folder of `path`, which is removed when the block ends.

    Its name is one that no reader of the folder looks for.
    """
    written = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with written.open("x", encoding="utf-8") as file:
            file.write(text)
        yield written
    finally:
        with suppress(FileNotFoundError):
            written.unlink()
