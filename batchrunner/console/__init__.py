"""What a person sees of a run: a live display on a terminal, plain lines elsewhere, a summary at the end."""

from batchrunner.console.display import display_for
from batchrunner.console.summary import summary_lines

__all__ = ["display_for", "summary_lines"]
