"""The Celery application: its worker makes a container with docker-py for each task. The broker and the results are folders, so that
no further server is needed; both are looked at a hundred times a second, where the default is once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import docker
from celery import Celery
from common import COMMAND

FOLDER = Path(os.environ["BENCH_FOLDER"])
for name in ("queue", "control", "results"):
    (FOLDER / name).mkdir(exist_ok=True)
QUEUE = str(FOLDER / "queue")

app = Celery("peers", broker="filesystem://", backend=f"file://{FOLDER}/results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": QUEUE,
        "data_folder_out": QUEUE,
        "control_folder": str(FOLDER / "control"),
        "polling_interval": 0.01,
    },
    worker_prefetch_multiplier=1,
    task_acks_late=True,
)


@app.task
def job(image: str, labels: dict[str, str]) -> float:
    docker.from_env().containers.run(image, COMMAND, network_mode="none", remove=True, labels=labels)
    return time.time()
