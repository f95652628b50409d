"""How long the first byte is waited for, by whom is asked."""

from __future__ import annotations

import pytest

from batchrunner import providers
from batchrunner.assemble.execute import first_byte_s
from batchrunner.spec import TimeoutsSpec


@pytest.mark.parametrize(
    ("kind", "seconds"), [("openai", 300.0), ("tess", 300.0), ("gateway", 360.0), ("opentools", 600.0)]
)
def test_a_dialect_whose_servers_are_long_silent_is_given_longer(kind, seconds):
    assert first_byte_s(TimeoutsSpec(), providers.load(kind)) == seconds


def test_the_job_has_the_last_word():
    assert first_byte_s(TimeoutsSpec(first_byte_s=300.0), providers.load("opentools")) == 300.0
