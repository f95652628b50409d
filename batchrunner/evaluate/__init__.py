"""Groups of items held against each other: what they scored, cost and took, and where they differ."""

from batchrunner.evaluate.cases import Cases, Run, gather_cases
from batchrunner.evaluate.comparison import Comparison, Differing, Group, Interval, Mean, Pairing, compare

__all__ = [
    "Cases",
    "compare",
    "Comparison",
    "Differing",
    "gather_cases",
    "Group",
    "Interval",
    "Mean",
    "Pairing",
    "Run",
]
