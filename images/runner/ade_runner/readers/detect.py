"""Opens a file by what it holds. A file's name is never asked: people rename, systems export with the wrong ending."""

from __future__ import annotations

from ade_runner.errors import JobError
from ade_runner.readers import delimited, ole2
from ade_runner.readers.book import Book, ReadLimits, display_name
from ade_runner.readers.markup import Attributes, scan
from ade_runner.readers.package import Package
from ade_runner.readers.xlsx import XlsxBook, relationships

HEAD = 256 * 1024
"""Bytes from which the kind of file is told."""

_ODS_TYPES = ("application/vnd.oasis.opendocument.spreadsheet",)

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

_WAY_OUT = "Upload a workbook (xlsx, xlsm, xlsb, xls, ods) or a text table (csv, tsv)."


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
        return _open_zip(path, name, limits)
    if head.startswith(ole2.SIGNATURE):
        return _open_ole2(path, shown, limits)
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            raise _not_a_workbook(shown, what)
    markup = _markup_kind(head)
    if markup is not None:
        raise _not_a_workbook(shown, markup)
    if _looks_binary(head):
        raise _not_a_workbook(shown, "binary data of an unknown kind")
    return delimited.DelimitedBook(path, name, head, limits)


def _not_a_workbook(shown: str, what: str) -> JobError:
    return JobError("input_not_workbook", f"{shown} is not a workbook; it looks like {what}. {_WAY_OUT}")


def _open_zip(path: str, name: str, limits: ReadLimits) -> Book:
    package = Package(path, name, limits)
    try:
        return _open_package(package, path, limits)
    except BaseException:
        package.close()
        raise


def _open_package(package: Package, path: str, limits: ReadLimits) -> Book:
    if package.has("mimetype") and package.has("content.xml"):
        kind = package.read("mimetype")[:200].strip().decode("ascii", "replace")
        if kind.removesuffix("-template") not in _ODS_TYPES:
            raise _not_a_workbook(package.name, "an OpenDocument file, but not a spreadsheet")
        from ade_runner.readers import calamine_book  # rarely needed, and slow to start

        return calamine_book.open_ods(package, path, limits)
    workbook = _workbook_part(package)
    if workbook is None:
        raise _not_a_workbook(package.name, _zip_kind(package))
    content_type = _content_type(package, workbook)
    if "binary" in content_type or workbook.lower().endswith(".bin"):
        from ade_runner.readers import calamine_book  # rarely needed, and slow to start

        return calamine_book.open_xlsb(package, path, limits)
    if "wordprocessingml" in content_type:
        raise _not_a_workbook(package.name, "a Word document")
    if "presentationml" in content_type:
        raise _not_a_workbook(package.name, "a PowerPoint presentation")
    if content_type and "spreadsheetml" not in content_type and "ms-excel" not in content_type:
        raise _not_a_workbook(package.name, "an office document of another kind")
    macros = "macroenabled" in content_type or any(
        related.kind == "vbaProject" for related in relationships(package, workbook).values()
    )
    return XlsxBook(package, workbook, "xlsm" if macros else "xlsx")


def _workbook_part(package: Package) -> str | None:
    for related in relationships(package, "").values():
        if related.kind == "officeDocument" and package.has(related.part):
            return related.part
    for usual in ("xl/workbook.xml", "xl/workbook.bin"):
        if package.has(usual):
            return usual
    return None


def _content_type(package: Package, part: str) -> str:
    """The declared content type of a part, in lower case; empty when the package declares none."""
    overrides: dict[str, str] = {}
    defaults: dict[str, str] = {}
    if not package.has("[Content_Types].xml"):
        return ""

    def on_start(name: str, attributes: Attributes) -> None:
        if name == "Override":
            overrides[attributes.get("PartName", "").lstrip("/").lower()] = attributes.get("ContentType", "")
        elif name == "Default":
            defaults[attributes.get("Extension", "").lower()] = attributes.get("ContentType", "")

    scan(package, "[Content_Types].xml", on_start)
    declared = overrides.get(part.lower()) or defaults.get(part.rpartition(".")[2].lower(), "")
    return "" if declared.lower() in ("application/xml", "text/xml") else declared.lower()


def _zip_kind(package: Package) -> str:
    if package.has("word/document.xml"):
        return "a Word document"
    if package.has("ppt/presentation.xml"):
        return "a PowerPoint presentation"
    if package.has("Index/Document.iwa"):
        return "an Apple iWork document; export it as xlsx"
    if package.has("manifest.json"):
        return "a config package"
    return "a zip archive without a workbook in it"


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
        raise _not_a_workbook(shown, what)
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
