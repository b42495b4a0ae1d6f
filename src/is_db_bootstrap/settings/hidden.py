"""Variables of another program that a client reads while it is imported, taken away meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: With this, python-dotenv reads no `.env` file (since 1.2), which a client would do by itself.
_NO_DOTENV = "PYTHON_DOTENV_DISABLED"


@contextmanager
def without_variables(names: Sequence[str]) -> Iterator[None]:
    """Let the environment lack these variables, and no `.env` file be read, meanwhile.

    Other threads of this process see the same environment.
    """
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    dotenv_before = os.environ.get(_NO_DOTENV)
    os.environ[_NO_DOTENV] = "1"
    try:
        yield
    finally:
        if dotenv_before is None:
            del os.environ[_NO_DOTENV]
        else:
            os.environ[_NO_DOTENV] = dotenv_before
        os.environ.update(before)
