"""Reads xls, xlsb and ods with python-calamine, which holds a sheet as one dense rectangle.

A sheet is therefore measured before it is loaded where the format can be walked cheaply (xlsb, ods); an xls has at most
65,536 × 256 cells.
"""

from __future__ import annotations

import datetime
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from math import isfinite
from typing import TYPE_CHECKING, TypeVar

from ade_runner.errors import JobError
from ade_runner.readers import ods_scan, xlsb_scan
from ade_runner.readers.book import Merge, ReadLimits, SheetInfo
from ade_runner.readers.package import Package
from ade_runner.readers.xlsx_sheet import SheetFacts
from ade_runner.values import EXACT_DIGITS, Value

if TYPE_CHECKING:
    from python_calamine import CalamineSheet, CalamineWorkbook

T = TypeVar("T")

_EXACT = 10.0**EXACT_DIGITS
_DURATION = re.compile(r"(-?)PT(\d{1,9})H(\d{1,9})M(\d{1,9})(?:[.,](\d{1,6}))?S")
_VISIBILITY = {"Visible": "visible", "Hidden": "hidden", "VeryHidden": "very_hidden"}


def open_xls(path: str, shown: str, limits: ReadLimits) -> CalamineBook:
    """``shown`` is the printable name for messages."""
    return CalamineBook(path, shown, "xls", limits)


def open_ods(package: Package, path: str, limits: ReadLimits) -> CalamineBook:
    try:
        if ods_scan.is_encrypted(package):
            raise _encrypted(package.name)
        ods_scan.measure(package, lambda cells: _check_area(package.name, cells, limits))
    finally:
        package.close()
    return CalamineBook(path, package.name, "ods", limits)


def open_xlsb(package: Package, path: str, limits: ReadLimits) -> CalamineBook:
    workbook = "xl/workbook.bin"
    parts = xlsb_scan.sheet_parts(package, workbook)
    for part in package.names():
        if part.lower().endswith("sharedstrings.bin"):
            for _ in package.chunks(part, limits.max_shared_strings):
                pass  # counted against the limits: calamine unpacks it at once
    return CalamineBook(path, package.name, "xlsb", limits, package, parts)


class CalamineBook:
    """A workbook held by calamine. ``package`` and ``parts`` (sheet name → part) are given for xlsb only."""

    encoding: str | None = None
    delimiter: str | None = None

    def __init__(
        self,
        path: str,
        shown: str,
        format: str,
        limits: ReadLimits,
        package: Package | None = None,
        parts: dict[str, str] | None = None,
    ) -> None:
        self.format = format
        self._shown = shown
        self._limits = limits
        self._package = package
        self._parts = parts or {}
        self._facts: dict[int, SheetFacts] = {}
        self._book: CalamineWorkbook = self._guarded(lambda: _load(path, format))
        self.sheets: list[SheetInfo] = []
        for sheet in self._book.sheets_metadata:
            if str(sheet.typ).endswith("WorkSheet"):
                visibility = _VISIBILITY.get(str(sheet.visible).rpartition(".")[2], "visible")
                self.sheets.append(SheetInfo(len(self.sheets) + 1, sheet.name, visibility))
        if not self.sheets:
            raise JobError("input_no_sheets", f"{shown} has no worksheet; add one and upload it again.")
        if len(self.sheets) > limits.max_sheets:
            raise self._corrupt(f"it has more than {limits.max_sheets:,} sheets")

    def rows(self, index: int) -> Iterator[tuple[int, list[Value]]]:
        name = self.sheets[index - 1].name
        facts = self._facts[index] = self._scanned(name)
        sheet: CalamineSheet = self._guarded(lambda: self._book.get_sheet_by_name(name))
        if sheet.start is None:
            return
        # Rows come from the top of the sheet, their cells from its first used column.
        margin: list[Value] = [None] * sheet.start[1]
        iterator = sheet.iter_rows()
        number = 0
        while (cells := self._guarded(lambda: next(iterator, None))) is not None:
            number += 1
            values = [_value(cell) for cell in cells]
            while values and values[-1] is None:
                values.pop()
            for value in values:
                if type(value) is str and len(value) > self._limits.max_cell:
                    raise JobError(
                        "input_cell_too_large",
                        f"{self._shown} has a cell of more than 1 MiB of text in row {number:,}; shorten it.",
                    )
            if values:
                yield number, margin + values
        if self.format == "xls":
            for (first_row, first_column), (last_row, last_column) in sheet.merged_cell_ranges or ():
                facts.merged.append((first_row + 1, first_column + 1, last_row + 1, last_column + 1))

    def _scanned(self, name: str) -> SheetFacts:
        if self._package is None:
            return SheetFacts()
        part = self._parts.get(name)
        if part is None:
            raise self._corrupt("a sheet has no part")
        return xlsb_scan.scan_sheet(
            self._package, part, lambda extent: _check_area(self._shown, extent.cells, self._limits)
        )

    def merged(self, index: int) -> list[Merge]:
        return self._facts[index].merged

    def error_cells(self, index: int) -> dict[str, int]:
        return self._facts[index].error_cells

    def close(self) -> None:
        self._book.close()
        if self._package is not None:
            self._package.close()

    def _corrupt(self, why: str) -> JobError:
        return JobError(
            "input_corrupt",
            f"{self._shown} is damaged: {why}. Open it in a spreadsheet program, save it as xlsx and upload that.",
        )

    def _guarded(self, call: Callable[[], T]) -> T:
        """Turn what calamine raises for a bad file into this runner's errors; its messages may quote the file, so they end here."""
        from python_calamine import PasswordError

        try:
            return call()
        except PasswordError:
            raise _encrypted(self._shown) from None
        except MemoryError:
            raise
        except Exception:
            raise self._corrupt(f"it is not a readable {self.format} workbook") from None
        except BaseException as error:
            # A panic in the Rust code arrives as an exception of its own, which is not importable.
            if type(error).__name__ == "PanicException":
                raise self._corrupt(f"it is not a readable {self.format} workbook") from None
            raise


def _load(path: str, format: str) -> CalamineWorkbook:
    """Open a file as the very format it was measured as: calamine goes by the name's ending, and guesses without one."""
    from python_calamine import CalamineWorkbook  # only jobs with such a file pay for its import

    with tempfile.TemporaryDirectory(prefix="ade-") as folder:
        alias = f"{folder}/book.{format}"
        os.symlink(os.path.realpath(path), alias)
        return CalamineWorkbook.from_path(alias)


def _encrypted(shown: str) -> JobError:
    return JobError(
        "input_encrypted", f"{shown} is protected by a password; remove the password and upload it again."
    )


def _check_area(shown: str, cells: int, limits: ReadLimits) -> None:
    if cells > limits.max_dense_cells:
        raise JobError(
            "input_too_wide",
            f"{shown} spans {cells:,} cells; the limit for xls, xlsb and ods is {limits.max_dense_cells:,}."
            " Save it as xlsx, which is read row by row, or remove what lies far out.",
        )


def _value(cell: object) -> Value:
    if type(cell) is str:
        if not cell:
            return None
        if cell.startswith(("PT", "-PT")):
            return _duration(cell)
        return cell
    if type(cell) is float:
        if cell.is_integer() and -_EXACT < cell < _EXACT:
            return int(cell)
        if not isfinite(cell):
            return "#NUM!"
    return cell  # type: ignore[return-value]


def _duration(text: str) -> Value:
    """An OpenDocument time value (``PT30H05M00S``), which calamine hands on as text."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return text
    sign, hours, minutes, seconds, fraction = match.groups()
    try:
        span = datetime.timedelta(
            hours=int(hours),
            minutes=int(minutes),
            seconds=int(seconds),
            microseconds=int((fraction or "0").ljust(6, "0")),
        )
    except OverflowError:
        return text
    return -span if sign else span
