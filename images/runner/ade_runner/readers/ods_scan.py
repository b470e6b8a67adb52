"""Measures an OpenDocument spreadsheet before calamine loads it: repetition counts let a few bytes stand for a billion cells."""

from __future__ import annotations

from collections.abc import Callable

from ade_runner.errors import JobError
from ade_runner.readers.book import human_size
from ade_runner.readers.extent import Extent
from ade_runner.readers.markup import MAX_DEPTH, Attributes, BoundedParser, scan
from ade_runner.readers.package import Package

_TABLE = "urn:oasis:names:tc:opendocument:xmlns:table:1.0 "
_OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0 "
_TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0 "
_CELLS = (_TABLE + "table-cell", _TABLE + "covered-table-cell")
_ROW = _TABLE + "table-row"
_SHEET = _TABLE + "table"
_SPACES = _TEXT + "s"


def is_encrypted(package: Package) -> bool:
    """Whether the manifest says that parts are encrypted."""
    encrypted = False

    def on_start(name: str, _: Attributes) -> None:
        nonlocal encrypted
        encrypted = encrypted or name == "encryption-data"

    if package.has("META-INF/manifest.xml"):
        scan(package, "META-INF/manifest.xml", on_start)
    return encrypted


def measure(package: Package, check: Callable[[int], None]) -> None:
    """Walk ``content.xml``; ``check`` gets the number of cells of all sheets so far whenever it grows, and may raise."""
    parser = BoundedParser(package, "content.xml", namespaces=True)
    limits = package.limits
    extent = Extent()
    earlier = 0  # cells of the sheets before
    row = column = 0  # the next ones, from 0
    row_repeat = cell_repeat = 1
    cell_text = all_text = 0  # characters
    depth = 0

    def start(name: str, attributes: Attributes) -> None:
        nonlocal depth, extent, earlier, row, column, row_repeat, cell_repeat, cell_text
        depth += 1
        if depth > MAX_DEPTH:
            raise parser.corrupt(f"nests more than {MAX_DEPTH} elements")
        if name in _CELLS:
            cell_repeat = _count(attributes.get(_TABLE + "number-columns-repeated"))
            cell_text = 0
            if _OFFICE + "value-type" in attributes:
                used()
                add_text(sum(map(len, attributes.values())))
            column += cell_repeat
        elif name == _ROW:
            row += row_repeat if column or row else 0
            row_repeat = _count(attributes.get(_TABLE + "number-rows-repeated"))
            column = 0
        elif name == _SHEET:
            earlier += extent.cells
            extent = Extent()
            row = column = 0
            row_repeat = 1
        elif name == _SPACES:
            add_text(_count(attributes.get(_TEXT + "c")))

    def used() -> None:
        grew = extent.include(row, column)
        if extent.include(row + row_repeat - 1, column + cell_repeat - 1) or grew:
            check(earlier + extent.cells)

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def text(data: str) -> None:
        add_text(len(data))

    def add_text(length: int) -> None:
        nonlocal cell_text, all_text
        cell_text += length
        all_text += length * cell_repeat * row_repeat
        if cell_text > limits.max_cell:
            raise JobError(
                "input_cell_too_large",
                f"{package.name} has more than {human_size(limits.max_cell)} of text in one cell;"
                " shorten it and upload the workbook again.",
            )
        if all_text > limits.max_shared_strings:
            raise package.bomb(f"its cells hold more than {human_size(limits.max_shared_strings)} of text")

    parser.expat.StartElementHandler = start
    parser.expat.EndElementHandler = end
    parser.expat.CharacterDataHandler = text
    for chunk in package.chunks("content.xml"):
        parser.feed(chunk)
    parser.feed(b"", final=True)


def _count(text: str | None) -> int:
    if text is None:
        return 1
    return int(text) if text.isdecimal() and len(text) <= 10 else 1
