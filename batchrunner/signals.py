"""SIGINT, SIGTERM and SIGHUP, heard from the first moment of a command to its last."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from batchrunner.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LAST = 3


class Signals:
    """Counts the signals that ask a run to end.

    Until a run listens nothing has been sent: the first signal raises `Interrupted` wherever the program is; a
    second one is only counted, for it would raise where that is dealt with.
    A run that listens is told of each; once it has ended they are only counted, for it has its last word to say.
    The third always ends the process at once, also one that hangs. Signals that whoever started us has switched
    off, as nohup does, stay off. Needs the main thread.
    """

    def __init__(self) -> None:
        self.heard: list[signal.Signals] = []
        self._listening = False
        self._tell: Callable[[], object] | None = None
        self._lock = Lock()

    def install(self) -> Signals:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)
        return self

    @contextmanager
    def listening(self, tell: Callable[[], object]) -> Iterator[None]:
        """Within the block `tell` is called for each signal, between any two steps of the program; after it, none.

        Also for those heard before: what they raised may have been lost where nothing can be raised.
        """
        with self._lock:
            earlier = len(self.heard)
            self._listening, self._tell = True, tell
        try:
            for _ in range(earlier):
                tell()
            yield
        finally:
            self._tell = None

    def receive(self, number: signal.Signals) -> None:
        """Take in a signal that another process has heard for this one. From any thread, at any time."""
        with self._lock:
            self.heard.append(number)
            tell = self._tell
        if tell is not None:
            tell()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.heard.append(signal.Signals(number))
        if len(self.heard) >= LAST:
            os._exit(128 + number)
        if not self._listening and len(self.heard) == 1:
            raise Interrupted(signal.Signals(number), " before anything was sent")
        if self._tell is not None:
            self._tell()
