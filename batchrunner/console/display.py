"""Progress on stderr, or as JSON lines on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from batchrunner.console import text

if TYPE_CHECKING:
    from typing import TextIO

    from rich.live import Live

    from batchrunner.events import Display, Progress

LIVE_PERIOD_S = 0.25
WIDTH = 80


def display_for(*, as_json: bool, quiet: bool, every_s: float, stderr: TextIO | None = None) -> Display:
    """The display for where this process writes: live on a terminal, plain lines elsewhere."""
    stream = stderr or sys.stderr
    if as_json:
        return JsonLines(every_s, stream)
    if quiet:
        return Quiet(stream)
    if stream is not None and _is_terminal(stream):
        return LiveTable(stream)
    return PlainLines(every_s, stream)


def _is_terminal(stream: TextIO) -> bool:
    with contextlib.suppress(ValueError):
        return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "")
    return False


class Quiet:
    """Only what has to be said: faults are said elsewhere, the last line too."""

    def __init__(self, stream: TextIO, period_s: float = 3600.0) -> None:
        self.period_s, self._stream = period_s, stream

    def began(self, line: str, facts: dict[str, Any]) -> None:
        pass

    def progress(self, now: Progress) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def ended(self) -> None:
        pass

    def write(self, line: str) -> None:
        # A closed terminal or a full pipe ends the progress, not the run.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream.write(text.clean(line) + "\n")
            self._stream.flush()


class PlainLines(Quiet):
    """One line per period, no control character."""

    def __init__(self, period_s: float, stream: TextIO) -> None:
        super().__init__(stream, period_s)

    def began(self, line: str, facts: dict[str, Any]) -> None:
        self.write(line)

    def progress(self, now: Progress) -> None:
        self.write(f"{datetime.now().astimezone():%H:%M:%S} {progress_line(now)}")

    def say(self, line: str) -> None:
        self.write(line)


class JsonLines(PlainLines):
    """Objects with a `type`, one per line, on stdout; stderr stays for people."""

    def began(self, line: str, facts: dict[str, Any]) -> None:
        self._object({"type": "started", "message": line, **facts})

    def progress(self, now: Progress) -> None:
        self._object({"type": "progress", **asdict(now)})

    def say(self, line: str) -> None:
        self._object({"type": "message", "message": line})

    def _object(self, facts: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(json.dumps(facts, ensure_ascii=False), flush=True)


class LiveTable(Quiet):
    """A few lines that are drawn again and again, on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, LIVE_PERIOD_S)
        self._live: Live | None = None

    def began(self, line: str, facts: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, highlight=False, markup=False)
        console.print(text.clean(line), soft_wrap=True)
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()

    def progress(self, now: Progress) -> None:
        from rich.text import Text

        if self._live is not None:
            width = min(WIDTH, self._live.console.width)
            with contextlib.suppress(OSError, ValueError):
                self._live.update(Text("\n".join(live_lines(now, width))), refresh=True)

    def say(self, line: str) -> None:
        if self._live is None:
            self.write(line)
            return
        with contextlib.suppress(OSError, ValueError):
            self._live.console.print(text.clean(line), soft_wrap=True)

    def ended(self) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError, ValueError):
                self._live.stop()
            self._live = None


def progress_line(now: Progress) -> str:
    """`12,400/50,000 598 rpm (99 %) 48 in flight 3 failed $1.52 ETA 01:02`."""
    parts = [f"{now.done:,}/{now.total:,}", _pace(now), f"{now.in_flight:,} in flight"]
    if now.waiting:
        parts.append(f"{now.waiting:,} waiting")
    if now.throttled:
        parts.append(f"{now.throttled:,} x 429")
    parts.append(f"{now.failed:,} failed")
    if now.cost_usd:
        parts.append(text.money(now.cost_usd))
    if now.left_s is not None:
        parts.append(f"ETA {text.clock(now.left_s)}")
    return " ".join([*parts, *now.notes])


def _pace(now: Progress) -> str:
    rate = f"{now.per_minute:,.0f} rpm"
    if now.limit_per_minute:
        rate += f" ({min(100.0, 100 * now.per_minute / now.limit_per_minute):.0f} %)"
    return rate


def live_lines(now: Progress, width: int) -> list[str]:
    """The live display: at most eight lines, none wider than `width`."""
    share = now.done / now.total if now.total else 1.0
    bar_width = max(10, width - 40)
    bar = "━" * round(bar_width * share)
    left = f"ETA {text.clock(now.left_s)}" if now.left_s is not None else "ETA --:--"
    lines = [
        f"{bar:<{bar_width}} {100 * share:3.0f} %  {now.done:,}/{now.total:,}  {left}",
        f"rate    {_pace(now)}" + (f", {now.throttled:,} x 429" if now.throttled else ""),
        f"flight  {now.in_flight:,} in flight (oldest {now.oldest_s:.0f} s), {now.waiting:,} waiting for a retry",
        f"used    {now.tokens:,} tokens, {text.money(now.cost_usd)}, {text.clock(now.seconds)} elapsed",
        f"items   {now.succeeded:,} succeeded, {now.failed:,} failed" + _types(now),
        *(f"        {note}" for note in now.notes[:2]),
    ]
    if now.draining:
        lines.append(f"Draining {now.in_flight:,} in flight (oldest {now.oldest_s:.0f} s). Ctrl-C again gives them up.")
    return [text.cut(text.clean(line), width) for line in lines]


def _types(now: Progress) -> str:
    kinds = sorted(now.failed_by_type.items(), key=lambda pair: -pair[1])[:4]
    return f" ({', '.join(f'{kind} {number:,}' for kind, number in kinds)})" if kinds else ""
