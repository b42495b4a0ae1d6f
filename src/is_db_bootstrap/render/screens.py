"""Which screen a stream has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.screen import Screen

#: Variables that make a terminal of what is none. `rich` knows what they mean.
_MAKE_A_TERMINAL = ("FORCE_COLOR", "TTY_COMPATIBLE")


def screen_of(stream: TextIO, environment: Mapping[str, str]) -> Screen:
    """The screen behind a stream. What a terminal needs is imported only for one."""
    if stream.isatty() or any(environment.get(name) for name in _MAKE_A_TERMINAL):
        from is_db_bootstrap.render.terminal import TerminalScreen

        return TerminalScreen(stream)
    return PlainScreen(stream.encoding or "utf-8")
