"""Frames of the container protocol (docs/developers/protocol.md): header, limits, encoder and incremental decoder."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator

from .records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 3
MAX_PAYLOAD = 65_536
"""Largest payload of one frame, bytes."""

JOB, DATA, END, STOP, RESET, CREDIT = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
READY, EVENT, PROGRESS, OPEN, TAKEN, DONE = 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
RESULT, PHASE, FINDING = 0x90, 0x91, 0x92

INPUT, OUTPUT = 1, 2
"""Stream numbers of the two tar archives."""

FIRST_CONNECTION = 16
"""Stream number of the first relayed connection; the others follow without gaps."""
DOWN_WINDOW = 1_048_576
"""Bytes of a relayed connection that the engine may send before they are passed on to the client."""
UP_WINDOW = 262_144
"""The same, for what is sent to the engine."""

_HEADER = struct.Struct(">BBHI")
HEADER_SIZE = _HEADER.size


class ProtocolError(Exception):
    """The bytes are not frames of this protocol, or a frame stands where it may not."""


@record
class Frame:
    """One frame: what it is, of which stream, and what it carries."""

    kind: int
    stream: int
    payload: bytes

    def json(self) -> dict[str, Any]:
        """The payload as a JSON object; raises :class:`ProtocolError` when it is none."""
        try:
            value = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"frame 0x{self.kind:02x}: payload is not JSON") from error
        if not isinstance(value, dict):
            raise ProtocolError(f"frame 0x{self.kind:02x}: payload is not an object")
        return value


def encode(kind: int, payload: bytes = b"", stream: int = 0) -> bytes:
    """One frame as bytes; raises ``ValueError`` when the payload is over the limit."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes is over {MAX_PAYLOAD}")
    return _HEADER.pack(kind, 0, stream, len(payload)) + payload


def pack_header(frame: bytearray, kind: int, stream: int, size: int) -> None:
    """Writes the header of a frame whose payload stands behind it already."""
    _HEADER.pack_into(frame, 0, kind, 0, stream, size)


def encode_json(kind: int, value: dict[str, Any]) -> bytes:
    """One frame with a JSON payload; raises ``ValueError`` when it is over the limit or holds NaN or an infinity, which
    JSON cannot say and the engine would refuse."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return encode(kind, text.encode("utf-8", "replace"))


class Decoder:
    """Turns a byte stream into frames; at most one frame plus one chunk is held."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames completed by ``chunk``; raises :class:`ProtocolError` at the first bad header."""
        buffer = self._buffer
        buffer += chunk
        start = 0
        try:
            while len(buffer) - start >= HEADER_SIZE:
                kind, flags, stream, length = _HEADER.unpack_from(buffer, start)
                if flags != 0 or length > MAX_PAYLOAD:
                    raise ProtocolError(f"bad frame header: kind 0x{kind:02x}, flags {flags}, length {length}")
                end = start + HEADER_SIZE + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[start + HEADER_SIZE : end])
                start = end
                yield Frame(kind, stream, payload)
        finally:
            del buffer[:start]

    def pending(self) -> int:
        """Bytes of an incomplete frame still held."""
        return len(self._buffer)


class Reader:
    """Frames from a file descriptor, without copying: payloads are views, good until the next :meth:`fill`.

    It holds one frame to begin with, and eight once so much comes at once: most jobs are small, and memory costs a start when it is
    first written to, which making a buffer is."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._hold(1)
        self._start = self._end = 0

    def fill(self) -> int:
        """Reads once and gives the number of bytes, 0 at the end of the stream."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._start < HEADER_SIZE + MAX_PAYLOAD:
            size = self._end - self._start
            self._view[:size] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, size
        size = os.readv(self._fd, [self._view[self._end :]])
        self._end += size
        if self._end == len(self._buffer) == HEADER_SIZE + MAX_PAYLOAD:
            came = self._view[self._start : self._end]
            self._start, self._end = 0, len(came)
            self._hold(8)
            self._view[: self._end] = came
        return size

    def _hold(self, frames: int) -> None:
        self._buffer = bytearray(frames * (HEADER_SIZE + MAX_PAYLOAD))
        self._view = memoryview(self._buffer)

    def frames(self) -> Iterator[tuple[int, int, memoryview]]:
        """Kind, stream and payload of every whole frame; raises :class:`ProtocolError` at the first bad header."""
        while self._end - self._start >= HEADER_SIZE:
            kind, flags, stream, length = _HEADER.unpack_from(self._buffer, self._start)
            if flags != 0 or length > MAX_PAYLOAD:
                raise ProtocolError(f"bad frame header: kind 0x{kind:02x}, flags {flags}, length {length}")
            end = self._start + HEADER_SIZE + length
            if self._end < end:
                return
            payload = self._view[self._start + HEADER_SIZE : end]
            self._start = end
            yield kind, stream, payload
