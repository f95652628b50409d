"""What a completion cost, by the job's own prices and else by those published for the model. Never over the network."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from batchrunner.spec import Price

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.records import Usage

_PER_TOKEN_KEYS = frozenset({"input_mtok", "output_mtok", "cache_read_mtok"})
_MOST_MODELS = 1000
"""A server may answer a new model name each time; memory stays flat."""
_COUNTED_APART = frozenset({"requests_kcount", "output_reasoning_mtok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flat:
    """US dollars per token: what most models cost."""

    prompt: float
    completion: float
    cached: float

    def cost(self, prompt_tokens: int, completion_tokens: int, usage: Usage) -> float:
        cost = prompt_tokens * self.prompt + completion_tokens * self.completion
        if usage.cached_tokens and self.cached != self.prompt:
            cost -= min(usage.cached_tokens, prompt_tokens) * (self.prompt - self.cached)
        return cost


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """A model whose price depends on the size or the hour of a request: left to genai-prices."""

    model: Any
    provider: Any
    now: Callable[[], datetime]

    def cost(self, prompt_tokens: int, completion_tokens: int, usage: Usage) -> float:
        import genai_prices

        counted = genai_prices.Usage(
            input_tokens=prompt_tokens,
            output_tokens=completion_tokens,
            cache_read_tokens=min(usage.cached_tokens or 0, prompt_tokens),
            output_reasoning_tokens=min(usage.reasoning_tokens or 0, completion_tokens),
        )
        result = self.model.calc_price(counted, self.provider, genai_request_timestamp=self.now())
        return float(result.total_price)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tariff:
    """How one model is charged, and its price for people and estimates."""

    charge: _Flat | _Published
    price: Price


def _now() -> datetime:
    return datetime.now(tz=UTC)


class Prices:
    """The prices of one job. An unknown price is None, never 0.

    `overrides` are the job's own and win. `provider_hint` is the base URL that is asked, or a name such as
    `openai`: the same model can cost differently elsewhere. Safe to call from many tasks.
    """

    def __init__(
        self,
        overrides: Mapping[str, Price],
        provider_hint: str | None = None,
        *,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._overrides = {name.lower(): _own(price) for name, price in overrides.items()}
        self._overrides |= {name: _own(price) for name, price in overrides.items()}
        self._hint = provider_hint
        self._now = now
        self._tariffs: dict[tuple[str | None, str | None], _Tariff | None] = {}

    def cost(self, model: str | None, usage: Usage, *, asked: str | None = None) -> float | None:
        """US dollars for a completion by `model`; None when its price or its tokens are unknown.

        `asked` is the model the request named: servers answer `gpt-4o-2024-08-06` to `gpt-4o`, and the job's own
        price of either holds.
        """
        tariff = self._tariff(model, asked)
        if tariff is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        return tariff.charge.cost(usage.prompt_tokens, usage.completion_tokens, usage)

    def per_million(self, model: str | None, *, asked: str | None = None) -> Price | None:
        """The price of a million tokens; the lowest tier where there are several. None when unknown."""
        tariff = self._tariff(model, asked)
        return None if tariff is None else tariff.price

    def _tariff(self, model: str | None, asked: str | None) -> _Tariff | None:
        try:
            return self._tariffs[model, asked]
        except KeyError:
            if len(self._tariffs) >= _MOST_MODELS:
                self._tariffs.clear()
            return self._tariffs.setdefault((model, asked), self._looked_up(model, asked))

    def _looked_up(self, model: str | None, asked: str | None) -> _Tariff | None:
        names = [name for name in (model, asked) if name]
        for name in names:
            own = self._overrides.get(name) or self._overrides.get(name.lower())
            if own is not None:
                return own
        published = (_published(name, self._hint, self._now) for name in names)
        return next((tariff for tariff in published if tariff is not None), None)


def _own(price: Price) -> _Tariff:
    return _Tariff(charge=_flat(price), price=price)


def _flat(price: Price) -> _Flat:
    cached = price.input_per_million if price.cached_per_million is None else price.cached_per_million
    return _Flat(prompt=price.input_per_million / 1e6, completion=price.output_per_million / 1e6, cached=cached / 1e6)


def _published(name: str, hint: str | None, now: Callable[[], datetime]) -> _Tariff | None:
    """What genai-prices says about a model; None when it does not know it or has no price per token for it."""
    found = _find(name, hint)
    if found is None:
        return None
    provider, model = found
    prices = {key: value for key, value in vars(model.get_prices(now())).items() if value is not None}
    if not {"input_mtok", "output_mtok"} <= prices.keys():
        return None
    price = Price(
        input_per_million=_base(prices["input_mtok"]),
        output_per_million=_base(prices["output_mtok"]),
        cached_per_million=_base(prices["cache_read_mtok"]) if "cache_read_mtok" in prices else None,
    )
    if _is_flat(model, prices):
        return _Tariff(charge=_flat(price), price=price)
    return _Tariff(charge=_Published(model=model, provider=provider, now=now), price=price)


def _base(value: Any) -> float:
    return float(getattr(value, "base", value))


def _is_flat(model: Any, prices: Mapping[str, Any]) -> bool:
    """Whether a token costs the same whatever the request and the hour."""
    from genai_prices.types import TieredPrices, TimeOfDateConstraint

    by_hour = isinstance(model.prices, list) and any(
        isinstance(each.constraint, TimeOfDateConstraint) for each in model.prices
    )
    tiered = any(isinstance(prices[key], TieredPrices) for key in _PER_TOKEN_KEYS & prices.keys())
    return not (by_hour or tiered or _COUNTED_APART & prices.keys())


def _find(name: str, hint: str | None) -> tuple[Any, Any] | None:
    """Provider and model in genai-prices: at the hint, by the model's name alone, by the vendor in front of it."""
    from genai_prices.data_snapshot import get_snapshot

    vendor, _, bare = name.partition("/")
    tries: list[tuple[str, str | None, str | None]] = [(name, None, None)]
    if hint:
        tries.insert(0, (name, None, hint) if "://" in hint else (name, hint, None))
    if bare:
        tries.append((bare, vendor, None))
    for ref, provider_id, url in tries:
        try:
            return get_snapshot().find_provider_model(ref, None, provider_id, url)
        except LookupError:
            continue
    return None
