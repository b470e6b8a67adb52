"""The engine's end of the container's stdin and stdout: frames both ways, and the input archive."""

from __future__ import annotations

import os
import tarfile
import time
from collections import deque

from . import frames
from .frames import Frame, ProtocolError
from .tunnel import Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 65_536
_HELD_S = 0.005
_HELD_BYTES = 32_768
"""What is told of a job waits so long, or for so much, to go out with what comes after it: each write wakes four processes one after the
other on its way to the engine."""


class EngineGone(Exception):
    """Stdin was closed: the engine died or gave up; nothing may outlive it."""


class Engine:
    """The engine's end: frames in from stdin, frames out to stdout (blocking: the engine always reads)."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._reader = frames.Reader(stdin)
        self._queue: deque[Frame] = deque()
        self._held = bytearray()
        self._held_until = 0.0
        self.tunnel: Tunnel | None = None
        """Takes the frames of relayed connections, once there can be any."""

    def send(self, data: bytes | memoryview) -> None:
        """Sends frames at once, behind what was held."""
        if self._held:
            self._held += data
            self.flush()
        else:
            self._write(memoryview(data))

    def put(self, data: bytes) -> None:
        """Sends frames soon; :meth:`due` says when at the latest somebody has to call :meth:`flush`."""
        if not self._held:
            self._held_until = time.monotonic() + _HELD_S
        self._held += data
        if len(self._held) >= _HELD_BYTES:
            self.flush()

    def due(self) -> float | None:
        """In how many seconds what is held has to go out; none when nothing is."""
        return max(0.0, self._held_until - time.monotonic()) if self._held else None

    def flush(self) -> None:
        """Sends what is held."""
        held, self._held = self._held, bytearray()
        self._write(memoryview(held))

    def _write(self, view: memoryview) -> None:
        while view:
            view = view[os.write(self.stdout, view) :]

    def event(self, event: str, level: str, detail: dict[str, Any]) -> None:
        self.put(frames.encode_json(frames.EVENT, {"event": event, "level": level, "detail": detail}))

    def fill(self) -> None:
        """Reads once from stdin; raises :class:`EngineGone` at its end."""
        if self._reader.fill() == 0:
            raise EngineGone
        for kind, stream, payload in self._reader.frames():
            if stream >= frames.FIRST_CONNECTION and self.tunnel is not None:
                self.tunnel.take(kind, stream, payload)
            else:
                self._queue.append(Frame(kind, stream, bytes(payload)))

    def next_frame(self) -> Frame:
        while not self._queue:
            self.fill()
        return self._queue.popleft()

    def waiting(self) -> list[Frame]:
        """Frames that have already arrived."""
        waiting = list(self._queue)
        self._queue.clear()
        return waiting


class InputArchive:
    """A readable file over the ``DATA`` frames of the input stream, for :mod:`tarfile`'s stream mode."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and not self._ended:
            frame = self._engine.next_frame()
            if frame.kind == frames.DATA and frame.stream == frames.INPUT:
                self._buffer += frame.payload
            elif frame.kind == frames.END and frame.stream == frames.INPUT:
                self._ended = True
            else:
                raise ProtocolError(f"frame 0x{frame.kind:02x} inside the input archive")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


def unpack(archive: InputArchive, root: str) -> None:
    """Writes the input archive below ``root``. Only regular files with plain relative names exist in it; anything else
    is a broken engine and refused."""
    with tarfile.open(fileobj=archive, mode="r|", bufsize=_CHUNK) as tar:
        for member in tar:
            parts = member.name.split("/")
            if not member.isreg() or member.name.startswith("/") or any(part in ("", ".", "..") for part in parts):
                raise ProtocolError(f"input archive: entry {member.name!r} is not a plain file")
            target = "/".join((root, *parts))
            source = tar.extractfile(member)
            try:
                file = open(target, "xb")
            except FileNotFoundError:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                file = open(target, "xb")
            with file:
                while source is not None and (chunk := source.read(_CHUNK)):
                    file.write(chunk)
    archive.drain()
