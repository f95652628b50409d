"""Signals that ask a run to end: when they raise, when they are told, when they end the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from batchrunner.errors import Interrupted
from batchrunner.signals import ENDING, Signals

if TYPE_CHECKING:
    from collections.abc import Iterator


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def as_before() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_until_a_run_listens_the_first_one_raises(number):
    with as_before():
        Signals().install()
        with pytest.raises(Interrupted, match=f"{number.name} before anything was sent") as caught:
            send(number)

    assert caught.value.exit_code == 128 + number


def test_a_second_one_does_not_raise_where_the_first_is_dealt_with():
    with as_before():
        signals = Signals().install()
        with suppress(Interrupted):
            send(signal.SIGTERM)
        send(signal.SIGTERM)

    assert len(signals.heard) == 2


def test_a_run_that_listens_is_told_and_afterwards_they_are_only_counted():
    told: list[int] = []
    with as_before():
        signals = Signals().install()
        with signals.listening(lambda: told.append(len(signals.heard))):
            send(signal.SIGTERM)
        send(signal.SIGINT)

    assert told == [1]
    assert signals.heard == [signal.SIGTERM, signal.SIGINT]


def test_what_whoever_started_us_has_switched_off_stays_off():
    with as_before():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals = Signals().install()
        send(signal.SIGHUP)

    assert not signals.heard


THREE = """
import os, signal, time
from batchrunner.signals import Signals
signals = Signals().install()
with signals.listening(lambda: None):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        print(len(signals.heard), flush=True)
        os.kill(os.getpid(), number)
    print("still there", flush=True)
"""


def test_the_third_ends_the_process_whatever_it_does():
    ended = subprocess.run([sys.executable, "-c", THREE], capture_output=True, text=True, check=False)

    assert ended.returncode == 143
    assert ended.stdout.split() == ["0", "1", "2"]


def test_one_that_raised_where_nothing_can_be_raised_is_told_to_the_run():
    told: list[int] = []
    with as_before():
        signals = Signals().install()
        with suppress(Interrupted):
            send(signal.SIGTERM)
        with signals.listening(lambda: told.append(len(signals.heard))):
            assert told == [1]


def test_a_signal_that_another_process_heard_counts_like_ours():
    told, signals = [], Signals()
    signals.receive(signal.SIGTERM)

    with signals.listening(lambda: told.append(1)):
        assert len(told) == 1  # The one that came before.
        signals.receive(signal.SIGINT)

    signals.receive(signal.SIGINT)
    assert (len(told), signals.heard) == (2, [signal.SIGTERM, signal.SIGINT, signal.SIGINT])
