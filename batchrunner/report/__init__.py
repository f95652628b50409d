"""Reading runs back: rows by expression, an item in full, the state in words, a report of one, several compared."""

from batchrunner.report.charts import Artist
from batchrunner.report.compared import comparison_document
from batchrunner.report.contrast import Compared, Contrast, contrast, default_by, grouped, named
from batchrunner.report.digest import Digest, gather
from batchrunner.report.page import page
from batchrunner.report.select import matching
from batchrunner.report.terminal import report_lines
from batchrunner.report.told import document
from batchrunner.report.verdict import verdict
from batchrunner.report.words import item_lines, sound_line, status_lines

__all__ = [
    "Artist",
    "Compared",
    "comparison_document",
    "Contrast",
    "contrast",
    "default_by",
    "Digest",
    "document",
    "gather",
    "grouped",
    "item_lines",
    "matching",
    "named",
    "page",
    "report_lines",
    "sound_line",
    "status_lines",
    "verdict",
]
