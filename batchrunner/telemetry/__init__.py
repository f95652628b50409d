"""What a run tells the world around it while it goes on and when it ends."""

from batchrunner.telemetry.log import Emit, run_log
from batchrunner.telemetry.metrics_file import MetricsFile, check_metrics_file
from batchrunner.telemetry.notify import notify

__all__ = ["check_metrics_file", "Emit", "MetricsFile", "notify", "run_log"]
