"""Writes a zip one streamed part at a time, the same bytes for the same content.

The standard library's ``zipfile`` must be told before a part is written whether it may pass 2 GiB, and then marks even a small
one as ZIP64, which some spreadsheet programs refuse. Here every local header keeps room, as the packaging standard's own
padding field, which turns into the ZIP64 field only for a part that needs it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from .records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_ZIP64_LOCAL = struct.Struct("<2H2Q")
_PADDING = struct.pack("<2H2H", 0xA220, 16, 0xA028, 0) + bytes(12)  # ECMA-376 part 2, "growth hint"
_DEFLATE = 8
_DOS_1980_01_01 = 0x0021
_MAX_32 = 0xFFFFFFFF


@record
class _Part:
    name: bytes
    offset: int
    checksum: int = 0
    packed: int = 0
    unpacked: int = 0

    @property
    def large(self) -> bool:
        return self.packed >= _MAX_32 or self.unpacked >= _MAX_32

    def local_header(self) -> bytes:
        packed, unpacked = (_MAX_32, _MAX_32) if self.large else (self.packed, self.unpacked)
        extra = _ZIP64_LOCAL.pack(1, 16, self.unpacked, self.packed) if self.large else _PADDING
        return (
            _LOCAL.pack(
                b"PK\x03\x04", 45 if self.large else 20, 0, _DEFLATE, 0, _DOS_1980_01_01, self.checksum, packed, unpacked,
                len(self.name), len(extra),
            )
            + self.name
            + extra
        )  # fmt: skip

    def central_header(self) -> bytes:
        fields = b""
        unpacked, packed, offset = self.unpacked, self.packed, self.offset
        if self.large:
            fields += struct.pack("<2Q", unpacked, packed)
            unpacked = packed = _MAX_32
        if offset >= _MAX_32:
            fields += struct.pack("<Q", offset)
            offset = _MAX_32
        extra = struct.pack("<2H", 1, len(fields)) + fields if fields else b""
        version = 45 if fields else 20
        return (
            _CENTRAL.pack(
                b"PK\x01\x02", version, version, 0, _DEFLATE, 0, _DOS_1980_01_01, self.checksum, packed, unpacked,
                len(self.name), len(extra), 0, 0, 0, 0, offset,
            )
            + self.name
            + extra
        )  # fmt: skip


class ZipWriter:
    """A zip in a seekable binary file. Parts are written one after the other."""

    def __init__(self, file: BinaryIO, level: int) -> None:
        self._file = file
        self._level = level
        self._parts: list[_Part] = []

    def add(self, name: str, content: bytes) -> None:
        """A part that is at hand as a whole."""
        write, finish = self.stream(name)
        write(content)
        finish()

    def stream(self, name: str) -> tuple[Callable[[bytes], None], Callable[[], None]]:
        """A part that is written piece by piece: the functions ``write(bytes)`` and ``finish()``."""
        file = self._file
        part = _Part(name.encode("ascii"), file.tell())
        self._parts.append(part)
        file.write(part.local_header())
        squeeze = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS, 9)

        def put(packed: bytes) -> None:
            part.packed += len(packed)
            file.write(packed)

        def write(content: bytes) -> None:
            part.checksum = zlib.crc32(content, part.checksum)
            part.unpacked += len(content)
            put(squeeze.compress(content))

        def finish() -> None:
            put(squeeze.flush())
            end = file.tell()
            file.seek(part.offset)
            file.write(part.local_header())
            file.seek(end)

        return write, finish

    def close(self) -> None:
        """Write the directory. The file itself stays open."""
        start = self._file.tell()
        for part in self._parts:
            self._file.write(part.central_header())
        size = self._file.tell() - start
        count = len(self._parts)
        if start >= _MAX_32:
            self._file.write(struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start))
            self._file.write(struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1))
        self._file.write(
            struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, size, min(start, _MAX_32), 0)
        )
