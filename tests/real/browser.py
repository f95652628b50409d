"""Chromium over its own protocol: a page opened as its reader would, and what the browser said of it."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Iterator

QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
STARTED = "DevTools listening on "


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a browser told of a page."""

    errors: list[str] = field(default_factory=list)
    """Whatever came to its console, and scripts that failed."""
    requests: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    """Of the expressions that were asked, in their order."""
    picture: bytes = b""
    printed: bytes = b""


def open_page(command: str, url: str, *, width: int, dark: bool = False, ask: tuple[str, ...] = ()) -> Seen:
    """Open `url` in a window of this width, evaluate what is asked, draw it and print it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, _browser(command, home) as address:
        return asyncio.run(_look(address, url, width, dark, ask))


@contextmanager
def _browser(command: str, home: str) -> Iterator[str]:
    words = [command, *QUIET, f"--user-data-dir={home}", "about:blank"]
    # It writes much about what it misses; nobody reads a pipe that long.
    with (Path(home) / "said").open("w+") as said:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said)
        try:
            yield _address(process, Path(home) / "DevToolsActivePort")
        finally:
            process.terminate()
            process.wait(timeout=20)


def _address(process: subprocess.Popen[bytes], told: Path) -> str:
    for _ in range(300):
        lines = told.read_text().split() if told.exists() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        assert process.poll() is None, "the browser did not start"
        time.sleep(0.1)
    raise AssertionError("the browser does not listen")


async def _look(address: str, url: str, width: int, dark: bool, ask: tuple[str, ...]) -> Seen:
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        tab = Tab(socket, Seen())
        target = await tab.call("Target.createTarget", url="about:blank")
        tab.session = (await tab.call("Target.attachToTarget", targetId=target["targetId"], flatten=True))["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await tab.call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 700}
        await tab.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await tab.call("Emulation.setEmulatedMedia", features=scheme)
        await tab.call("Page.navigate", url=url)
        await tab.event("Page.loadEventFired")
        for expression in ask:
            found = await tab.call("Runtime.evaluate", expression=expression, returnByValue=True)
            tab.seen.answers.append(found["result"].get("value"))
        picture = await tab.call("Page.captureScreenshot", captureBeyondViewport=True)
        printed = await tab.call("Page.printToPDF", printBackground=True)
        tab.seen.picture, tab.seen.printed = (base64.b64decode(part["data"]) for part in (picture, printed))
        return tab.seen


class Tab:
    """One tab, spoken to by one task: while it waits for an answer it takes in what the browser tells."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, seen: Seen) -> None:
        self.seen, self.session, self._socket = seen, "", socket
        self._numbers, self._told = itertools.count(1), list[str]()

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        about = {"sessionId": self.session} if self.session else {}
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **about})
        while (message := await self._next()).get("id") != number:
            self._hear(message)
        assert "error" not in message, (method, message)
        return message["result"]

    async def event(self, name: str) -> None:
        while name not in self._told:
            self._hear(await self._next())

    async def _next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._socket.receive_str(timeout=30))
        return found

    def _hear(self, message: dict[str, Any]) -> None:
        name, facts = message.get("method", ""), message.get("params", {})
        self._told.append(name)
        if name == "Network.requestWillBeSent":
            self.seen.requests.append(facts["request"]["url"])
        if name in (
            "Log.entryAdded",
            "Runtime.consoleAPICalled",
            "Runtime.exceptionThrown",
            "Page.javascriptDialogOpening",
        ):
            self.seen.errors.append(json.dumps(facts))
