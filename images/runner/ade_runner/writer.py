"""Writes the one sheet of ``normalized.xlsx`` as a stream: rows go through XML and deflate straight into the file.

Text is always text: a string becomes an inline string, whatever it looks like, so nothing a user typed turns into a formula, a
number or a date. The same rows give the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from types import TracebackType

import _datetime as datetime  # see values.py
from ade_native import CellWriter

from ade_runner.a1 import MAX_COLUMNS, MAX_ROWS, column_letters
from ade_runner.errors import JobError
from ade_runner.files import discard
from ade_runner.values import EXACT_DIGITS, Value, coerce
from ade_runner.zip_writer import ZipWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_LEVEL = 2  # of deflate: see the measurements in docs/users/formats.md
_LARGEST_EXACT = 10**EXACT_DIGITS - 1

_HEADER, _DATE, _DATE_TIME, _TIME, _ELAPSED = range(1, 6)

_CONTENT_TYPES = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">\
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>\
<Default Extension="xml" ContentType="application/xml"/>\
<Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>\
<Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/>\
<Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/>\
</Types>"""

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"

_PACKAGE_RELATIONSHIPS = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">\
<Relationship Id="rId1" Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/>\
</Relationships>"""

_WORKBOOK_RELATIONSHIPS = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">\
<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>\
<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/>\
</Relationships>"""

_WORKBOOK = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}">\
<sheets><sheet name="%s" sheetId="1" r:id="rId1"/></sheets></workbook>"""

# The order of cellXfs is that of the style numbers above.
_STYLES = f"""<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="{_MAIN}">\
<numFmts count="4"><numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/>\
<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss"/>\
<numFmt numFmtId="166" formatCode="hh:mm:ss"/><numFmt numFmtId="167" formatCode="[h]:mm:ss"/></numFmts>\
<fonts count="2"><font><sz val="11"/><name val="Calibri"/><family val="2"/></font>\
<font><b/><sz val="11"/><name val="Calibri"/><family val="2"/></font></fonts>\
<fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills>\
<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>\
<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>\
<cellXfs count="6"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>\
<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/>\
<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>\
<xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>\
<xf numFmtId="166" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>\
<xf numFmtId="167" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs>\
<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>"""

_BAD_SHEET_NAME = re.compile(r"[\[\]:*?/\\\x00-\x1f\ud800-\udfff\ufffe\uffff]")

_EPOCH = datetime.date(1899, 12, 30).toordinal()
_FIRST_DATE = datetime.date(1900, 1, 1)
_AFTER_FALSE_LEAP_DAY = datetime.date(1900, 3, 1)
_DAY_US = 86_400_000_000


def date_serial(date: datetime.date) -> int | None:
    """The serial number in the 1900 system, its false leap day included; None before 1900."""
    if date < _FIRST_DATE:
        return None
    serial = date.toordinal() - _EPOCH
    return serial if date >= _AFTER_FALSE_LEAP_DAY else serial - 1


def _clock_us(value: datetime.datetime | datetime.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


_Rare = str | int | float | bool | None | tuple[int, int | float]


def _rare(value: object) -> _Rare:
    """What a value is in the sheet that ``CellWriter`` asks about: text, a number, or a style and its number."""
    known = _RARE.get(type(value))
    if known is not None:
        return known(value)
    plain = coerce(value)
    known = _RARE.get(type(plain))
    return plain if known is None else known(plain)  # type: ignore[return-value]


def _int(value: int) -> _Rare:
    if -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
        return value
    try:
        return str(value)
    except ValueError:  # the interpreter's limit of digits
        return hex(value)


def _date(value: datetime.date) -> _Rare:
    serial = date_serial(value)
    return value.isoformat() if serial is None else (_DATE, serial)


def _date_time(value: datetime.datetime) -> _Rare:
    day = None if value.tzinfo is not None else date_serial(value.date())
    return value.isoformat() if day is None else (_DATE_TIME, day + _clock_us(value) / _DAY_US)


def _time(value: datetime.time) -> _Rare:
    return value.isoformat() if value.tzinfo is not None else (_TIME, _clock_us(value) / _DAY_US)


def _elapsed(value: datetime.timedelta) -> _Rare:
    return _ELAPSED, value / datetime.timedelta(days=1)


_RARE: dict[type, Callable[[Any], _Rare]] = {
    int: _int,
    datetime.date: _date,
    datetime.datetime: _date_time,
    datetime.time: _time,
    datetime.timedelta: _elapsed,
}


class SheetWriter:
    """An xlsx with one sheet: a bold, frozen header row and the rows of ``write_columns``.

    It writes next to ``path`` and moves the file into place on ``close``; used as a context manager, an exception leaves nothing
    behind. ``OSError`` (no space left) passes through. ``truncated_cells`` counts texts cut to ``MAX_TEXT``,
    ``rows_written`` the rows below the header.
    """

    def __init__(self, path: str, sheet_name: str, headers: Sequence[str]) -> None:
        if not 1 <= len(sheet_name) <= 31 or _BAD_SHEET_NAME.search(sheet_name) or "'" in (sheet_name[0], sheet_name[-1]):
            raise ValueError("a sheet's name has 1 to 31 characters, none of []:*?/\\, and no ' at its ends")
        if len(headers) > MAX_COLUMNS:
            raise JobError(
                "output_too_large",
                f"The output would have {len(headers):,} columns; a worksheet holds {MAX_COLUMNS:,}."
                " Turn off engine.writer.append_unmapped_columns or drop columns.",
            )
        self.rows_written = 0
        self._path = path
        self._part_path = "{}/.{}.part".format(*os.path.split(path))
        self._width = len(headers)
        self._cells = CellWriter([column_letters(i + 1) for i in range(len(headers))], datetime.date, _rare)
        self._done = False
        self._file = open(self._part_path, "wb")
        try:
            self._begin(sheet_name, headers)
        except BaseException:
            self._abandon()
            raise

    def _begin(self, sheet_name: str, headers: Sequence[str]) -> None:
        self._zip = ZipWriter(self._file, _LEVEL)
        self._zip.add("[Content_Types].xml", _CONTENT_TYPES.encode())
        self._zip.add("_rels/.rels", _PACKAGE_RELATIONSHIPS.encode())
        quoted = sheet_name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
        self._zip.add("xl/workbook.xml", (_WORKBOOK % quoted).encode())
        self._zip.add("xl/_rels/workbook.xml.rels", _WORKBOOK_RELATIONSHIPS.encode())
        self._zip.add("xl/styles.xml", _STYLES.encode())
        self._write, self._finish_part = self._zip.stream("xl/worksheets/sheet1.xml")
        # Wide enough to show a date with its time: a number that does not fit is shown as #####.
        widths = [min(max(len(str(header)) + 3, 20), 60) for header in headers]
        columns = "".join(
            f'<col min="{i}" max="{i}" width="{width}" customWidth="1"/>' for i, width in enumerate(widths, 1)
        )
        row, _ = self._cells.rows([[str(header)] for header in headers], 0, 1, 1, _HEADER)
        self._write(
            (
                f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<worksheet xmlns="{_MAIN}">'
                '<sheetViews><sheetView tabSelected="1" workbookViewId="0">'
                '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
                '<selection pane="bottomLeft"/></sheetView></sheetViews>'
                f'{f"<cols>{columns}</cols>" if columns else ""}<sheetData>'
            ).encode()
            + row
        )

    @property
    def truncated_cells(self) -> int:
        return self._cells.truncated

    def write_columns(self, columns: Sequence[Sequence[Value]]) -> None:
        """Append rows, given by column: as many columns as headers, all of the same length.

        Raises ``JobError("output_too_large")`` when the sheet would pass Excel's number of rows.
        """
        if len(columns) != self._width:
            raise ValueError(f"{len(columns)} columns for {self._width} headers")
        if not columns:
            return
        height = len(columns[0])
        if any(len(column) != height for column in columns):
            raise ValueError("columns of unequal length")
        if self.rows_written + height + 1 > MAX_ROWS:
            raise JobError(
                "output_too_large",
                f"The output would have more than {MAX_ROWS - 1:,} rows, which is all that a worksheet holds under its"
                " header. Split the input.",
            )
        lists = [column if type(column) is list else list(column) for column in columns]
        at = 0
        while at < height:
            first = at
            rows, at = self._cells.rows(lists, at, height, self.rows_written + 2)
            self._write(rows)
            self.rows_written += at - first

    def close(self) -> None:
        """Finish the workbook and move it into place. A second call does nothing."""
        if self._done:
            return
        try:
            self._write(b"</sheetData></worksheet>")
            self._finish_part()
            self._zip.close()
            self._file.close()
            os.replace(self._part_path, self._path)
        except BaseException:
            self._abandon()
            raise
        self._done = True

    def _abandon(self) -> None:
        self._done = True
        try:
            self._file.close()
        except OSError:
            pass  # what was buffered did not fit on the disk; the file goes away anyway
        discard(self._part_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._done:
            self._abandon()
