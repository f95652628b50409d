"""Groups of items against each other: what they scored and how sure that is, what they cost, where they differ."""

from batchrunner.evaluate.cases import Cases, Run, gather_cases
from batchrunner.evaluate.comparison import Comparison, Group, Match, Standing, compare
from batchrunner.evaluate.differing import Differing, Seen
from batchrunner.evaluate.resampling import Interval, difference_interval, mean_interval

__all__ = [
    "Cases",
    "Comparison",
    "Differing",
    "Group",
    "Interval",
    "Match",
    "Run",
    "Seen",
    "Standing",
    "compare",
    "difference_interval",
    "gather_cases",
    "mean_interval",
]
