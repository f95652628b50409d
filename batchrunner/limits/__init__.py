"""What bounds the sending: pace, pauses, concurrency, retries, budget, and the breaker that ends a hopeless run."""

from batchrunner.limits.breaker import Breaker
from batchrunner.limits.budget import Budget
from batchrunner.limits.concurrency import Concurrency
from batchrunner.limits.connections import Connections
from batchrunner.limits.estimate import Estimator
from batchrunner.limits.lane import Lane
from batchrunner.limits.lease import Lease
from batchrunner.limits.lease_file import LeaseFile
from batchrunner.limits.leased import Stake
from batchrunner.limits.renewals import renewals
from batchrunner.limits.retries import RetryBudget

__all__ = [
    "Breaker",
    "Budget",
    "Concurrency",
    "Connections",
    "Estimator",
    "Lane",
    "Lease",
    "LeaseFile",
    "RetryBudget",
    "Stake",
    "renewals",
]
