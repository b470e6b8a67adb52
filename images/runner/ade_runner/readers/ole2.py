"""Just enough of the OLE2 compound file format to tell what kind of document one holds ([MS-CFB])."""

from __future__ import annotations

import struct

from ade_runner.errors import JobError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_MAX_DIRECTORY_SECTORS = 4_096
_MAX_TABLE_SECTORS = 65_536
_END = 0xFFFFFFFA  # sector numbers from here on are marks, not sectors


def stream_names(path: str, shown: str) -> set[str]:
    """The names of all streams and storages, in lower case. Raises ``input_corrupt`` when the directory cannot be walked."""
    try:
        with open(path, "rb") as file:
            return _Directory(file).names()
    except (struct.error, IndexError, ValueError) as error:
        raise JobError(
            "input_corrupt",
            f"{shown} is damaged: its OLE2 directory cannot be read."
            " Open it in a spreadsheet program, save it as xlsx and upload that.",
        ) from error


class _Directory:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        header = file.read(512)
        shift = struct.unpack_from("<H", header, 30)[0]
        if shift not in (9, 12):
            raise ValueError("sector size")
        self._sector_size = 1 << shift
        self._first = struct.unpack_from("<L", header, 48)[0]
        self._table = [s for s in struct.unpack_from("<109L", header, 76) if s < _END]
        following, count = struct.unpack_from("<2L", header, 68)
        while following < _END and count > 0 and len(self._table) < _MAX_TABLE_SECTORS:
            entries = struct.unpack(f"<{self._sector_size // 4}L", self._sector(following))
            self._table += [s for s in entries[:-1] if s < _END]
            following, count = entries[-1], count - 1

    def _sector(self, number: int) -> bytes:
        self._file.seek((number + 1) * self._sector_size)
        content = self._file.read(self._sector_size)
        if len(content) < 128:
            raise ValueError("the file ends before this sector")
        return content

    def _next(self, number: int) -> int:
        table, entry = divmod(number, self._sector_size // 4)
        return int(struct.unpack_from("<L", self._sector(self._table[table]), entry * 4)[0])

    def names(self) -> set[str]:
        found: set[str] = set()
        sector, walked = self._first, 0
        while sector < _END:
            walked += 1
            if walked > _MAX_DIRECTORY_SECTORS:
                raise ValueError("directory too long or circular")
            content = self._sector(sector)
            for at in range(0, len(content) - 127, 128):
                length, kind = struct.unpack_from("<HB", content, at + 64)
                if kind in (1, 2, 5) and 2 <= length <= 64:
                    found.add(content[at : at + length - 2].decode("utf-16-le", "replace").lower())
            sector = self._next(sector)
        return found
