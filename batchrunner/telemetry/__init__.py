"""What a run tells the world around it while it goes on and when it ends."""

from batchrunner.telemetry.log import Emit, run_log
from batchrunner.telemetry.notify import notify

__all__ = ["Emit", "notify", "run_log"]
