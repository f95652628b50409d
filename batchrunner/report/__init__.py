"""Reading a run back: rows by expression, an item in full, the state in words, a report of the whole."""

from batchrunner.report.charts import Artist
from batchrunner.report.contrast import contrast, sections
from batchrunner.report.digest import Digest, Texts, gather, texts_of
from batchrunner.report.page import page
from batchrunner.report.select import matching
from batchrunner.report.terminal import report_lines
from batchrunner.report.told import document
from batchrunner.report.words import item_lines, sound_line, status_lines

__all__ = [
    "Artist",
    "contrast",
    "Digest",
    "document",
    "gather",
    "item_lines",
    "matching",
    "page",
    "report_lines",
    "sections",
    "sound_line",
    "status_lines",
    "Texts",
    "texts_of",
]
