"""What the container's own control group says: OOM kills, peak memory, CPU time. Cgroup v1 and v2.

Every reading is ``None`` where the kernel (or a runtime such as gVisor) does not offer it.
Formats: kernel documentation, admin-guide/cgroup-v1/memory and admin-guide/cgroup-v2.
"""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"
_MOST = 4_096
"""Bytes that are read of a file; these have a few lines."""
_open: dict[str, int | None] = {}
"""Files that were asked for: open, as they are read again and again, or ``None`` when they are not there."""


def _read(path: str) -> str | None:
    try:
        if path not in _open:
            _open[path] = None
            _open[path] = os.open(f"{_ROOT}/{path}", os.O_RDONLY)
        descriptor = _open[path]
        return None if descriptor is None else os.pread(descriptor, _MOST, 0).decode("ascii")
    except (OSError, ValueError):
        return None


def forget() -> None:
    """After a fork that closed all descriptors: none of those that were open here is any more."""
    _open.clear()


def field(text: str, key: str) -> int | None:
    """The number after ``key`` in a flat keyed file: ``field("low 0\\noom_kill 3\\n", "oom_kill") == 3``."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key and number.strip().isdigit():
            return int(number)
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.strip().isdigit() else None


def oom_kills() -> int | None:
    """Processes of this container that the kernel killed for want of memory, so far."""
    for path in ("memory.events", "memory/memory.oom_control"):
        text = _read(path)
        if text is not None:
            return field(text, "oom_kill")
    return None


def peak_memory_bytes() -> int | None:
    """The high-water mark of memory charged to this container, tmpfs included."""
    for path in ("memory.peak", "memory/memory.max_usage_in_bytes"):
        value = _number(_read(path))
        if value is not None:
            return value
    return None


def cpu_ms() -> int | None:
    """CPU time of every process of this container, milliseconds."""
    text = _read("cpu.stat")
    if text is not None:
        micros = field(text, "usage_usec")
        if micros is not None:
            return micros // 1000
    nanos = _number(_read("cpuacct/cpuacct.usage") or _read("cpu,cpuacct/cpuacct.usage"))
    return None if nanos is None else nanos // 1_000_000
