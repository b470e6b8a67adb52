"""Reads xlsx and xlsm: parts by their relationships, both the transitional and the strict dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ade_native import SharedStrings

from ade_runner.errors import JobError
from ade_runner.readers import number_formats, shared_strings
from ade_runner.readers.book import Merge, SheetInfo
from ade_runner.readers.markup import Attributes, scan
from ade_runner.readers.number_formats import BUILT_IN, Shows
from ade_runner.readers.package import Package, resolve
from ade_runner.readers.xlsx_sheet import ColumnNumbers, SheetFacts, sheet_rows
from ade_runner.records import record
from ade_runner.values import Value

_VISIBILITY = {"hidden": "hidden", "veryHidden": "very_hidden"}
_MAX_CELL_FORMATS = 100_000  # Excel stops at 65,490


@record
class Relationship:
    """Where a relationship points; ``kind`` is the last word of its type, such as ``worksheet``."""

    kind: str
    part: str


def relationships(package: Package, part: str) -> dict[str, Relationship]:
    """The internal relationships of a part by id; ``""`` stands for the package itself."""
    folder, _, file = part.rpartition("/")
    rels = f"{folder}/_rels/{file}.rels" if folder else f"_rels/{file}.rels"
    found: dict[str, Relationship] = {}
    if not package.has(rels):
        return found

    def on_start(name: str, attributes: Attributes) -> None:
        if name == "Relationship" and attributes.get("TargetMode") != "External":
            kind = attributes.get("Type", "").rpartition("/")[2]
            target = attributes.get("Target", "").partition("#")[0]
            found[attributes.get("Id", "")] = Relationship(kind, resolve(part, target))

    scan(package, rels, on_start)
    return found


class XlsxBook:
    """A workbook of XML parts; ``workbook_part`` as found by its relationship."""

    encoding: str | None = None
    delimiter: str | None = None

    def __init__(self, package: Package, workbook_part: str, format: str) -> None:
        self.format = format
        self._package = package
        self._related = relationships(package, workbook_part)
        self._system_1904 = False
        self.sheets: list[SheetInfo] = []
        self._parts: list[str] = []
        scan(package, workbook_part, self._on_workbook_element)
        if not self.sheets:
            raise JobError("input_no_sheets", f"{package.name} has no worksheet; add one and upload it again.")
        self._strings: SharedStrings | None = None
        self._date_formats: dict[str | None, Callable[[int | float], Value]] | None = None
        self._columns = ColumnNumbers()
        self._facts: dict[int, SheetFacts] = {}

    def _on_workbook_element(self, name: str, attributes: Attributes) -> None:
        if name == "workbookPr":
            self._system_1904 = attributes.get("date1904", "0").strip() in ("1", "true", "on")
        elif name == "sheet":
            related = self._related.get(attributes.get("rel:id", ""))
            if related is None or related.kind != "worksheet":
                return  # a chart sheet, a dialog sheet or a macro sheet
            if len(self.sheets) >= self._package.limits.max_sheets:
                raise self._package.corrupt(f"it has more than {self._package.limits.max_sheets:,} sheets")
            visibility = _VISIBILITY.get(attributes.get("state", ""), "visible")
            self.sheets.append(SheetInfo(len(self.sheets) + 1, attributes.get("name", ""), visibility))
            self._parts.append(related.part)

    def rows(self, index: int) -> Iterator[tuple[int, list[Value]]]:
        if self._strings is None:
            self._strings = self._load_strings()
        if self._date_formats is None:
            self._date_formats = self._load_date_formats()
        facts = self._facts[index] = SheetFacts()
        return sheet_rows(
            self._package, self._parts[index - 1], self._strings, self._date_formats, self._columns, facts
        )

    def merged(self, index: int) -> list[Merge]:
        return self._facts[index].merged

    def error_cells(self, index: int) -> dict[str, int]:
        return self._facts[index].error_cells

    def close(self) -> None:
        self._package.close()

    def _part_of_kind(self, kind: str) -> str | None:
        for related in self._related.values():
            if related.kind == kind and self._package.has(related.part):
                return related.part
        return None

    def _load_strings(self) -> SharedStrings:
        part = self._part_of_kind("sharedStrings")
        return SharedStrings() if part is None else shared_strings.load(self._package, part)

    def _load_date_formats(self) -> dict[str | None, Callable[[int | float], Value]]:
        part = self._part_of_kind("styles")
        if part is None:
            return {}
        decoders = {shows: number_formats.decoder(shows, self._system_1904) for shows in Shows}
        return {style: decoders[shows] for style, shows in date_styles(self._package, part).items()}


def date_styles(package: Package, part: str) -> dict[str | None, Shows]:
    """The cell styles that show dates or times, by their index as text; None stands for a cell without a style."""
    custom: dict[str, Shows | None] = {}
    styles: dict[str | None, Shows] = {}
    in_cell_formats = False
    count = 0

    def on_start(name: str, attributes: Attributes) -> None:
        nonlocal in_cell_formats, count
        if name == "numFmt" and not in_cell_formats and len(custom) < _MAX_CELL_FORMATS:
            custom.setdefault(
                attributes.get("numFmtId", ""), number_formats.classify(attributes.get("formatCode", ""))
            )
        elif name == "cellXfs":
            in_cell_formats = True
        elif name in ("cellStyles", "dxfs"):
            in_cell_formats = False
        elif name == "xf" and in_cell_formats:
            if count >= _MAX_CELL_FORMATS:
                raise package.corrupt(f"it has more than {_MAX_CELL_FORMATS:,} cell formats")
            format_id = attributes.get("numFmtId", "0")
            shows = custom[format_id] if format_id in custom else None
            if shows is None and format_id not in custom and format_id.isdecimal() and len(format_id) < 10:
                shows = BUILT_IN.get(int(format_id))
            if shows is not None:
                styles[str(count)] = shows
                if count == 0:
                    styles[None] = shows
            count += 1

    scan(package, part, on_start)
    return styles
