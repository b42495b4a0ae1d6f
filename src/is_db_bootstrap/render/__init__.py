"""Showing a run: progress on stderr, the report on stdout."""

from is_db_bootstrap.render.document import document
from is_db_bootstrap.render.progress import progress
from is_db_bootstrap.render.report import report

__all__ = ["document", "progress", "report"]
