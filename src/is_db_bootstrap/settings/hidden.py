"""What a client reads while it is imported and nobody has asked for, taken away meanwhile.

pymilvus calls `load_dotenv` of python-dotenv. That looks for a file `.env` in the folder of
pymilvus and in each folder above it. So it finds the one of a project whose virtual environment
lies in the project, and makes all that stands there variables of this process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: With this, python-dotenv reads no `.env` file (since 1.2).
_NO_DOTENV = "PYTHON_DOTENV_DISABLED"


class _Dotenv:
    """How many imports do without a `.env` file, and what the variable was before the first."""

    imports = 0
    before: str | None = None
    lock = threading.Lock()


@contextmanager
def without_dotenv() -> Iterator[None]:
    """Let no `.env` file be read meanwhile. Several threads may do so at once."""
    with _Dotenv.lock:
        if _Dotenv.imports == 0:
            _Dotenv.before = os.environ.get(_NO_DOTENV)
            os.environ[_NO_DOTENV] = "1"
        _Dotenv.imports += 1
    try:
        yield
    finally:
        with _Dotenv.lock:
            _Dotenv.imports -= 1
            if _Dotenv.imports == 0:
                _restore_dotenv()


def _restore_dotenv() -> None:
    if _Dotenv.before is None:
        os.environ.pop(_NO_DOTENV, None)
    else:
        os.environ[_NO_DOTENV] = _Dotenv.before


@contextmanager
def without_variables(names: Sequence[str]) -> Iterator[None]:
    """Let the environment lack these variables, and no `.env` file be read, meanwhile.

    Other threads of this process see the same environment.
    """
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        with without_dotenv():
            yield
    finally:
        os.environ.update(before)
