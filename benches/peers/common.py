"""What every peer is asked: so many trivial containers one after the other, then many at once. See run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

T = TypeVar("T")
COMMAND = ["python3", "-c", "pass"]


class Asked(NamedTuple):
    image: str
    single: int
    jobs: int
    at_once: int
    label: str

    @classmethod
    def read(cls) -> Asked:
        image, single, jobs, at_once, label = sys.argv[1:]
        return cls(image, int(single), int(jobs), int(at_once), label)

    @property
    def labels(self) -> dict[str, str]:
        """By which what a crash left is found."""
        return {self.label: ""}


def measure(asked: Asked, submit: Callable[[], T], ended: Callable[[T], float]) -> None:
    """Prints what was measured. `submit` hands a job over; `ended` waits for its end, and gives the time of that."""
    ended(submit())
    latencies = []
    for _ in range(asked.single):
        begun = time.time()
        latencies.append((ended(submit()) - begun) * 1000)
    begun = time.time()
    jobs = [submit() for _ in range(asked.jobs)]
    ends = [ended(job) - begun for job in jobs]
    print(json.dumps({"latencies_ms": latencies, "ends_s": ends}))
