"""What a completion costs."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.prices import Prices
from batchrunner.records import Usage
from batchrunner.spec import Price

OPENAI = "https://api.openai.com/v1"
OWN = {"tess-6": Price(input_per_million=1, output_per_million=4)}


def used(prompt: int | None, completion: int | None, cached: int | None = None) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def test_the_job_s_own_price_wins_whatever_the_case():
    prices = Prices({"gpt-4o": Price(input_per_million=1, output_per_million=2), **OWN}, OPENAI)

    assert prices.cost("gpt-4o", used(1_000_000, 1_000_000)) == pytest.approx(3)
    assert prices.cost("TESS-6", used(10, 10)) == pytest.approx(50e-6)


def test_exact_names_win_over_case():
    prices = Prices({"M": Price(input_per_million=1, output_per_million=0), "m": OWN["tess-6"]})

    assert prices.cost("M", used(1_000_000, 0)) == pytest.approx(1)
    assert prices.per_million("m") == OWN["tess-6"]


def test_the_job_s_price_of_the_model_asked_holds_for_the_model_answered():
    prices = Prices({"gpt-4o": Price(input_per_million=1, output_per_million=1)}, OPENAI)

    assert prices.cost("gpt-4o-2024-08-06", used(1_000_000, 0), asked="gpt-4o") == pytest.approx(1)
    assert prices.cost("gpt-4o-2024-08-06", used(1_000_000, 0)) == pytest.approx(2.5)


def test_a_model_answered_under_an_unknown_name_is_priced_as_asked():
    assert Prices({}, OPENAI).cost("deployment-7", used(1_000_000, 0), asked="gpt-4o") == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("gpt-4o", None), ("gpt-4o-2024-08-06", OPENAI), ("gpt-4o-2024-08-06", "openai"), ("GPT-4o", "tess"),
        ("openai/gpt-4o", "https://api.opentools.com"), ("gpt-4o", "https://my.openai.azure.com"),
    ],
)  # fmt: skip
def test_models_are_known_by_the_names_servers_answer(model, hint):
    assert Prices({}, hint).per_million(model) == Price(
        input_per_million=2.5, output_per_million=10, cached_per_million=1.25
    )


def test_a_vendor_in_front_of_the_name_is_understood():
    price = Prices({}, "https://api.opentools.com").per_million("anthropic/claude-3.7-sonnet")

    assert price == Price(input_per_million=3, output_per_million=15, cached_per_million=0.3)


@pytest.mark.parametrize("model", ["tess-6", "no/such/model", "", None, "text-embedding-3-small"])
def test_an_unknown_price_is_none_and_never_nought(model):
    prices = Prices({}, "https://api.tess.im")

    assert prices.per_million(model) is None
    assert prices.cost(model, used(10, 10)) is None


@pytest.mark.parametrize("usage", [used(None, 5), used(5, None), used(None, None)])
def test_unknown_tokens_cost_an_unknown_amount(usage):
    assert Prices(OWN).cost("tess-6", usage) is None


def test_a_free_model_costs_nought():
    assert Prices({"m": Price(input_per_million=0, output_per_million=0)}).cost("m", used(5, 5)) == 0.0


@pytest.mark.parametrize(
    ("cached_price", "cached", "cost"),
    [(None, 500_000, 1.0), (0.1, 500_000, 0.55), (0.1, None, 1.0), (0.1, 0, 1.0), (0.1, 9_000_000, 0.1)],
)
def test_cached_tokens_have_their_own_price_when_it_is_known(cached_price, cached, cost):
    price = Price(input_per_million=1, output_per_million=1, cached_per_million=cached_price)

    assert Prices({"m": price}).cost("m", used(1_000_000, 0, cached)) == pytest.approx(cost)


def test_published_prices_count_cached_tokens():
    assert Prices({}, OPENAI).cost("gpt-4o", used(1_000_000, 0, 400_000)) == pytest.approx(0.6 * 2.5 + 0.4 * 1.25)


def test_a_tiered_price_depends_on_the_prompt():
    prices = Prices({}, "google")
    model = "gemini-2.5-pro"

    small, large = prices.cost(model, used(100_000, 0)), prices.cost(model, used(300_000, 0))

    assert small == pytest.approx(0.1 * 1.25)
    assert large == pytest.approx(0.3 * 2.5)
    assert prices.per_million(model) == Price(input_per_million=1.25, output_per_million=10, cached_per_million=0.125)


def test_a_price_of_the_hour_follows_the_clock():
    hours = iter([datetime(2025, 3, 1, hour, tzinfo=UTC) for hour in (12, 12, 18)])
    prices = Prices({}, "deepseek", now=lambda: next(hours))

    by_day, by_night = (prices.cost("deepseek-reasoner", used(1_000_000, 0)) for _ in range(2))

    assert by_day is not None
    assert by_night is not None
    assert by_night < by_day


@given(prompt=st.integers(0, 10**6), completion=st.integers(0, 10**6), cached=st.integers(0, 10**6))
def test_our_sums_are_those_of_genai_prices(prompt, completion, cached):
    import genai_prices

    counted = genai_prices.Usage(input_tokens=prompt, output_tokens=completion, cache_read_tokens=min(prompt, cached))
    theirs = genai_prices.calc_price(counted, "gpt-4o", provider_id="openai").total_price

    assert PUBLISHED.cost("gpt-4o", used(prompt, completion, cached)) == pytest.approx(float(theirs), abs=1e-12)


PUBLISHED = Prices({}, OPENAI)


def test_a_price_is_looked_up_once():
    prices = Prices({}, OPENAI)
    usage = used(10, 10)
    first = prices.cost("gpt-4o", usage)

    began = time.process_time()
    later = {prices.cost("gpt-4o", usage) for _ in range(10_000)}

    assert later == {first}
    assert time.process_time() - began < 0.5


def test_memory_stays_flat_when_every_answer_names_another_model():
    prices = Prices(OWN)

    for number in range(2500):
        prices.cost(f"model-{number}", used(1, 1))

    assert len(prices._tariffs) <= 1000


def test_the_price_list_is_loaded_by_the_first_look_up_only():
    code = (
        "import sys; from batchrunner.prices import Prices; prices = Prices({}, 'openai');"
        "before = 'genai_prices' in sys.modules; prices.per_million('gpt-4o');"
        "print(before, 'genai_prices' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]
