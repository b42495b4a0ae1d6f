"""Turning results into text. Renderers return it, and commands print it.

Only the observer of `progress` does more: it gives a line to `write`, or draws, while a run goes
on.
"""

from is_db_bootstrap.render.document import document
from is_db_bootstrap.render.observer import progress
from is_db_bootstrap.render.plain import PlainScreen
from is_db_bootstrap.render.report import report
from is_db_bootstrap.render.screen import Screen
from is_db_bootstrap.render.screens import screen_of
from is_db_bootstrap.render.summary import fleet_summary, refusal, summary

__all__ = [
    "PlainScreen",
    "Screen",
    "document",
    "fleet_summary",
    "progress",
    "refusal",
    "report",
    "screen_of",
    "summary",
]
