"""The dependency set that is mounted: read-only for a job, writable for its installer."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPS = "/deps"
_SPARE_DISK = 256 * 1_048_576
"""What an installer leaves free on the engine's disk, bytes."""


def set_fault(job: dict[str, Any]) -> str | None:
    """Whether the dependency set that the engine promised is the one that is mounted: Docker makes an empty volume of one that
    somebody removed."""
    lock = job.get("lock_sha256")
    if lock is None:
        return None
    try:
        with open(f"{DEPS}/whole", encoding="ascii") as file:
            found = file.read()
    except (OSError, ValueError):
        found = ""
    return None if found == lock else "the dependency set of this package is not what it was; it is made anew on the next try"


def overfull(limit: int) -> tuple[str, dict[str, Any]] | None:
    """Why an installer must not go on: its set has more than ``limit`` bytes, or the engine's disk is nearly full."""
    if _usage(DEPS) > limit:
        megabytes = limit // 1_048_576
        message = f"the dependency set takes more than {megabytes} MB on disk"
        return message, {"code": "set_too_large", "limit_mb": megabytes}
    disk = os.statvfs(DEPS)
    if disk.f_bavail * disk.f_frsize < _SPARE_DISK:
        return "the engine's disk is nearly full", {"code": "disk_full"}
    return None


def _usage(folder: str) -> int:
    """Bytes on disk below a folder. What vanishes meanwhile is not counted."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_blocks * 512
            except OSError:
                continue
    return total
