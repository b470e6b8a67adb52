"""What PID 1 of a container does to the other processes, and to itself."""

from __future__ import annotations

import os
import time

import _signal as signal  # the module around it makes enums of all numbers, which takes longer than any other import here

_REAP_BUDGET_S = 5.0


def kill_children() -> None:
    """SIGKILL to every process of the container but this one (kill(2): pid -1 spares the caller and PID 1)."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_everything() -> None:
    """Kills and reaps until no other process is left, or the budget is used up (the engine then kills the container)."""
    deadline = time.monotonic() + _REAP_BUDGET_S
    while time.monotonic() < deadline:
        kill_children()
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.002)


def drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def wakeup_pipe() -> int:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read
