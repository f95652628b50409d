"""A job, checked: frozen sections with their defaults, which are written down here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from batchrunner.spec import kinds  # noqa: TC001 (pydantic reads the annotations)
from batchrunner.spec.masks import masked, masked_url
from batchrunner.spec.matrix import Matrix, matrix_table
from batchrunner.spec.request import has_question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputSpec(_Section):
    """Where the rows are."""

    path: kinds.InputPath
    """As written: relative to the job's `base`, may be a glob, `-` is standard input."""
    id: kinds.Text | None = None
    """The column that names an item; None: `id`, `custom_id`, else a hash of the row."""
    where: kinds.Text | None = None
    """A polars SQL expression over the rows' columns: the rows for which it is true are the input. None: all are."""


class OAuth2Spec(_Section):
    """Client credentials: tokens instead of a key."""

    token_url: kinds.TokenUrl
    client_id: kinds.Text
    client_secret: kinds.SecretReference
    """A reference, never the secret."""
    scope: kinds.Text | None = None
    audience: kinds.Text | None = None
    auth_method: kinds.AuthMethod = "client_secret_basic"


class ProviderSpec(_Section):
    """Who is asked, and how to get in."""

    kind: kinds.Text | None = None
    base_url: kinds.BaseUrl | None = None
    """As written; the provider normalises it. None: the provider's public one."""
    api_key: kinds.ApiKey | None = None
    """References, never keys. None: the provider's own variable."""
    oauth2: OAuth2Spec | None = None
    """Instead of `api_key`."""
    workspace_id: kinds.Workspace | None = None
    deployment: kinds.Text | None = None
    api_version: kinds.Text | None = None
    headers: kinds.Headers = {}
    requests_per_key: kinds.Count | None = None
    ca_file: kinds.Text | None = None
    allow_http: kinds.Switch = False
    proxy: kinds.Proxy | None = None


class LimitsSpec(_Section):
    """What may be sent. None: the provider's default, else learned."""

    requests_per_minute: kinds.Rate | None = None
    tokens_per_minute: kinds.Rate | None = None
    concurrency: kinds.Concurrency = "auto"
    per: kinds.LanePer = "key"
    lease: kinds.Text | None = None
    """A file, relative to the job's `base`, by which processes of one host share the rates."""


class RetrySpec(_Section):
    """How long to insist."""

    attempts: kinds.Count = 5
    max_wait_s: kinds.Duration = 300.0
    down_s: kinds.Duration = 600.0


class TimeoutsSpec(_Section):
    """The clocks of one request."""

    connect_s: kinds.Duration = 10.0
    first_byte_s: kinds.Duration = 300.0
    idle_s: kinds.Duration = 60.0
    attempt_s: kinds.Duration = 600.0
    item_s: kinds.Duration = 3600.0


class BudgetSpec(_Section):
    """What a run may spend. None: no cap."""

    max_cost_usd: kinds.AboveZero | None = None
    max_tokens_total: kinds.Count | None = None
    deadline: kinds.Duration | None = None
    """Seconds, from the start of each invocation."""


class Price(_Section):
    """US dollars for a million tokens. None: cached tokens cost what others cost."""

    input_per_million: kinds.Money
    output_per_million: kinds.Money
    cached_per_million: kinds.Money | None = None


class ExpectSpec(_Section):
    """What answers have to be, and the columns that are made of them. Without a schema: anything."""

    json_schema: kinds.Schema | None = Field(None, alias="schema")
    """The schema, or where it is: `file:PATH` relative to the job, `package.module:Model`."""
    prefix: kinds.Prefix = "out_"
    """In front of the columns' names."""
    repairs: kinds.Repairs = 1
    """How often an answer that is not valid is asked to be mended."""
    allow_length: kinds.Switch = False
    """Whether an answer that was cut at its token limit counts."""
    response_format: kinds.Format = "auto"
    """What is sent of it: auto is the schema where the provider is known to take one, else nothing."""


class ReuseSpec(_Section):
    """What need not be bought."""

    sources: kinds.RunPatterns | None = Field(None, alias="from")
    """Directories of earlier runs, or patterns of them: what succeeded there under the same request is taken over."""
    dedupe: kinds.Switch = False
    """Send rows that ask the same once."""


class ScoreSpec(_Section):
    """One number that says how good each answer is."""

    name: kinds.ScoreName
    kind: kinds.ScoreKind
    expected: Any = None
    """A value, or a template over the row's columns that gives one; a list where several will do, or all must be in."""
    field: kinds.Text | None = None
    """Dotted: the part of the answer's JSON that is scored. None: its text."""
    pattern: kinds.Text | None = None
    tolerance: kinds.Tolerance = 0.0
    ignore_case: kinds.Switch = True
    """Of `contains`."""
    function: kinds.Function | None = None
    """Takes a row of the results as a dict; gives a number, true or false, or None."""
    run: kinds.Text | None = None
    """Of a judge: the directory of its run, relative to the job's `base`; its answers are found by `item_id`."""

    @property
    def share(self) -> float:
        """The tolerance as a share of what is expected, where it is one."""
        return float(self.tolerance.rstrip("% ")) / 100 if isinstance(self.tolerance, str) else 0.0


class OutputSpec(_Section):
    """Where the results go, and what they hold."""

    dir: kinds.Text | None = None
    """As written: relative to the job's `base`. None: the default directory."""
    keep: kinds.Columns | None = None
    """Input columns to carry. None: all that are not request fields, or the id alone when rows are data."""
    response: kinds.Switch = True
    mode: kinds.Mode = 0o640


class StorageSpec(_Section):
    """How to reach object stores, for input and output. Credentials are the environment's: none is written here."""

    endpoint: kinds.Text | None = None
    """Of a store that speaks S3 or Azure's protocol elsewhere than at the vendor's own address."""
    region: kinds.Text | None = None
    profile: kinds.Text | None = None
    """A profile of ~/.aws."""
    account: kinds.Text | None = None
    """Azure's storage account."""
    encryption: kinds.Text | None = None
    """S3's server-side encryption: AES256, aws:kms, aws:kms:dsse."""
    kms_key_id: kinds.Text | None = None
    path_style: kinds.Switch = True
    """S3: the bucket in the path rather than in the host's name."""
    anonymous: kinds.Switch = False
    allow_http: kinds.Switch = False


class TelemetrySpec(_Section):
    """Who is told what happens, beside the run's own log."""

    notify: kinds.Command | None = None
    """Gets the summary of every invocation on its standard input."""
    metrics_file: kinds.Text | None = None
    """As written: relative to the job's `base`. For Prometheus's textfile collector."""
    otlp_endpoint: kinds.Collector | None = None
    """OTLP over HTTP, without `/v1/...`. None: what the standard variables say, if anything."""
    sample: kinds.Share = 0.01
    """Of the attempts that came through: so many get a span. Those that failed all do."""


class Document(_Section):
    """A job file as TOML has it. `params`, `request` and `matrix` are checked on their own."""

    name: kinds.Name | None = None
    params: dict[str, Any] = {}
    input: InputSpec
    provider: ProviderSpec = ProviderSpec()
    request: dict[str, Any] = {}
    matrix: dict[str, Any] = {}
    limits: LimitsSpec = LimitsSpec()
    retry: RetrySpec = RetrySpec()
    timeouts: TimeoutsSpec = TimeoutsSpec()
    budget: BudgetSpec = BudgetSpec()
    prices: dict[str, Price] = {}
    output: OutputSpec = OutputSpec()
    expect: ExpectSpec = ExpectSpec()
    reuse: ReuseSpec = ReuseSpec()
    score: list[ScoreSpec] = []
    storage: StorageSpec = StorageSpec()
    telemetry: TelemetrySpec = TelemetrySpec()
    labels: dict[str, kinds.Label] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """What the user wrote, checked once and trusted everywhere after."""

    name: str
    input: InputSpec
    path: Path | None = None
    """The job file; None when a rows file was given alone."""
    rows: str | None = None
    """The rows file as given, when there is no job file."""
    base: Path = field(default_factory=Path)
    """What relative paths of the job are relative to: the job file's directory, else the working directory."""
    params: Mapping[str, str] = field(default_factory=dict)
    params_in_input: tuple[str, ...] = ()
    """Those that choose the rows, by path or `where`, in order of first use."""
    provider: ProviderSpec = field(default_factory=ProviderSpec)
    request: Mapping[str, Any] = field(default_factory=dict)
    """As written: templates are still templates."""
    matrix: Matrix = field(default_factory=Matrix)
    """The same of what varies."""
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    retry: RetrySpec = field(default_factory=RetrySpec)
    timeouts: TimeoutsSpec = field(default_factory=TimeoutsSpec)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    prices: Mapping[str, Price] = field(default_factory=dict)
    output: OutputSpec = field(default_factory=OutputSpec)
    expect: ExpectSpec = field(default_factory=ExpectSpec)
    reuse: ReuseSpec = field(default_factory=ReuseSpec)
    score: Sequence[ScoreSpec] = ()
    storage: StorageSpec = field(default_factory=StorageSpec)
    telemetry: TelemetrySpec = field(default_factory=TelemetrySpec)
    labels: Mapping[str, str] = field(default_factory=dict)
    runs_dir: str | None = None
    """From BATCHRUNNER_RUNS_DIR, relative to the working directory."""

    @property
    def rows_are_data(self) -> bool:
        """Rows are data that templates read, rather than requests of their own."""
        return has_question({*self.request, *self.matrix.fields})

    def public(self) -> dict[str, Any]:
        """The job as JSON for the manifest: key references, never a key; header values that look secret are masked."""
        sections: dict[str, Any] = {
            name: getattr(self, name).model_dump(mode="json", exclude_none=True, by_alias=True)
            for name in ("input", "provider", "limits", "retry", "timeouts", "budget", "output", "reuse", "storage")
        }
        provider = sections["provider"]
        provider["headers"] = masked(provider["headers"])
        if "proxy" in provider:
            provider["proxy"] = masked_url(provider["proxy"])
        sections["output"]["mode"] = f"{self.output.mode:04o}"
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            "rows": self.rows,
            "params": dict(self.params),
            "request": {key: masked(value) if key == "extra" else value for key, value in self.request.items()},
            "score": [score.model_dump(mode="json", exclude_none=True) for score in self.score],
            "matrix": _public_matrix(self.matrix),
            "prices": {model: price.model_dump(exclude_none=True) for model, price in self.prices.items()},
            "labels": dict(self.labels),
            **sections,
        }


def _public_matrix(matrix: Matrix) -> dict[str, Any]:
    table = matrix_table(matrix)
    return {**table, "extra": masked(table["extra"])} if "extra" in table else table
