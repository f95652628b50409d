"""Debian's nginx as the other end of a benchmark: quick, steady, and nobody's own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ECHO = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
ANSWER = json.dumps(
    {
        "id": "chatcmpl-8f2a6c1b9d",
        "object": "chat.completion",
        "created": 1764000000,
        "model": "bench-1",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "billing: the customer was charged twice for the same order and asks for one of "
                    "the two payments back; urgent, since the account is overdrawn by it.",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 42, "completion_tokens": 31, "total_tokens": 73},
    },
    separators=(",", ":"),
)

_CONF = """
load_module {echo};
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
worker_processes 1; worker_rlimit_nofile 60000;
events {{ worker_connections 30000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s; default_type application/json;
  client_body_buffer_size 64k; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {http}
  server {{ listen 127.0.0.1:{port} backlog=16384; {locations} }}
}}
"""


def at_once(path: str) -> str:
    """A location below which every request is answered at once."""
    return f"location {path} {{ return 200 '{ANSWER}'; }}\n"


def after(path: str, seconds: float) -> str:
    """A location below which every request is answered after so long."""
    return f"location {path} {{ echo_sleep {seconds:g}; echo '{ANSWER}'; }}\n"


@contextmanager
def nginx(locations: str, *, http: str = "", cpu: int | None = None) -> Iterator[str]:
    """A server with these locations, on a CPU of its own if one is named; gives its address."""
    if missing := lacks():
        sys.exit(missing)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, socket.socket() as taken:
        folder = Path(name)
        folder.chmod(0o755)  # Its workers are nobody's.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.close()
        conf = folder / "nginx.conf"
        conf.write_text(_CONF.format(echo=ECHO, folder=folder, port=port, http=http, locations=locations))
        process = subprocess.Popen([*pinned(cpu), "nginx", "-c", str(conf)], stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(10)


def lacks() -> str | None:
    """What to install before a benchmark can run; None when it is all there."""
    if shutil.which("nginx") is None or not ECHO.exists():
        return "nginx is missing; apt-get install nginx-light libnginx-mod-http-echo"
    return None


def pinned(cpu: int | None) -> list[str]:
    """What to put in front of a command to keep it to one CPU."""
    return [] if cpu is None or shutil.which("taskset") is None else ["taskset", "-c", str(cpu)]


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if process.poll() is not None:
                sys.exit("nginx does not start; try its configuration by hand: nginx -t")
            time.sleep(0.05)
        else:
            return
    sys.exit("nginx did not listen within 5 s")
