"""Tokens and cost of what a run would still buy: by what it has settled, else a guess."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from batchrunner.limits.estimate import COMPLETION_TOKENS, ENOUGH, Estimator
from batchrunner.limits.forecast import Range, forecast, misfit, rest_of
from batchrunner.records import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchrunner.assemble.pilot import Settled
    from batchrunner.prices import Prices
    from batchrunner.records import Request
    from batchrunner.store import Quantiles

_COMPLETION_WEIGHT = 4
"""Tokens of an answer cost about so many of a prompt: sizes of requests whose model is not known beforehand."""
_LEAST_PROMPT, _LEAST_ANSWER = 0.5, 0.02
"""The lower end of a guess, as shares of what the upper end takes for a prompt and an answer."""
_NEAR, _MUCH = 2.0, 0.1
"""A prompt within twice the longest and half the shortest seen is near; more than a tenth far off is much."""
_CLEARLY = 0.5
"""A rule that misses by at most this share of what another does holds for other lengths too."""
_SHORT_CHARS = 100
"""The tokens of shorter prompts are as many of what stands around each message as of its characters."""
_BEYOND_WIDENS = 1.25
"""How many tokens a character makes differs by text: prose, code, and numbers lie about so far apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Tokens of an item, all of its turns and attempts together."""

    prompt: float
    completion: float

    @property
    def tokens(self) -> float:
        return self.prompt + self.completion

    def cost(self, request: Request, prices: Prices) -> float | None:
        usage = Usage(prompt_tokens=round(self.prompt), completion_tokens=max(1, round(self.completion)))
        return prices.cost(request.model, usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What requests are taken to use, by their characters."""

    prompt_ratio: float
    """Prompt tokens reported for each that the characters let expect."""
    per_answer: float = 0.0
    """Tokens of an answer, whatever the prompt."""
    per_prompt_token: float = 0.0
    """Tokens of an answer for each of the prompt, as in a translation."""

    def used(self, request: Request) -> Used:
        prompt = _prompt_tokens(request)
        answer = self.per_answer + self.per_prompt_token * prompt
        if request.max_tokens:
            answer = min(answer, request.max_tokens)
        return _all_turns(request, prompt * self.prompt_ratio, answer * request.choices)


def calibrated(
    requests: Sequence[Request], to_buy: int, *, pilot: Sequence[Settled], prices: Prices
) -> dict[str, Any] | None:
    """The estimate for `to_buy` items, of which `requests` are some; None when too little was settled to tell."""
    if len(pilot) < ENOUGH or not any(item.prompt_tokens + item.completion_tokens for item in pilot):
        return None
    rules = _rules(pilot)
    rule, used = rules[0], [item.prompt_tokens + item.completion_tokens for item in pilot]
    seen, rest = [rule.used(item.request) for item in pilot], [rule.used(request) for request in requests]

    def told(used: Sequence[float], size: Callable[[Used], float]) -> Range:
        return forecast(used, [size(each) for each in seen], rest_of([size(each) for each in rest], to_buy))

    prompt = told([item.prompt_tokens for item in pilot], attrgetter("prompt")).expected
    completion = told([item.completion_tokens for item in pilot], attrgetter("completion")).expected
    tokens = told(used, attrgetter("tokens"))
    cost = _cost(list(zip(requests, rest, strict=True)), to_buy, tokens, pilot=pilot, seen=seen, prices=prices)
    beyond = _beyond(requests, pilot)
    if beyond:
        sums = [_whole(rule, requests, to_buy, pilot=pilot, prices=prices) for rule in _rules_beyond(rules, pilot)]
        prompt, completion = sums[0].prompt, sums[0].completion
        tokens = _around(tokens, [each.prompt + each.completion for each in sums])
        cost = cost and _around(cost, [each.cost for each in sums])
    return {
        "prompt_tokens": round(prompt),
        "completion_tokens": round(completion),
        "tokens_at_least": math.floor(tokens.at_least),
        "tokens_at_most": math.ceil(tokens.at_most),
        "calibrated": True,
        "calibrated_by": len(pilot),
        "calibrated_near": not beyond,
        **_money(cost),
    }


def _beyond(requests: Sequence[Request], pilot: Sequence[Settled]) -> bool:
    """Whether much of the rest is in prompts of a length that the pilot had nothing near of."""
    seen = [item.request.prompt_chars for item in pilot]
    least, most = min(seen) / _NEAR, max(seen) * _NEAR
    lengths = [request.prompt_chars for request in requests]
    far = [length for length in lengths if not least <= length <= most]
    return sum(far) > _MUCH * sum(lengths) or len(far) > _MUCH * len(lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """What one rule tells of all of the rest."""

    prompt: float
    completion: float
    cost: float


def _whole(rule: Rule, requests: Sequence[Request], to_buy: int, *, pilot: Sequence[Settled], prices: Prices) -> _Whole:
    scale, used = to_buy / len(requests), [rule.used(request) for request in requests]
    costs = [each.cost(request, prices) for each, request in zip(used, requests, strict=True)]
    known = [cost for cost in costs if cost is not None]
    prompt, completion = math.fsum(each.prompt for each in used), math.fsum(each.completion for each in used)
    if len(known) == len(costs):
        cost = math.fsum(known)
    else:
        weighed = sum(item.prompt_tokens + _COMPLETION_WEIGHT * item.completion_tokens for item in pilot)
        paid = math.fsum(item.cost_usd or 0.0 for item in pilot)
        cost = paid / weighed * (prompt + _COMPLETION_WEIGHT * completion)
    return _Whole(prompt=prompt * scale, completion=completion * scale, cost=cost * scale)


def _around(near: Range, sums: Sequence[float]) -> Range:
    """Of sums that may hold, as far as a range tells of items near to those seen, and some more."""
    sure = near.expected or 1.0
    return Range(
        expected=sums[0],
        at_least=min(sums) * near.at_least / sure / _BEYOND_WIDENS,
        at_most=max(sums) * near.at_most / sure * _BEYOND_WIDENS,
    )


def _rules(pilot: Sequence[Settled]) -> list[Rule]:
    """That which tells best how long the answers of the pilot are, then the other."""
    answers = [max(1, item.request.turns) * item.request.choices for item in pilot]
    prompts = [_prompt_tokens(item.request) for item in pilot]
    completion = sum(item.completion_tokens for item in pilot)
    asked = sum(prompt * count for prompt, count in zip(prompts, answers, strict=True))
    alike = Rule(prompt_ratio=1.0, per_answer=completion / sum(answers))
    expected = sum(alike.used(item.request).prompt for item in pilot)
    alike = replace(alike, prompt_ratio=sum(item.prompt_tokens for item in pilot) / expected)
    along = replace(alike, per_answer=0.0, per_prompt_token=completion / asked)
    return sorted((alike, along), key=lambda rule: _misfit(rule, pilot))


def _rules_beyond(rules: Sequence[Rule], pilot: Sequence[Settled]) -> list[Rule]:
    """What may hold of prompts unlike those of the pilot: first what is likely."""
    best, other = rules
    if _misfit(best, pilot) > _CLEARLY * _misfit(other, pilot):
        # That short questions are answered by long texts does not make the answers to long ones longer than they are.
        best, other = (replace(rule, per_prompt_token=min(1.0, rule.per_prompt_token)) for rule in rules)
        fitting = sorted((best, other), key=lambda rule: rule.per_prompt_token)
    else:
        fitting = [best]
    usual = [replace(rule, prompt_ratio=1.0) for rule in fitting]
    short = sum(item.request.prompt_chars for item in pilot) < _SHORT_CHARS * len(pilot)
    return [*usual, *fitting] if short else [*fitting, *usual]


def _misfit(rule: Rule, pilot: Sequence[Settled]) -> float:
    return misfit([item.completion_tokens for item in pilot], [rule.used(item.request).completion for item in pilot])


def _cost(
    rest: Sequence[tuple[Request, Used]],
    to_buy: int,
    tokens: Range,
    *,
    pilot: Sequence[Settled],
    seen: Sequence[Used],
    prices: Prices,
) -> Range | None:
    """None when it is not known what the pilot cost, or what a model asks that a request names."""
    costs = [item.cost_usd for item in pilot if item.cost_usd is not None]
    if len(costs) < len(pilot):
        return None
    asked = [(item.request, used) for item, used in zip(pilot, seen, strict=True)]
    sizes = [used.cost(request, prices) for request, used in (*asked, *rest)]
    if any(size is None and request.model for size, (request, _) in zip(sizes, (*asked, *rest), strict=True)):
        return None
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        # Agents answer with models that requests do not name: what those cost was seen.
        known = [used.prompt + _COMPLETION_WEIGHT * used.completion for _, used in (*asked, *rest)]
    elif not any(known[: len(pilot)]) and any(known):
        return _of_prices(known[len(pilot) :], to_buy, tokens)
    return forecast(costs, known[: len(pilot)], rest_of(known[len(pilot) :], to_buy))


def _of_prices(costs: Sequence[float], to_buy: int, tokens: Range) -> Range:
    """Of a pilot that was free and a rest that is not: what its models ask, as sure as its tokens are."""
    whole = math.fsum(costs) / len(costs) * to_buy
    sure = tokens.expected or 1.0
    return Range(expected=whole, at_least=whole * tokens.at_least / sure, at_most=whole * tokens.at_most / sure)


def guess(requests: Sequence[Request], to_buy: int, *, known: Quantiles | None, prices: Prices) -> dict[str, Any]:
    """The estimate of a run that has settled little; `known` is what earlier answers to other requests used."""
    sums, costs, unknown = [Used(prompt=0, completion=0)] * 3, [0.0] * 3, False
    for request in requests:
        guesses = _guesses(request, known)
        found = [used.cost(request, prices) for used in guesses]
        unknown = unknown or None in found
        sums = [_sum(before, used) for before, used in zip(sums, guesses, strict=True)]
        costs = [before + (cost or 0.0) for before, cost in zip(costs, found, strict=True)]
    scale = to_buy / max(1, len(requests))
    low, likely, high = sums
    cost = Range(at_least=costs[0] * scale, expected=costs[1] * scale, at_most=costs[2] * scale)
    return {
        "prompt_tokens": int(likely.prompt * scale),
        "completion_tokens": int(likely.completion * scale),
        "tokens_at_least": int(low.tokens * scale),
        "tokens_at_most": int(high.tokens * scale),
        "calibrated": False,
        "calibrated_by": 0,
        "calibrated_near": False,
        **_money(None if unknown else cost),
    }


def _guesses(request: Request, known: Quantiles | None) -> list[Used]:
    """From the least to the most that it may use."""
    guessed = Estimator().estimate(request)
    most = max(guessed.completion_tokens, int(known.p95) if known else 0)
    likely = int(known.p50) if known else min(most, COMPLETION_TOKENS // 2)
    return [
        _all_turns(request, guessed.prompt_tokens * _LEAST_PROMPT, min(likely, most * _LEAST_ANSWER)),
        _all_turns(request, guessed.prompt_tokens, likely),
        _all_turns(request, guessed.prompt_tokens, most),
    ]


def _prompt_tokens(request: Request) -> float:
    return Estimator().estimate(request).prompt_tokens


def _all_turns(request: Request, prompt_tokens: float, answer_tokens: float) -> Used:
    """What an item uses in all: each turn sends the answers to those before it again."""
    turns = max(1, request.turns)
    return Used(
        prompt=prompt_tokens * turns + answer_tokens * (turns * (turns - 1) // 2), completion=answer_tokens * turns
    )


def _sum(one: Used, other: Used) -> Used:
    return Used(prompt=one.prompt + other.prompt, completion=one.completion + other.completion)


def _money(cost: Range | None) -> dict[str, float | None]:
    return {
        "cost_usd": cost.expected if cost else None,
        "cost_usd_at_least": cost.at_least if cost else None,
        "cost_usd_at_most": cost.at_most if cost else None,
    }
