"""Celery: a worker with as many processes as containers at once, and a client that waits for results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import celery_tasks
from common import Asked, measure

asked = Asked.read()
log = (celery_tasks.FOLDER / "worker.log").open("w")
worker = subprocess.Popen(
    [
        sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--loglevel", "WARNING", "--concurrency", str(asked.at_once),
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ],
    cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
)
try:
    measure(
        asked,
        lambda: celery_tasks.job.delay(asked.image, asked.labels),
        lambda result: result.get(timeout=300, interval=0.01),
    )
finally:
    worker.terminate()
    worker.wait()
