"""A Ray cluster of two nodes on this machine, and runs on it, one after another. Prints what came of each.

A process of its own: Ray warns, and leaves threads and sockets behind, where our tests allow neither.
The runs come as JSON on standard input: a list of `Call`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ |= {"RAY_raylet_start_wait_time_s": "300", "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@dataclass
class Call:
    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    under: list[str] = field(default_factory=list)
    """A command that runs the driver in its place."""
    kill_at: int = 0
    """Kill the second node once so many items are done."""
    signal_at: int = 0
    """Send the driver SIGTERM then."""


@dataclass
class Came:
    code: int = -1
    killed_at: float | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    """What is no JSON, although --json is given."""
    err: str = ""


def run(call: Call, cluster: Cluster, second: Any) -> Came:
    more = ["--engine", "ray", "--ray-address", cluster.address, "--json", "--progress-every", "1s"]
    driver = subprocess.Popen(
        [*call.under, sys.executable, "-m", "batchrunner", *call.words, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | call.env,
    )
    came = Came()
    reading = threading.Thread(target=lambda: setattr(came, "err", driver.stderr.read()), daemon=True)
    reading.start()
    for line in driver.stdout:
        if not line.startswith("{"):
            came.strange.append(line)
            continue
        came.lines.append(json.loads(line))
        done = came.lines[-1].get("done", 0)
        if call.kill_at and done >= call.kill_at and came.killed_at is None:
            came.killed_at = time.time()
            cluster.remove_node(second, allow_graceful=False)
        if call.signal_at and done >= call.signal_at:
            call.signal_at = 0
            driver.terminate()
    came.code = driver.wait(timeout=60)
    reading.join(timeout=10)
    return came


def secrets_on_disk(cluster: Cluster, secret: str) -> list[str]:
    """The files of the cluster's session, its log of events among them, that hold a text."""
    session = Path(cluster.head_node.get_session_dir_path())
    return [str(path) for path in session.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


def main() -> None:
    calls = [Call(**told) for told in json.load(sys.stdin)]
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        second = cluster.add_node(**NODE)
        came = [run(call, cluster, second) for call in calls]
        secrets = {value for call in calls for name, value in call.env.items() if name.endswith("_KEY")}
        leaked = [path for secret in secrets for path in secrets_on_disk(cluster, secret)]
    finally:
        cluster.shutdown()
    print(json.dumps({"came": [vars(each) for each in came], "leaked": leaked}), flush=True)


if __name__ == "__main__":
    main()
