"""The job: what the user wrote, checked once at the edge and trusted everywhere after."""

from __future__ import annotations

from batchrunner.spec.load import for_rows, load, of_tree
from batchrunner.spec.matrix import Matrix, matrix_of
from batchrunner.spec.model import (
    BudgetSpec,
    ExpectSpec,
    InputSpec,
    JobSpec,
    LimitsSpec,
    OAuth2Spec,
    OutputSpec,
    Price,
    ProviderSpec,
    RetrySpec,
    ReuseSpec,
    ScoreSpec,
    StorageSpec,
    TelemetrySpec,
    TimeoutsSpec,
)
from batchrunner.spec.overlay import ENVIRONMENT, Flag
from batchrunner.spec.places import metrics_file, run_dir
from batchrunner.spec.request import CHAT_FIELDS, QUESTIONS, ROW_FIELDS, has_question
from batchrunner.spec.values import (
    KEY_REFERENCE,
    NO_FAILURES,
    MaxFailed,
    Shard,
    is_key_reference,
    parse_duration,
    parse_max_failed,
    parse_set,
    parse_shard,
    read_value,
)

__all__ = [
    "BudgetSpec",
    "CHAT_FIELDS",
    "ENVIRONMENT",
    "ExpectSpec",
    "Flag",
    "for_rows",
    "has_question",
    "InputSpec",
    "is_key_reference",
    "JobSpec",
    "KEY_REFERENCE",
    "LimitsSpec",
    "load",
    "Matrix",
    "matrix_of",
    "MaxFailed",
    "metrics_file",
    "NO_FAILURES",
    "OAuth2Spec",
    "of_tree",
    "OutputSpec",
    "parse_duration",
    "parse_max_failed",
    "parse_set",
    "parse_shard",
    "Price",
    "ProviderSpec",
    "QUESTIONS",
    "read_value",
    "RetrySpec",
    "ReuseSpec",
    "ROW_FIELDS",
    "run_dir",
    "ScoreSpec",
    "Shard",
    "StorageSpec",
    "TelemetrySpec",
    "TimeoutsSpec",
]
