"""Builders of workbooks for the readers' tests, down to single bytes where no program writes what is needed."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from ade_runner.errors import JobError
from ade_runner.readers import Book, ReadLimits, open_book
from ade_runner.values import Value

MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
SHEET_MAIN = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"


def build_zip(path: Path, parts: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def worksheet(rows: str, after: str = "") -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData>{after}</worksheet>'


def styles(*codes: str | int) -> str:
    """Cell styles 0, 1, … with the given number formats: custom codes or built-in ids."""
    custom = [code for code in codes if isinstance(code, str)]
    formats = "".join(
        f'<numFmt numFmtId="{164 + i}" formatCode="{code.replace("&", "&amp;").replace(chr(34), "&quot;")}"/>'
        for i, code in enumerate(custom)
    )
    ids = [164 + custom.index(code) if isinstance(code, str) else code for code in codes]
    xfs = "".join(f'<xf numFmtId="{i}"/>' for i in ids)
    # The style formats before cellXfs must not be taken for cell formats.
    return (
        f'<styleSheet xmlns="{MAIN}"><numFmts>{formats}</numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs>'
        f"<cellXfs>{xfs}</cellXfs></styleSheet>"
    )


def xlsx_parts(
    sheet: str | bytes,
    *,
    strings: str | None = None,
    style_sheet: str | None = None,
    date1904: bool = False,
    sheet_part: str = "xl/worksheets/sheet1.xml",
    sheet_target: str = "worksheets/sheet1.xml",
) -> dict[str, str | bytes]:
    parts: dict[str, str | bytes] = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        f'<Override PartName="/xl/workbook.xml" ContentType="{SHEET_MAIN}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
        f'<Relationship Id="a" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><workbookPr date1904="{date1904:d}"/>'
        '<sheets><sheet name="Data" sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
        f'<Relationship Id="rId1" Type="{OFFICE}/worksheet" Target="{sheet_target}"/>'
        f'<Relationship Id="rId2" Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/>'
        f'<Relationship Id="rId3" Type="{OFFICE}/styles" Target="styles.xml"/></Relationships>',
        sheet_part: sheet,
    }
    if strings is not None:
        parts["xl/sharedStrings.xml"] = strings
    if style_sheet is not None:
        parts["xl/styles.xml"] = style_sheet
    return parts


def read_rows(path: Path, index: int = 1, limits: ReadLimits = ReadLimits()) -> list[tuple[int, list[Value]]]:
    book = open_book(path, path.name, limits)
    try:
        return list(book.rows(index))
    finally:
        book.close()


def read_sheet(path: Path, index: int = 1) -> tuple[Book, list[tuple[int, list[Value]]]]:
    book = open_book(path, path.name)
    return book, list(book.rows(index))


def refusal(path: Path, limits: ReadLimits = ReadLimits()) -> JobError:
    """The error that opening the file and reading all its sheets ends with."""
    with pytest.raises(JobError) as caught:
        book = open_book(path, path.name, limits)
        for sheet in book.sheets:
            for _ in book.rows(sheet.index):
                pass
    return caught.value


def compound_file(path: Path, streams: dict[str, bytes]) -> Path:
    """An OLE2 file of 512-byte sectors; streams are padded to the size from which they live in sectors of their own."""
    padded = {name: content.ljust(4096, b"\0") for name, content in streams.items()}
    entry = struct.Struct("<64sHBBLLL16sLQQLQ")
    none = 0xFFFFFFFF

    def directory_entry(name: str, kind: int, child: int, right: int, start: int, size: int) -> bytes:
        encoded = name.encode("utf-16-le")
        return entry.pack(encoded, len(encoded) + 2, kind, 1, none, right, child, b"", 0, 0, 0, start, size)

    directory_sectors = (len(padded) + 1 + 3) // 4
    table = [0xFFFFFFFD] + [i + 2 for i in range(directory_sectors - 1)] + [0xFFFFFFFE]
    body = b""
    entries = [directory_entry("Root Entry", 5, 1, none, 0xFFFFFFFE, 0)]
    for i, (name, content) in enumerate(padded.items(), 1):
        content = content.ljust(-(-len(content) // 512) * 512, b"\0")
        start, count = len(table), len(content) // 512
        table += [start + k + 1 for k in range(count - 1)] + [0xFFFFFFFE]
        entries.append(directory_entry(name, 2, none, i + 1 if i < len(padded) else none, start, len(content)))
        body += content
    assert len(table) <= 128
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<9L", 0, 1, 1, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0)
    header += struct.pack("<109L", 0, *[none] * 108)
    path.write_bytes(
        header
        + struct.pack("<128L", *table, *[none] * (128 - len(table)))
        + b"".join(entries).ljust(directory_sectors * 512, b"\0")
        + body
    )
    return path


def record(kind: int, content: bytes = b"") -> bytes:
    """One record of a binary workbook part."""
    head = bytes([kind]) if kind < 128 else bytes([kind & 0x7F | 0x80, kind >> 7])
    size, length = b"", len(content)
    while True:
        size += bytes([length & 0x7F | (0x80 if length > 127 else 0)])
        length >>= 7
        if not length:
            return head + size + content


def wide_string(text: str) -> bytes:
    return struct.pack("<L", len(text)) + text.encode("utf-16-le")


def xlsb(path: Path, rows: Iterable[tuple[int, Sequence[bytes]]], after: bytes = b"") -> Path:
    """A binary workbook with one sheet; rows count from 0, their cells are records."""
    sheet = record(129) + record(148, struct.pack("<4L", 0, 10, 0, 10)) + record(145)
    for number, cells in rows:
        sheet += record(0, struct.pack("<LLHHBL", number, 0, 300, 0, 0, 0)) + b"".join(cells)
    sheet += record(146) + after + record(130)
    workbook = record(131) + record(143)
    workbook += record(156, struct.pack("<LL", 0, 1) + wide_string("rId1") + wide_string("Data"))
    workbook += record(144) + record(132)
    xf = struct.pack("<HHHHHBBH", 0, 0, 0, 0, 0, 0, 0, 0)
    date = struct.pack("<HHHHHBBH", 0, 14, 0, 0, 0, 0, 0, 0)
    style_sheet = record(278) + record(617, struct.pack("<L", 2)) + record(47, xf) + record(47, date) + record(618)
    style_sheet += record(279)
    return build_zip(
        path,
        {
            "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
            '<Default Extension="bin" ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
            f'<Relationship Id="a" Type="{OFFICE}/officeDocument" Target="xl/workbook.bin"/></Relationships>',
            "xl/workbook.bin": workbook,
            "xl/_rels/workbook.bin.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
            f'<Relationship Id="rId1" Type="{OFFICE}/worksheet" Target="worksheets/sheet1.bin"/>'
            f'<Relationship Id="rId2" Type="{OFFICE}/styles" Target="styles.bin"/></Relationships>',
            "xl/worksheets/sheet1.bin": sheet,
            "xl/styles.bin": style_sheet,
        },
    )


def binary_cell(kind: int, column: int, content: bytes, style: int = 0) -> bytes:
    return record(kind, struct.pack("<LL", column, style) + content)


def ods_parts(table: str, manifest: str = "") -> dict[str, str | bytes]:
    return {
        "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
        "META-INF/manifest.xml": '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">'
        f"{manifest}</manifest:manifest>",
        "content.xml": '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
        ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
        ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0">'
        f'<office:body><office:spreadsheet><table:table table:name="Data">{table}</table:table></office:spreadsheet>'
        "</office:body></office:document-content>",
    }
