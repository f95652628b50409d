"""A process that has the product loaded and forks a command a call: the same command, without a second of imports.

`driving.batchrunner` uses it. Each command is still a process of its own, with its own directory, environment, pipes
and exit status; only the loading of modules is shared. Commands that are stopped or killed halfway are started anew.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REQUEST_BYTES = 1 << 20
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "FAKETIME")  # By the interpreter, before any code of ours.

_STARTING = threading.Lock()


def forkable(env: Mapping[str, str]) -> bool:
    """Whether a command with these variables besides the usual ones is the same when it is forked."""
    return sys.platform == "linux" and not any(name.startswith(_READ_AT_START) for name in env)


def call(
    words: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end, with nothing on standard input.

    Raises:
        subprocess.TimeoutExpired: it did not end; it was killed.
    """
    request = json.dumps([list(words), str(cwd), dict(env)]).encode()
    with contextlib.ExitStack() as open_, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        with _STARTING:
            address, _ = _forking(os.getpid())
        connection.connect("\0" + address)
        opened = [os.open(os.devnull, os.O_RDONLY), os.memfd_create("out"), os.memfd_create("err")]
        for file in opened:
            open_.callback(os.close, file)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
        socket.send_fds(connection, [request], opened)
        pid = int(connection.recv(64))
        connection.settimeout(timeout_s)
        try:
            status = int(connection.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), timeout_s) from None
        out, err = (os.pread(file, os.fstat(file).st_size, 0) for file in opened[1:])
    return subprocess.CompletedProcess(list(words), os.waitstatus_to_exitcode(status), out, err)


@cache
def _forking(pid: int) -> tuple[str, subprocess.Popen[bytes]]:
    """Where the forking process of process `pid` listens, and itself; it ends with the one that started it."""
    address = f"batchrunner-tests-{pid}-{time.monotonic_ns()}"
    started = subprocess.Popen(
        [sys.executable, __file__, address],
        env={**os.environ, "PYTHONWARNINGS": "error::ResourceWarning", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    return address, started


def _load() -> None:
    for name in ("assemble", "cli.running", "simulator"):
        importlib.import_module(f"batchrunner.{name}")
    for name in ("aiohttp", "genai_prices.data_snapshot", "httpx", "jinja2", "jsonschema_rs", "rich.console", "uvloop"):
        importlib.import_module(name)
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    assert threads <= {"python", "jemalloc_bg_thd"}, threads  # A fork copies one thread; jemalloc starts its own anew.


def _fork() -> int:
    with warnings.catch_warnings():  # From Python 3.12 on it warns of threads, also of those of `_load`.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _serve(address: str) -> None:
    """Accept commands until the process that started this one is gone; returns only in the fork that is a command."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + address)
        listener.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                sys.exit()
            connection, _ = listener.accept()
            if _fork() == 0:
                break
            connection.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, files, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 3)
    command = _fork()
    if command:
        connection.send(str(command).encode())
        _, status = os.waitpid(command, 0)
        with contextlib.suppress(BrokenPipeError):  # Whoever asked has given up waiting.
            connection.send(str(status).encode())
        os._exit(0)
    connection.close()
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    words, cwd, env = json.loads(request)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    time.tzset()
    sys.path[0] = cwd
    sys.argv = ["batchrunner", *words]


if __name__ == "__main__":
    _load()
    _serve(sys.argv[1])
    from batchrunner.cli import main

    main()
