"""Opens a file by what it holds. A file's name is never asked: people rename, systems export with the wrong ending."""

from __future__ import annotations

from ade_runner.errors import JobError
from ade_runner.readers import delimited, ole2
from ade_runner.readers.book import Book, ReadLimits, display_name, not_a_workbook

HEAD = 256 * 1024
"""Bytes from which the kind of file is told."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"PAR1", "a Parquet file"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"{\\rtf", "an RTF document"),
)


def open_book(path: str, name: str, limits: ReadLimits = ReadLimits()) -> Book:  # noqa: B008 - frozen, no state
    """Open the workbook at ``path``; ``name`` is what the user calls it and is only shown in messages.

    Raises ``JobError``: ``input_empty``, ``input_not_workbook``, ``input_encrypted``, ``input_corrupt``,
    ``input_zip_bomb``, ``input_bad_encoding``, ``input_too_wide``, ``input_no_sheets``.
    """
    shown = display_name(name)
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise JobError("input_empty", f"{shown} is empty (0 bytes); upload a file that has content.")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        from ade_runner.readers import zipped  # a large part of the runner, which a text table needs nothing of

        return zipped.open_zip(path, name, limits)
    if head.startswith(ole2.SIGNATURE):
        return _open_ole2(path, shown, limits)
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise not_a_workbook(shown, what)
    markup = _markup_kind(head)
    if markup is not None:
        raise not_a_workbook(shown, markup)
    if _looks_binary(head):
        raise not_a_workbook(shown, "binary data of an unknown kind")
    return delimited.DelimitedBook(path, name, head, limits)


def _open_ole2(path: str, shown: str, limits: ReadLimits) -> Book:
    streams = ole2.stream_names(path, shown)
    if "encryptedpackage" in streams:
        raise JobError(
            "input_encrypted", f"{shown} is protected by a password; remove the password and upload it again."
        )
    if streams.isdisjoint(("workbook", "book")):
        what = "an old Office document or message" if streams else "an OLE2 container"
        if "worddocument" in streams:
            what = "a Word document"
        elif "powerpoint document" in streams:
            what = "a PowerPoint presentation"
        raise not_a_workbook(shown, what)
    from ade_runner.readers import calamine_book  # rarely needed, and slow to start

    return calamine_book.open_xls(path, shown, limits)


def _markup_kind(head: bytes) -> str | None:
    start = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<table", b"<head", b"<body", b"<meta", b"<style")) or (
        start.startswith(b"<?xml") and b"<html" in start
    ):
        return "a web page (HTML), perhaps saved with a spreadsheet's ending; open it and save it as xlsx"
    if start.startswith(b"<?xml") and b"urn:schemas-microsoft-com:office:spreadsheet" in start:
        return "an XML Spreadsheet 2003; open it and save it as xlsx"
    if start.startswith(b"<?xml"):
        return "an XML document"
    if start.startswith(b"mime-version:") and b"multipart/related" in start:
        return "a web archive (MHTML), perhaps saved with a spreadsheet's ending; open it and save it as xlsx"
    return None


def _looks_binary(head: bytes) -> bool:
    """Control characters text does not have; NUL is left out, because UTF-16 text is full of them."""
    if head.startswith(delimited.BYTE_ORDER_MARKS):
        return False
    control = len(head) - len(head.translate(None, bytes(c for c in range(1, 32) if c not in b"\t\n\v\f\r\x1a\x1b")))
    return control > len(head) * 0.02
