"""Sending the engine what a child left in ``/job/out``, when nobody is left who could change it."""

from __future__ import annotations

import os
import stat
import tarfile

from . import frames
from .engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 65_536


def collect(
    engine: Engine, names: tuple[str, ...], limit: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sends the outputs, files of ``out/``, as one tar on stream 2; returns what was sent and what was refused and why.

    Called when no tenant process is left, so nothing changes under it. Links are never followed."""
    sent: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    try:
        folder = os.open("out", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        refused.append({"name": "out", "reason": "the output folder was replaced"})
        folder = -1
    for name in names if folder >= 0 else ():
        reason = _send_output(engine, folder, name, limit, sent)
        if reason is not None:
            refused.append({"name": name, "reason": reason})
    if folder >= 0:
        os.close(folder)
    engine.put(frames.encode(frames.DATA, bytes(1024), frames.OUTPUT))
    engine.put(frames.encode(frames.END, b"", frames.OUTPUT))
    return sent, refused


def _send_output(engine: Engine, folder: int, name: str, limit: int, sent: list[dict[str, Any]]) -> str | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be examined: {error.strerror}"
    kind = _kind_of(status.st_mode)
    if kind != "file":
        return f"is a {kind}, not a regular file"
    if status.st_nlink != 1:
        return "has further hard links"
    if status.st_size > limit:
        return f"has {status.st_size} bytes, the limit is {limit}"
    try:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    try:
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        engine.put(frames.encode(frames.DATA, info.tobuf(tarfile.PAX_FORMAT), frames.OUTPUT))
        left = status.st_size
        while left:
            chunk = os.read(source, min(_CHUNK, left)) or bytes(min(_CHUNK, left))
            left -= len(chunk)
            engine.put(frames.encode(frames.DATA, chunk, frames.OUTPUT))
        padding = -status.st_size % 512
        if padding:
            engine.put(frames.encode(frames.DATA, bytes(padding), frames.OUTPUT))
    finally:
        os.close(source)
    sent.append({"name": name, "bytes": status.st_size})
    return None


def _kind_of(mode: int) -> str:
    for test, kind in (
        (stat.S_ISREG, "file"), (stat.S_ISLNK, "symbolic link"), (stat.S_ISDIR, "directory"),
        (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return kind
    return "device"
