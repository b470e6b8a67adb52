"""The Celery application: its worker makes a container with docker-py for each task."""

from __future__ import annotations

import os
import time

import docker
from celery import Celery
from common import COMMAND

REDIS = os.environ["BENCH_REDIS"]

app = Celery("peers", broker=f"redis+socket://{REDIS}", backend=f"redis+socket://{REDIS}")
app.conf.update(worker_prefetch_multiplier=1)


@app.task
def job(image: str, labels: dict[str, str]) -> float:
    docker.from_env().containers.run(image, COMMAND, network_mode="none", remove=True, labels=labels)
    return time.time()
