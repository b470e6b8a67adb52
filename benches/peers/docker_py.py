"""A script with docker-py and a pool of threads: what one writes first."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import docker
from common import COMMAND, Asked, measure

asked = Asked.read()
client = docker.from_env()


def job() -> float:
    client.containers.run(asked.image, COMMAND, network_mode="none", remove=True, labels=asked.labels)
    return time.time()


with ThreadPoolExecutor(asked.at_once) as pool:
    measure(asked, lambda: pool.submit(job), Future.result)
