"""A zip of parts (xlsx, xlsb, ods), opened so that no archive can make the reader unpack more than the limits allow.

Sizes that the archive declares are checked first, and the bytes that really come out are counted as well, because a
declared size is only a claim.
"""

from __future__ import annotations

import posixpath
import struct
import zipfile
import zlib
from collections.abc import Iterator

from ade_runner.errors import JobError
from ade_runner.readers.book import ReadLimits, display_name, human_size

CHUNK = 256 * 1024
"""Unpacked bytes per chunk: large enough to amortize a call, small enough that what one chunk yields stays small."""

_END_OF_DIRECTORY = b"PK\x05\x06"
_END_OF_DIRECTORY_64 = b"PK\x06\x06"
_MAX_DIRECTORY_PER_PART = 400
_READ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


class Package:
    """The parts of one archive. Names are looked up as the packaging standard says: without regard to case."""

    def __init__(self, path: str, name: str, limits: ReadLimits) -> None:
        self.name = display_name(name)
        self.limits = limits
        self._unpacked: dict[str, int] = {}
        _check_directory_size(path, self.name, limits)
        try:
            self._zip = zipfile.ZipFile(path)
        except _READ_ERRORS as error:
            raise self.corrupt("its zip directory cannot be read; the file may be cut off") from error
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            self._check_declared()
        except BaseException:
            self._zip.close()
            raise
        for entry in self._zip.infolist():
            self._entries[_key(entry.filename)] = entry

    def _check_declared(self) -> None:
        entries = self._zip.infolist()
        if len(entries) > self.limits.max_parts:
            raise self.bomb(f"it has {len(entries):,} parts; the limit is {self.limits.max_parts:,}")
        total = 0
        for entry in entries:
            total += entry.file_size
            self._check_ratio(entry, entry.file_size)
        if total > self.limits.max_unpacked:
            raise self.bomb(
                f"it unpacks to {human_size(total)}; the limit is {human_size(self.limits.max_unpacked)}"
            )

    def _check_ratio(self, entry: zipfile.ZipInfo, unpacked: int) -> None:
        if unpacked > self.limits.ratio_applies_from and unpacked > self.limits.max_ratio * max(entry.compress_size, 1):
            raise self.bomb(
                f"the part {display_name(entry.filename)} unpacks to more than {self.limits.max_ratio:,} times its size"
            )

    def names(self) -> list[str]:
        """The parts' names as the archive spells them."""
        return [entry.filename for entry in self._entries.values()]

    def has(self, part: str) -> bool:
        return self._find(part) is not None

    def _find(self, part: str) -> zipfile.ZipInfo | None:
        found = self._entries.get(_key(part))
        if found is None and "%" in part:
            from urllib.parse import unquote  # most packages escape nothing, and it is slow to import

            found = self._entries.get(_key(unquote(part)))
        return found

    def chunks(self, part: str, limit: int | None = None) -> Iterator[bytes]:
        """The unpacked bytes of a part, its checksum verified at the end; at most ``limit`` bytes, when given."""
        entry = self._find(part)
        if entry is None:
            raise self.corrupt(f"the part {display_name(part)} is missing")
        if entry.flag_bits & 1:
            raise JobError(
                "input_encrypted", f"{self.name} is protected by a password; remove the password and upload it again."
            )
        others = sum(size for other, size in self._unpacked.items() if other != entry.filename)
        count = 0
        try:
            with self._zip.open(entry) as stream:
                while chunk := stream.read(CHUNK):
                    count += len(chunk)
                    self._unpacked[entry.filename] = max(count, self._unpacked.get(entry.filename, 0))
                    self._check_ratio(entry, count)
                    if others + count > self.limits.max_unpacked:
                        raise self.bomb(f"it unpacks to more than {human_size(self.limits.max_unpacked)}")
                    if limit is not None and count > limit:
                        raise self.bomb(
                            f"the part {display_name(part)} unpacks to more than the {human_size(limit)} allowed for it"
                        )
                    yield chunk
        except _READ_ERRORS as error:
            raise self.corrupt(f"the part {display_name(part)} cannot be unpacked or fails its checksum") from error
        if count != entry.file_size:
            raise self.corrupt(f"the part {display_name(part)} is cut off")

    def read(self, part: str) -> bytes:
        """A small part as a whole."""
        return b"".join(self.chunks(part, self.limits.max_small_part))

    def corrupt(self, why: str) -> JobError:
        return JobError(
            "input_corrupt",
            f"{self.name} is damaged: {why}. Open it in a spreadsheet program, save it again and upload the copy.",
        )

    def bomb(self, why: str) -> JobError:
        return JobError(
            "input_zip_bomb", f"{self.name} is refused: {why}. Split the workbook or remove what it does not need."
        )

    def close(self) -> None:
        self._zip.close()


def resolve(base_part: str, target: str) -> str:
    """The part a relationship of ``base_part`` points to; targets may be relative, absolute, or climb with ``..``."""
    target = target.replace("\\", "/")
    if not target.startswith("/"):
        target = posixpath.join("/", posixpath.dirname(base_part), target)
    return posixpath.normpath(target).lstrip("/")


def _key(part: str) -> str:
    return part.replace("\\", "/").lstrip("/").lower()


def _check_directory_size(path: str, name: str, limits: ReadLimits) -> None:
    """Refuse a central directory so large that merely listing it would exhaust memory."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 66_000))
        tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    if at < 0 or len(tail) < at + 22:
        return  # zipfile refuses it
    directory = struct.unpack_from("<L", tail, at + 12)[0]
    at_64 = tail.rfind(_END_OF_DIRECTORY_64, 0, at)
    if at_64 >= 0 and len(tail) >= at_64 + 48:
        directory = max(directory if directory != 0xFFFFFFFF else 0, struct.unpack_from("<Q", tail, at_64 + 40)[0])
    if directory > limits.max_parts * _MAX_DIRECTORY_PER_PART:
        raise JobError(
            "input_zip_bomb",
            f"{name} is refused: its zip directory takes {human_size(directory)};"
            f" the limit is {human_size(limits.max_parts * _MAX_DIRECTORY_PER_PART)}."
            " Save the workbook again in a spreadsheet program.",
        )
