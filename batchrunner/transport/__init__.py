"""The wire: requests out, replies in, with every clock and cap kept. The one home of httpx."""

from __future__ import annotations

from batchrunner.transport.attempt import Clocks
from batchrunner.transport.direct import DirectTransport
from batchrunner.transport.files import connections_left, raise_open_files
from batchrunner.transport.line import Line
from batchrunner.transport.wire import Wire

__all__ = ["Clocks", "DirectTransport", "Line", "Wire", "connections_left", "raise_open_files"]
