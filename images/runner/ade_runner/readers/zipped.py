"""Opens what comes in a zip archive: workbooks of Excel and OpenDocument, told apart by what is in it."""

from __future__ import annotations

from ade_runner.readers.book import Book, ReadLimits, not_a_workbook
from ade_runner.readers.markup import Attributes, scan
from ade_runner.readers.package import Package
from ade_runner.readers.xlsx import XlsxBook, relationships

_ODS_TYPES = ("application/vnd.oasis.opendocument.spreadsheet",)


def open_zip(path: str, name: str, limits: ReadLimits) -> Book:
    """What :func:`ade_runner.readers.open_book` does with such a file."""
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
            raise not_a_workbook(package.name, "an OpenDocument file, but not a spreadsheet")
        from ade_runner.readers import calamine_book  # rarely needed, and slow to start

        return calamine_book.open_ods(package, path, limits)
    workbook = _workbook_part(package)
    if workbook is None:
        raise not_a_workbook(package.name, _zip_kind(package))
    content_type = _content_type(package, workbook)
    if "binary" in content_type or workbook.lower().endswith(".bin"):
        from ade_runner.readers import calamine_book  # rarely needed, and slow to start

        return calamine_book.open_xlsb(package, path, limits)
    if "wordprocessingml" in content_type:
        raise not_a_workbook(package.name, "a Word document")
    if "presentationml" in content_type:
        raise not_a_workbook(package.name, "a PowerPoint presentation")
    if content_type and "spreadsheetml" not in content_type and "ms-excel" not in content_type:
        raise not_a_workbook(package.name, "an office document of another kind")
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
