"""A job checked end to end: everything that can be known before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from batchrunner import __version__, credentials, providers, sources
from batchrunner.assemble.expecting import NOTHING, Expected, compiled, expected
from batchrunner.assemble.scoring import scorer_of
from batchrunner.errors import BadRow, JobError
from batchrunner.prices import Prices
from batchrunner.providers import conversation
from batchrunner.records import Endpoint, Usage
from batchrunner.store import RESULTS
from batchrunner.telemetry import check_metrics_file, find_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.credentials import Credential
    from batchrunner.objects import Copies
    from batchrunner.providers.base import Provider
    from batchrunner.records import Item, Request
    from batchrunner.scores import Scorer
    from batchrunner.spec import JobSpec, Matrix, Shard
    from batchrunner.telemetry import Collector
    from batchrunner.templates import Asker
    from batchrunner.worker import Asks

T = TypeVar("T")
OPTIONS = ("deployment", "api_version")
"""Keys of [provider] that only single dialects know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a job needs before its input is looked into: found, readable, allowed."""

    job: JobSpec
    provider: Provider
    endpoint: Endpoint
    credentials: tuple[Credential, ...]
    source: sources.Input
    prices: Prices
    warnings: tuple[str, ...]
    expected: Expected = NOTHING
    collector: Collector | None = None
    """Who is told of every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that can start: its input checked, its templates compiled against the input's columns."""

    ready: Ready
    checked: sources.Checked
    asker: Asker
    asked: Mapping[str, Any]
    """What the job asks, flat: the fingerprint of what is bought."""
    fingerprint: Mapping[str, Any]
    """The input's, as `sources.Input.fingerprint` gives it."""
    scorer: Scorer | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """While this holds, rows are known by their number: nothing needs to be rendered again."""
        return {"fingerprint": dict(self.fingerprint), "asked": dict(self.asked), "version": __version__}

    def request(self, item: Item) -> Request:
        """The base request of an item. Raises BadRow."""
        if item.fault is not None:
            raise BadRow(item.fault)
        return conversation.build(self.ready.provider, self.asker.ask(item.columns), self.ready.endpoint)

    def session_of(self, item: Item) -> str | None:
        """The conversation or session that an item is part of, None for one on its own."""
        name_session = self.asker.name_session
        if name_session is None or item.fault is not None:
            return None
        try:
            return name_session(item.columns)
        except BadRow:
            return None

    def key_of(self, item: Item, asks: Asks | None = None) -> str | None:
        """What is bought for an item, or by what is sent instead; None when it cannot be asked."""
        try:
            if asks is None or item.fault is not None:
                return self.request(item).key
            return conversation.build(self.ready.provider, asks.ask(item.columns), self.ready.endpoint).key
        except BadRow:
            return None

    def fault_of(self, item: Item) -> str | None:
        """Why an item cannot be asked, None when it can."""
        try:
            self.request(item)
        except BadRow as error:
            return str(error)
        return None


class Faults:
    """Collects the faults of several steps, so that a user meets all of them at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def of(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except JobError as error:
            self.found += error.faults
            return None

    def stop(self) -> None:
        if self.found:
            raise JobError(*self.found)


def get_ready(
    job: JobSpec,
    *,
    environ: Mapping[str, str],
    simulate: bool,
    spool: Path | None = None,
    copies: Copies | None = None,
) -> Ready:
    """Everything but the input's contents. Raises JobError with all faults."""
    job, rehearsal = _rehearsed(job) if simulate else (job, ())
    faults = Faults()
    provider = faults.of(lambda: _provider(job))
    source = faults.of(lambda: _source(job, spool, copies))
    base_url = faults.of(lambda: _base_url(job, provider)) if provider else None
    keys, endpoint = None, None
    if provider and base_url:
        keys = credentials.NO_KEY if simulate else faults.of(lambda: _keys(job, provider, base_url, environ))
    if provider:
        endpoint = _endpoint(job, base_url or "", environ)
        faults.of(lambda: provider.headers(None, endpoint))
    prices = Prices(job.prices, job.provider.base_url or (provider.base_url if provider else None))
    if provider:
        faults.of(lambda: _price_of_cap(job, prices))
        faults.of(lambda: _one_at_a_time(job, provider))
    if job.telemetry.metrics_file is not None:
        faults.of(check_metrics_file)
    collector, lack = faults.of(lambda: find_collector(job.telemetry.otlp_endpoint, environ)) or (None, None)
    wanted = faults.of(lambda: expected(job.expect, job.base, provider)) if provider else None
    faults.stop()
    assert provider
    assert source
    assert endpoint
    assert keys is not None
    about_keys = () if simulate else provider.warnings(endpoint)
    of_keys = (warning for key in keys for warning in key.warnings)
    warnings = (*rehearsal, *about_keys, *of_keys, *([lack] if lack else []))
    return Ready(
        expected=wanted or NOTHING,
        job=job,
        provider=provider,
        endpoint=endpoint,
        credentials=keys,
        source=source,
        prices=prices,
        warnings=warnings,
        collector=collector,
    )


def prepare(
    ready: Ready, *, remembered: Mapping[str, Any] | None, shard: Shard | None = None, simulate: bool = False
) -> Prepared:
    """Look into the input, once: the checking pass is skipped while `remembered` has it for the same fingerprint."""
    job, source = ready.job, ready.source
    fingerprint = source.fingerprint()
    known, part = remembered or {}, (shard.index, shard.count) if shard else None
    checked = sources.Checked.from_json(known["checked"]) if known.get("fingerprint") == fingerprint else None
    if checked is None or checked.shard != part:
        checked = sources.check(source, shard=part)
    source.learn(checked)
    faults = Faults()
    asker = faults.of(lambda: compiled(job, checked.columns, ready.expected))
    faults.of(lambda: _price_of_rows(ready, checked))
    if asker and job.matrix:
        faults.of(lambda: _refuse_sessions(asker))
    if asker and shard is not None:
        faults.of(lambda: _refuse_shard(ready, asker))
    scorer = faults.of(
        lambda: scorer_of(job.score, params=job.params, base=job.base, columns=checked.columns, simulate=simulate)
    )
    faults.stop()
    assert asker
    asked = {**_address(ready), **asker.asked}
    return Prepared(ready=ready, checked=checked, asker=asker, asked=asked, fingerprint=fingerprint, scorer=scorer)


def _refuse_sessions(asker: Asker) -> None:
    """Variants that spoke in one session would hear each other. Raises JobError."""
    if asker.name_session is not None:
        raise JobError(
            "matrix: expected rows on their own; its items would share the row's conversation or session_id; leave"
            " those out, or put what belongs together into the turns of one row"
        )


def _refuse_shard(ready: Ready, asker: Asker) -> None:
    """What shards, which know nothing of each other, would do wrong. Raises JobError."""
    if asker.name_session is not None:
        raise JobError(
            "--shard: expected items on their own; the items of a session or conversation are asked in order,"
            " and a shard takes them apart; leave --shard out, or drop conversation and session_id"
        )
    provider, own = ready.provider, ready.job.provider.requests_per_key
    if provider.requests_per_key is not None and own is None:
        raise JobError(
            f"--shard: {provider.name} is sent {provider.requests_per_key} request at a time on a key, since answers"
            " may be swapped, and shards send at once; leave --shard out, or set provider.requests_per_key yourself"
            " (to 1 where one shard runs after another)"
        )


def remember(prepared: Prepared) -> dict[str, Any]:
    """What the run keeps of the input, so that the next invocation need not look again."""
    ready = prepared.ready
    return {
        "fingerprint": dict(prepared.fingerprint),
        "checked": prepared.checked.to_json(),
        "rows_path": ready.source.first_place if ready.job.rows is not None else None,
        "version": __version__,
    }


def _rehearsed(job: JobSpec) -> tuple[JobSpec, tuple[str, ...]]:
    """A simulated job reads the results of a simulated run where there are none of a real one; and says so."""
    path = job.input.path
    if not isinstance(path, str) or "://" in path or (job.base / path).exists():
        return job, ()
    results = Path(path)
    if results.name != RESULTS or not results.parent.name:
        return job, ()
    instead = results.parent.with_name(f"{results.parent.name}.simulated") / results.name
    if not (job.base / instead).exists():
        return job, ()
    changed = replace(job, input=job.input.model_copy(update={"path": str(instead)}))
    return changed, (f"{path} is not there; the simulated {instead} is read instead",)


def _source(job: JobSpec, spool: Path | None, copies: Copies | None) -> sources.Input:
    paths = job.input.path if isinstance(job.input.path, str) else list(job.input.path)
    rows = sources.open_input(
        paths, base=job.base, id_column=job.input.id, spool=spool, copies=copies, only=job.input.where
    )
    return with_matrix(rows, job.matrix)


def with_matrix(rows: sources.Input, matrix: Matrix) -> sources.Input:
    """The items of the input: its rows, each as often as the matrix asks it."""
    return sources.Cases(rows, sources.Ways([*matrix.choices], matrix.repeats)) if matrix else rows


def _provider(job: JobSpec) -> Provider:
    if job.provider.kind is None:
        known = ", ".join(providers.available())
        raise JobError(f"provider.kind is not set; give --provider or [provider] kind: one of {known}")
    return providers.load(job.provider.kind)


def _base_url(job: JobSpec, provider: Provider) -> str:
    given = job.provider.base_url or provider.base_url
    if given is None:
        own = providers.own_address(provider)
        example = f", such as {own.replace('*', 'NAME')!r}" if own else ""
        raise JobError(f"provider.base_url is not set; {provider.name!r} has no public address, give yours{example}")
    return provider.normalise(given)


def _endpoint(job: JobSpec, base_url: str, environ: Mapping[str, str]) -> Endpoint:
    workspace = job.provider.workspace_id if job.provider.workspace_id is not None else environ.get("TESS_WORKSPACE_ID")
    return Endpoint(
        base_url=base_url,
        workspace_id=str(workspace) if workspace not in (None, "") else None,
        headers=job.provider.headers,
        options=options_of(dict(job.provider)),
        volatile=frozenset(job.request.get("volatile") or ()),
    )


def options_of(section: Mapping[str, Any]) -> dict[str, str]:
    """A dialect's own settings from the section [provider]."""
    return {name: section[name] for name in OPTIONS if section.get(name) is not None}


def _address(ready: Ready) -> dict[str, str]:
    """Who is asked, and where: part of what is bought."""
    endpoint = ready.endpoint
    options = {f"provider.{name}": value for name, value in endpoint.options.items()}
    return {"provider.kind": ready.provider.name, "provider.base_url": endpoint.base_url, **options}


def _keys(job: JobSpec, provider: Provider, base_url: str, environ: Mapping[str, str]) -> tuple[Credential, ...]:
    plain = job.provider.allow_http
    if job.provider.oauth2 is not None:
        credentials.refuse_plain_http(base_url, plain)
        return (credentials.resolve_grant(job.provider.oauth2, allow_http=plain, base=job.base, environ=environ),)
    keys = credentials.resolve(
        job.provider.api_key,
        variable=provider.key_variable,
        base_url=base_url,
        public_base_url=providers.own_address(provider),
        base=job.base,
        environ=environ,
    )
    if any(key.key is not None for key in keys):
        credentials.refuse_plain_http(base_url, plain)
    return keys


def _one_at_a_time(job: JobSpec, provider: Provider) -> None:
    """A bound on the requests of one key cannot be kept by lanes that share it."""
    if job.limits.per != "key" and (job.provider.requests_per_key or provider.requests_per_key):
        raise JobError(
            f"limits.per: expected 'key', since provider {provider.name!r} or the job bounds requests_per_key, "
            f"got {job.limits.per!r}"
        )


def _price_of_rows(ready: Ready, checked: sources.Checked) -> None:
    """A cap on money cannot be kept where neither the job nor the rows say which model is asked."""
    job = ready.job
    named = bool(_models(job)) or "model" in checked.columns or "body" in checked.columns
    if job.budget.max_cost_usd is not None and not named and checked.rows:
        raise JobError(
            "budget.max_cost_usd: no model is asked, so no price is known; give request.model and its price, "
            "or cap tokens with budget.max_tokens_total"
        )


def _price_of_cap(job: JobSpec, prices: Prices) -> None:
    """A cap on money needs the price of what is asked; rows that name a model of their own are judged one by one."""
    if job.budget.max_cost_usd is None:
        return
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    faults = [
        f'budget.max_cost_usd: the price of model {model!r} is not known; give it in [prices."{model}"], '
        "or cap tokens with budget.max_tokens_total"
        for model in _models(job)
        if "{{" not in str(model) and prices.cost(model, usage) is None
    ]
    if faults:
        raise JobError(*faults)


def _models(job: JobSpec) -> list[Any]:
    """The models that the job itself names."""
    named = [job.request.get("model"), *job.matrix.values_of("model")]
    return [model for model in named if model is not None]
