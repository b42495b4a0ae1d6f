"""Showing a run: progress on stderr, the report on stdout."""

from is_db_bootstrap.render.document import document
from is_db_bootstrap.render.progress import progress
from is_db_bootstrap.render.proofs import proofs
from is_db_bootstrap.render.report import report
from is_db_bootstrap.render.summary import fleet_summary, refusal, summary

__all__ = ["document", "fleet_summary", "progress", "proofs", "refusal", "report", "summary"]
