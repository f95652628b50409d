"""Object stores on loopback: moto for S3, azurite for Azure, and a proxy that makes them misbehave."""

from __future__ import annotations

import hmac
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from base64 import b64decode, b64encode
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import obstore
from obstore.store import from_url
from real import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, the same everywhere, in its documentation."""


@dataclass(slots=True, kw_only=True)
class Bucket:
    """A bucket, and the variables with which a command reaches it."""

    address: str
    env: Mapping[str, str]

    def store(self) -> object:
        names = {"AWS_ENDPOINT_URL": "endpoint", "AZURE_STORAGE_ENDPOINT": "endpoint"}
        config = {names.get(name, name): value for name, value in self.env.items() if name.startswith(("AWS", "AZURE"))}
        return from_url(self.address, config=config, client_options={"allow_http": True})

    def put(self, name: str, data: bytes) -> None:
        obstore.put(self.store(), name, data)

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self.store(), name).bytes())

    def names(self, folder: str = "") -> list[str]:
        return sorted(one["path"] for some in obstore.list(self.store(), prefix=folder or None) for one in some)


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def _served(words: list[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < until, "the server does not listen"
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextmanager
def s3(folder: Path) -> Iterator[Bucket]:
    """An empty bucket of a moto server of its own."""
    needs.package("moto", "pip install 'batchrunner[real]'")
    port = _port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _served(words, port, folder / "moto.log"):
        url = f"http://127.0.0.1:{port}"
        urllib.request.urlopen(urllib.request.Request(f"{url}/nightly", method="PUT")).close()
        yield s3_at(url, folder)


def s3_at(url: str, folder: Path) -> Bucket:
    env = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "BATCHRUNNER_STATE_DIR": str(folder / "state"),
    }
    return Bucket(address="s3://nightly", env=env)


@contextmanager
def azure(folder: Path) -> Iterator[Bucket]:
    """An empty container of an azurite server of its own."""
    port = _port()
    words = [needs.azurite(), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder / "blobs")]
    with _served([*words, "--skipApiVersionCheck", "--silent"], port, folder / "azurite.log"):
        env = {
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
            "BATCHRUNNER_STATE_DIR": str(folder / "state"),
        }
        _make_container(port)
        yield Bucket(address="az://nightly", env=env)


def _make_container(port: int) -> None:
    """Signed by hand, for obstore makes none: https://learn.microsoft.com/rest/api/storageservices/create-container."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    headers = {"x-ms-date": date, "x-ms-version": version}
    path = f"/{ACCOUNT}/nightly"
    said = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}{path}\nrestype:container"
    signature = b64encode(hmac.digest(b64decode(KEY), said.encode(), "sha256")).decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}?restype=container",
        method="PUT",
        headers={**headers, "authorization": f"SharedKey {ACCOUNT}:{signature}", "content-length": "0"},
    )
    urllib.request.urlopen(request).close()


@dataclass(slots=True)
class Interference:
    """What the proxy does to the requests that pass it."""

    forget_conditions: bool = False
    """Drops the headers that make a request conditional, as some stores ignore them."""
    down: threading.Event = field(default_factory=threading.Event)
    """While set, every request is answered with 503."""
    requests: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    """Method and path, and the headers."""


@contextmanager
def meddled(url: str) -> Iterator[tuple[str, Interference]]:
    """A proxy in front of the store at `url`: its own address, and what it does."""
    ways = Interference()

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            ways.requests.append((f"{self.command} {self.path}", dict(self.headers)))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if ways.down.is_set():
                self._answer(503, {}, b"")
                return
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            if ways.forget_conditions:
                headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
            upstream = HTTPConnection(url.removeprefix("http://"))
            try:
                upstream.request(self.command, self.path, body=body or None, headers=headers)
                reply = upstream.getresponse()
                self._answer(reply.status, dict(reply.headers), reply.read())
            finally:
                upstream.close()

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
            self.send_header("content-length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", ways
    finally:
        server.shutdown()
        server.server_close()
