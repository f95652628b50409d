"""Is the allowance used up and kept: a rate that is set, one that is not known, and a server that fails now and then.

.venv/bin/python tests/bench/rates.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import socket
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

import polars as pl
from processes import batchrunner, measured, rows_file
from servers import ANSWER, nginx
from tables import machine, show

if TYPE_CHECKING:
    from collections.abc import Iterator

STEADY_S = 5
"""From this second on each is looked at by itself."""
LIMITED = """
    limit_req_zone $server_port zone=allowed:1m rate={rate}r/s;
    limit_req_status 429;
    log_format seconds '$msec $status';
"""
LOCATION = """
    access_log {log} seconds;
    location / {{
        limit_req zone=allowed burst={burst} nodelay;
        add_header Retry-After 2 always;
        {delay} echo '{answer}';
    }}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.1, help="of the server, in seconds")
    parser.add_argument("--rows", type=int, help="in place of 4,000, 1,500 and 6,000")
    parser.add_argument("--only", choices=["set", "unknown", "failing"])
    asked = parser.parse_args()
    print(machine())
    if asked.only in (None, "set"):
        rounds = [limited(200, asked.rows or 4_000, asked.latency, ["--rpm", "12000"]) for _ in range(asked.rounds)]
        table("200 requests/s allowed, burst 20; --rpm 12000, 20 s", rounds, must=(">= 99", "0"), aim=("", ""))
    if asked.only in (None, "unknown"):
        rounds = [limited(50, asked.rows or 1_500, asked.latency, ["--rpm", "none"]) for _ in range(asked.rounds)]
        table(
            "50 requests/s allowed, burst 20, Retry-After: 2; not known, 1,500 rows",
            rounds,
            must=(">= 90", "<= 3 %"),
            aim=(">= 95", "< 1 %"),
        )
    if asked.only in (None, "failing"):
        shares = [
            failing(share=0.2, concurrency=50, latency_s=0.1, rows=asked.rows or 6_000) for _ in range(asked.rounds)
        ]
        head = ("", "measured", "must", "aim")
        rows = [
            ("goodput / ideal (%)", median(shares), ">= 85", ">= 95"),
            ("rounds", str([round(s, 1) for s in shares]), "", ""),
        ]
        show("20 % of attempts answer 503, 50 in flight, server 100 ms", head, rows)


def table(
    title: str, rounds: list[tuple[float, int, int, int, int]], *, must: tuple[str, str], aim: tuple[str, str]
) -> None:
    used, refused, sent, least, most = (median(column) for column in zip(*rounds, strict=True))
    rows = [
        ("allowance used (%)", used, must[0], aim[0]),
        ("answered with 429", f"{refused:,.0f} of {sent:,.0f} ({100 * refused / sent:.2f} %)", must[1], aim[1]),
        ("per full second from the sixth, least and most", f"{least:,.0f} to {most:,.0f}", "", ""),
        ("rounds, used (%)", str([round(found[0], 1) for found in rounds]), "", ""),
        ("rounds, 429s", str([found[1] for found in rounds]), "", ""),
    ]
    show(title, ("", "measured", "must", "aim"), rows)


def limited(rate: int, rows: int, latency_s: float, options: list[str]) -> tuple[float, int, int, int, int]:
    """Share used of what nginx allows from the first request to the last, 429s, requests; least and most a second."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    folder.chmod(0o755)
    log = folder / "seconds.log"
    log.touch()
    log.chmod(0o666)
    delay = f"echo_sleep {latency_s:g};" if latency_s else ""
    location = LOCATION.format(log=log, burst=20, delay=delay, answer=ANSWER)
    try:
        with nginx(location, http=LIMITED.format(rate=rate), cpu=0) as url:
            run(folder, url, rows, [*options, "--concurrency", "auto"])
            sent = [line.split() for line in log.read_text().splitlines()]
    finally:
        shutil.rmtree(folder)
    # nginx writes a line when it has answered: those let in came in so much earlier.
    came = sorted(float(at) - (latency_s if status == "200" else 0.0) for at, status in sent)
    let_in = sorted(float(at) - latency_s for at, status in sent if status == "200")
    seconds = Counter(int(at - came[0]) for at in let_in)
    whole = [seconds[second] for second in range(STEADY_S, int(let_in[-1] - came[0]))] or [0]
    used = 100 * len(let_in) / (rate * (let_in[-1] - came[0]))
    return used, len(came) - len(let_in), len(came), min(whole), max(whole)


def run(folder: Path, url: str, rows: int, options: list[str]) -> pl.DataFrame:
    fixed = ["--provider", "openai", "--model", "bench-1", "--base-url", url, "--quiet"]
    used = measured(batchrunner("run", rows_file(folder, rows), *fixed, *options), cpu=1)
    return pl.read_parquet(used.printed.strip().splitlines()[-1])


def failing(*, share: float, concurrency: int, latency_s: float, rows: int) -> float:
    """Answers a second against what so many slots could bring from a server that fails so often, in per cent."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with unsteady(share, latency_s) as url:
            options = ["--rpm", "none", "--concurrency", str(concurrency), "--set", "retry.attempts=12"]
            results = run(folder, url, rows, options)
    finally:
        shutil.rmtree(folder)
    wall_s = (results["finished_at"].max() - results["started_at"].min()).total_seconds()
    succeeded = results.filter(pl.col("status") == "succeeded").height
    return 100 * succeeded / wall_s / (concurrency / latency_s * (1 - share))


@contextmanager
def unsteady(share: float, latency_s: float) -> Iterator[str]:
    """A server that answers after so long, with 503 to a share of the requests."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_000) as listening:
        process = multiprocessing.Process(target=_serve, args=(listening, share, latency_s), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.join(10)


def _serve(listening: socket.socket, share: float, latency_s: float) -> None:
    chance, bodies = Random(1), {200: ANSWER.encode(), 503: json.dumps({"error": {"message": "busy"}}).encode()}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
                await asyncio.sleep(latency_s)
                status = 503 if chance.random() < share else 200
                body = bodies[status]
                lines = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(lines.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, sock=listening)
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
