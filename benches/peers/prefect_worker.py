"""Prefect: its server with SQLite, a Docker work pool and a worker. The worker makes a container for each flow run.

The image has no Prefect, so the container runs the trivial command instead of a flow: a flow would first import Prefect, for
seconds. The end of a job is the end of its container, as Docker tells it, since nobody in there reports one. The worker looks
for work twice a second, where the default is every ten seconds; more often keeps its database too busy to take work."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.request import urlopen

from common import COMMAND, Asked, measure

asked = Asked.read()
folder = Path(os.environ["BENCH_FOLDER"])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
os.environ |= {
    "PREFECT_HOME": str(folder),
    "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    "PREFECT_SERVER_UI_ENABLED": "false",
}
PROGRAM = [sys.executable, "-m", "prefect"]
log = (folder / "log").open("w")


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*PROGRAM, *words], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


class Ends:
    """When the container of each flow run ended, from Docker's own events."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}
        self.news = threading.Condition()
        self.events = subprocess.Popen(
            ["docker", "events", "--filter", f"label={asked.label}", "--filter", "event=die", "--format", "{{json .}}"],
            stdout=subprocess.PIPE, text=True,
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        assert self.events.stdout
        for line in self.events.stdout:
            event = json.loads(line)
            with self.news:
                self.times[event["Actor"]["Attributes"]["io.prefect.flow-run-id"]] = event["timeNano"] / 1e9
                self.news.notify_all()

    def of(self, run: str) -> float:
        with self.news:
            if not self.news.wait_for(lambda: run in self.times, timeout=300):
                sys.exit(f"prefect: the flow run {run} has no container; the log ends with\n{(folder / 'log').read_text()[-3000:]}")
            return self.times[run]


def wait_for_server(server: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        try:
            with urlopen(f"{os.environ['PREFECT_API_URL']}/health", timeout=5):
                return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.1)
    sys.exit(f"prefect: the server did not start\n{(folder / 'log').read_text()[-3000:]}")


async def deployment() -> object:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        flow = await client.create_flow_from_name("trivial")
        return await client.create_deployment(
            flow_id=flow,
            name="trivial",
            work_pool_name="peers",
            path=str(folder),
            entrypoint="trivial.py:trivial",
            job_variables={
                "image": asked.image,
                "command": f"{COMMAND[0]} {COMMAND[1]} {COMMAND[2]}",
                "image_pull_policy": "Never",
                "network_mode": "none",
                "auto_remove": True,
                "labels": asked.labels,
            },
        )


server = start("server", "start", "--host", "127.0.0.1", "--port", str(port))
processes = [server]
try:
    wait_for_server(server)
    subprocess.run([*PROGRAM, "work-pool", "create", "peers", "--type", "docker"], check=True, cwd=folder, stdout=log, stderr=log)
    deployed = asyncio.run(deployment())
    ends = Ends()
    processes.append(ends.events)
    processes.append(start("worker", "start", "--pool", "peers", "--type", "docker", "--limit", str(asked.at_once)))

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        measure(asked, lambda: str(client.create_flow_run_from_deployment(deployed).id), ends.of)
finally:
    for process in reversed(processes):
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
