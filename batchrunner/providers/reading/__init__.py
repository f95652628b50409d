"""Reading replies: to a completion, or to one RequestError; nothing else ever escapes."""

from batchrunner.providers.reading.refusal import NO_HABITS, Habits
from batchrunner.providers.reading.reply import read

__all__ = ["Habits", "NO_HABITS", "read"]
