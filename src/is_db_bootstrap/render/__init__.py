"""Turning results into text. Renderers return text, and commands print that text.

Only the observer of `progress` does more. While a run goes on, that observer gives lines to
`write`, or draws.
"""

from is_db_bootstrap.render.document import document
from is_db_bootstrap.render.fleet import fleet_report
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
    "fleet_report",
    "fleet_summary",
    "progress",
    "refusal",
    "report",
    "screen_of",
    "summary",
]
