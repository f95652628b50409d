"""What a run tells the world around it while it goes on and when it ends."""

from batchrunner.telemetry.collector import Collector, find_collector
from batchrunner.telemetry.log import Emit, run_log
from batchrunner.telemetry.metrics_file import MetricsFile, check_metrics_file
from batchrunner.telemetry.notify import notify
from batchrunner.telemetry.otlp import About, Attempts, exporting

__all__ = [
    "About",
    "Attempts",
    "check_metrics_file",
    "Collector",
    "Emit",
    "exporting",
    "find_collector",
    "MetricsFile",
    "notify",
    "run_log",
]
