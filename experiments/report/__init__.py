"""The report of a run: a page that opens offline, and the same table for the terminal."""

from experiments.report.page import REPORT_FILE, render

__all__ = ["REPORT_FILE", "render"]
