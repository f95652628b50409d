"""A Ray cluster of two nodes on this machine, and a run on it whose one node is killed. Prints what came of it.

A process of its own: Ray warns, and leaves threads and sockets behind, where our tests allow neither.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time

os.environ |= {"RAY_raylet_start_wait_time_s": "300", "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20


def start_cluster() -> tuple[Cluster, object]:
    node = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    return cluster, cluster.add_node(**node)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill-at", type=int, default=0, help="Kill the second node once so many items are settled.")
    parser.add_argument("--signal-at", type=int, default=0, help="Send the driver SIGTERM then.")
    parser.add_argument("--under", default="", help="A command that runs the driver in its place.")
    parser.add_argument("words", nargs="+")
    options = parser.parse_args()
    cluster, second = start_cluster()
    told: dict[str, object] = {"killed_at": None}
    try:
        command = [*options.under.split(), sys.executable, "-m", "batchrunner", *options.words, "--json"]
        driver = subprocess.Popen(
            [*command, "--ray-address", cluster.address, "--progress-every", "1s"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=lambda: told.update(err=driver.stderr.read()), daemon=True).start()
        lines, strange = [], []
        for line in driver.stdout:
            if not line.startswith("{"):
                strange.append(line)
                continue
            lines.append(json.loads(line))
            done = lines[-1].get("done", 0)
            if options.kill_at and done >= options.kill_at and told["killed_at"] is None:
                told["killed_at"] = time.time()
                cluster.remove_node(second, allow_graceful=False)
            if options.signal_at and done >= options.signal_at:
                driver.terminate()
                options.signal_at = 0
        told |= {"code": driver.wait(timeout=60), "lines": lines, "strange": strange}
    finally:
        cluster.shutdown()
    time.sleep(0.2)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
