"""Which screen a stream has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.screen import Screen

#: Variables that let a stream count as a terminal. `rich` knows what each of them means.
_MAKE_A_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE")


def screen_of(stream: TextIO, environment: Mapping[str, str]) -> Screen:
    """The screen behind a stream. What a terminal needs is imported only for a terminal."""
    is_told_so = any(environment.get(name) for name in _MAKE_A_TERMINAL)
    if stream.isatty() or is_told_so:
        from is_db_bootstrap.render.terminal import TerminalScreen

        return TerminalScreen(stream)
    return PlainScreen(stream.encoding or "utf-8")
