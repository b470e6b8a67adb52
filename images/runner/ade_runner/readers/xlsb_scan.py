"""Walks the records of a binary worksheet before calamine loads it: its area, merged ranges and errors ([MS-XLSB])."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from ade_runner.a1 import MAX_COLUMNS, MAX_ROWS
from ade_runner.readers.book import Merge
from ade_runner.readers.extent import Extent
from ade_runner.readers.package import Package
from ade_runner.readers.xlsx import relationships
from ade_runner.readers.xlsx_sheet import SheetFacts

_ROW = 0
_CELLS = frozenset(range(2, 12))  # BrtCellRk to BrtFmlaError; 1 is a blank, which holds no value
_ERRORS = frozenset((3, 11))
_BUNDLE_SHEET = 156
_MERGE = 176
_MAX_RECORD = 16 * 1024 * 1024  # bytes
_ERROR_TEXTS = {
    0x00: "#NULL!",
    0x07: "#DIV/0!",
    0x0F: "#VALUE!",
    0x17: "#REF!",
    0x1D: "#NAME?",
    0x24: "#NUM!",
    0x2A: "#N/A",
    0x2B: "#GETTING_DATA",
}


def sheet_parts(package: Package, workbook_part: str) -> dict[str, str]:
    """Sheet name → part."""
    related = relationships(package, workbook_part)
    parts: dict[str, str] = {}
    for kind, content in records(package, workbook_part):
        if kind == _BUNDLE_SHEET:
            relation, at = _string(package, content, 8)
            name, _ = _string(package, content, at)
            if relation in related:
                parts[name] = related[relation].part
    return parts


def scan_sheet(package: Package, part: str, check: Callable[[Extent], None]) -> SheetFacts:
    """Read a sheet's facts; ``check`` is called as its extent grows and may raise."""
    facts = SheetFacts()
    extent = Extent()
    row = 0
    for kind, content in records(package, part):
        if kind in _CELLS:
            column = _number(package, content, 0)
            if column >= MAX_COLUMNS:
                raise package.corrupt(f"the part {part} has more than {MAX_COLUMNS:,} columns")
            if extent.include(row, column):
                check(extent)
            if kind in _ERRORS and len(content) > 8:
                facts.count_error(_ERROR_TEXTS.get(content[8], ""))
        elif kind == _ROW:
            row = _number(package, content, 0)
            if row >= MAX_ROWS:
                raise package.corrupt(f"the part {part} has more than {MAX_ROWS:,} rows")
        elif kind == _MERGE:
            if len(facts.merged) >= package.limits.max_merges:
                raise package.corrupt(f"the part {part} has more than {package.limits.max_merges:,} merged ranges")
            facts.merged.append(_merge(package, content))
    return facts


def _merge(package: Package, content: bytes) -> Merge:
    first_row, last_row, first_column, last_column = (_number(package, content, at) for at in (0, 4, 8, 12))
    return first_row + 1, first_column + 1, last_row + 1, last_column + 1


def _number(package: Package, content: bytes, at: int) -> int:
    if len(content) < at + 4:
        raise package.corrupt("a record of it is cut off")
    return int(struct.unpack_from("<L", content, at)[0])


def _string(package: Package, content: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + 2 * _number(package, content, at)
    if end > len(content):
        raise package.corrupt("a record of it is cut off")
    return content[at + 4 : end].decode("utf-16-le", "replace"), end


def records(package: Package, part: str) -> Iterator[tuple[int, bytes]]:
    """The records of a part, in order: their type and content."""
    buffer = b""
    for chunk in package.chunks(part):
        buffer += chunk
        at = 0
        while (header := _header(buffer, at)) is not None:
            kind, size, start = header
            if size > _MAX_RECORD:
                raise package.corrupt(f"the part {part} has a record of more than 16 MiB")
            if start + size > len(buffer):
                break
            yield kind, buffer[start : start + size]
            at = start + size
        buffer = buffer[at:]
    if buffer:
        raise package.corrupt(f"the part {part} ends in the middle of a record")


def _header(buffer: bytes, at: int) -> tuple[int, int, int] | None:
    """Type, size and start of the record at ``at``; None when its header is not complete yet."""
    end = len(buffer)
    if at >= end:
        return None
    kind = buffer[at]
    at += 1
    if kind & 0x80:
        if at >= end:
            return None
        kind = (kind & 0x7F) | (buffer[at] & 0x7F) << 7
        at += 1
    size = 0
    for shift in (0, 7, 14, 21):
        if at >= end:
            return None
        byte = buffer[at]
        at += 1
        size |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return kind, size, at
