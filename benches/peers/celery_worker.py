"""Celery: a Redis of its own, a worker with as many processes as containers at once, and a client that waits for results."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from common import Asked, measure

asked = Asked.read()
folder = Path(os.environ["BENCH_FOLDER"])
if not shutil.which("redis-server"):
    sys.exit("celery: redis-server is missing, its broker: apt-get install redis-server")
# Without a file and without a port: it is there for this run and for nobody else.
redis = folder / "redis.sock"
os.environ["BENCH_REDIS"] = str(redis)
log = (folder / "log").open("w")


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(words, cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


processes = [start("redis-server", "--port", "0", "--unixsocket", str(redis), "--save", "", "--dir", str(folder))]
try:
    while not redis.exists():
        if processes[0].poll() is not None:
            sys.exit(f"celery: Redis did not start\n{(folder / 'log').read_text()[-2000:]}")
        time.sleep(0.02)
    import celery_tasks

    worker = (sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "--loglevel", "WARNING")
    processes.append(start(*worker, "--concurrency", str(asked.at_once)))
    measure(asked, lambda: celery_tasks.job.delay(asked.image, asked.labels), lambda result: result.get(timeout=300))
finally:
    for process in reversed(processes):
        process.terminate()
        process.wait()
