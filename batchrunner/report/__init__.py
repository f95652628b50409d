"""Reading a run back: rows by expression, an item in full, the state in words."""

from batchrunner.report.select import matching
from batchrunner.report.words import item_lines, sound_line, status_lines

__all__ = ["item_lines", "matching", "sound_line", "status_lines"]
