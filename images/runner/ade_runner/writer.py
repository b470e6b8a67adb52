"""Writes the one sheet of ``normalized.xlsx`` as a stream: rows go through XML and deflate straight into the file.

Text is always text: a string becomes an inline string, whatever it looks like, so nothing a user typed turns into a formula, a
number or a date. The same rows give the same bytes.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Self

from ade_runner.a1 import MAX_COLUMNS, MAX_ROWS, column_letters
from ade_runner.errors import JobError
from ade_runner.values import EXACT_DIGITS, Value, coerce
from ade_runner.zip_writer import ZipWriter

MAX_TEXT = 32_767
"""Characters (UTF-16 code units) of a cell's text; from Excel's specifications and limits."""

_LEVEL = 2  # of deflate: see the measurements in docs/users/formats.md
_CELLS_PER_SLICE = 16_384
_TEXT_PER_SLICE = 4 * 1024 * 1024  # characters
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

# What a text must not hold as it is: markup, characters XML 1.0 forbids or changes (a carriage return would come back as a
# line feed), surrogates without a partner, and anything that would be taken for an escape.
_SPECIAL = re.compile("[&<>\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_NAMED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_BAD_SHEET_NAME = re.compile(r"[\[\]:*?/\\\x00-\x1f\ud800-\udfff\ufffe\uffff]")

_EPOCH = datetime.date(1899, 12, 30).toordinal()
_FIRST_DATE = datetime.date(1900, 1, 1)
_AFTER_FALSE_LEAP_DAY = datetime.date(1900, 3, 1)
_DAY_US = 86_400_000_000


def _escape_match(match: re.Match[str]) -> str:
    found = match[0]
    named = _NAMED.get(found)
    if named is not None:
        return named
    if "\ud800" <= found <= "\udfff":
        return "\ufffd"
    return f"_x{ord(found):04X}_"


def escape(text: str) -> str:
    """Text as the content of an inline string; read back, it is the same text (a lone surrogate becomes U+FFFD)."""
    return _SPECIAL.sub(_escape_match, text)


def _cut(text: str) -> str:
    """At most ``MAX_TEXT`` UTF-16 code units, no character split."""
    return text.encode("utf-16-le", "replace")[: MAX_TEXT * 2].decode("utf-16-le", "ignore")


def _too_long(text: str) -> bool:
    return len(text) * 2 > MAX_TEXT and len(text.encode("utf-16-le", "surrogatepass")) > MAX_TEXT * 2


def date_serial(date: datetime.date) -> int | None:
    """The serial number in the 1900 system, its false leap day included; None before 1900."""
    if date < _FIRST_DATE:
        return None
    serial = date.toordinal() - _EPOCH
    return serial if date >= _AFTER_FALSE_LEAP_DAY else serial - 1


def _clock_us(value: datetime.datetime | datetime.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond


class SheetWriter:
    """An xlsx with one sheet: a bold, frozen header row and the rows of ``write_columns``.

    It writes next to ``path`` and moves the file into place on ``close``; used as a context manager, an exception leaves nothing
    behind. ``OSError`` (no space left) passes through. ``truncated_cells`` counts texts cut to ``MAX_TEXT``,
    ``rows_written`` the rows below the header.
    """

    def __init__(self, path: Path, sheet_name: str, headers: Sequence[str]) -> None:
        if not 1 <= len(sheet_name) <= 31 or _BAD_SHEET_NAME.search(sheet_name) or "'" in (sheet_name[0], sheet_name[-1]):
            raise ValueError("a sheet's name has 1 to 31 characters, none of []:*?/\\, and no ' at its ends")
        if len(headers) > MAX_COLUMNS:
            raise JobError(
                "output_too_large",
                f"The output would have {len(headers):,} columns; a worksheet holds {MAX_COLUMNS:,}."
                " Turn off engine.writer.append_unmapped_columns or drop columns.",
            )
        self.truncated_cells = 0
        self.rows_written = 0
        self._path = path
        self._part_path = path.with_name(f".{path.name}.part")
        self._letters = [column_letters(i + 1) for i in range(len(headers))]
        self._styled: dict[type, Callable[[str, str, object], str]] = {
            str: self._text,
            int: self._int,
            float: self._float,
            bool: self._bool,
            type(None): self._none,
            datetime.date: self._date,
            datetime.datetime: self._date_time,
            datetime.time: self._time,
            datetime.timedelta: self._elapsed,
        }
        self._dates: dict[datetime.date, str] = {}
        self._done = False
        self._file = self._part_path.open("wb")
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
        cells = "".join(
            self._text(letters, "1", str(header), f' s="{_HEADER}"')
            for letters, header in zip(self._letters, headers, strict=True)
        )
        self._write(
            (
                f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<worksheet xmlns="{_MAIN}">'
                '<sheetViews><sheetView tabSelected="1" workbookViewId="0">'
                '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
                '<selection pane="bottomLeft"/></sheetView></sheetViews>'
                f'{f"<cols>{columns}</cols>" if columns else ""}<sheetData><row r="1">{cells}</row>'
            ).encode()
        )

    def write_columns(self, columns: Sequence[Sequence[Value]]) -> None:
        """Append rows, given by column: as many columns as headers, all of the same length.

        Raises ``JobError("output_too_large")`` when the sheet would pass Excel's number of rows.
        """
        if len(columns) != len(self._letters):
            raise ValueError(f"{len(columns)} columns for {len(self._letters)} headers")
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
        step = max(1, _CELLS_PER_SLICE // len(columns))
        for start in range(0, height, step):
            self._write_slice([column[start : start + step] for column in columns])

    def _write_slice(self, columns: Sequence[Sequence[Value]]) -> None:
        height = len(columns[0])
        if height > 1 and _text_length(columns) > _TEXT_PER_SLICE:
            middle = height // 2
            self._write_slice([column[:middle] for column in columns])
            self._write_slice([column[middle:] for column in columns])
            return
        first = self.rows_written + 2
        numbers = list(map(str, range(first, first + height)))
        cells: list[Sequence[str]] = [[f'<row r="{number}">' for number in numbers]]
        for letters, column in zip(self._letters, columns, strict=True):
            cells.append(self._column(letters, numbers, column))
        cells.append(["</row>"] * height)
        self._write("".join(map("".join, zip(*cells, strict=True))).encode())
        self.rows_written += height

    def _column(self, letters: str, rows: list[str], column: Sequence[Value]) -> list[str]:
        """The cells of one column: all at once when every value is of one plain type, else one by one."""
        types = set(map(type, column))
        if len(types) == 1:
            kind = types.pop()
            if kind is str and _all_plain(column):  # type: ignore[arg-type]
                start = f'<c r="{letters}'
                return [f'{start}{row}" t="inlineStr"><is><t>{v}</t></is></c>' for row, v in zip(rows, column)]
            if kind is int and -_LARGEST_EXACT <= min(column) and max(column) <= _LARGEST_EXACT:  # type: ignore[type-var]
                start = f'<c r="{letters}'
                return [f'{start}{row}"><v>{v}</v></c>' for row, v in zip(rows, column)]
            if kind is float and isfinite(sum(column)):  # type: ignore[arg-type]
                start = f'<c r="{letters}'
                return [f'{start}{row}"><v>{v!r}</v></c>' for row, v in zip(rows, column)]
            if kind is type(None):
                return [""] * len(rows)
        styled = self._styled
        foreign = self._foreign
        return [styled.get(type(v), foreign)(letters, row, v) for row, v in zip(rows, column)]

    def _none(self, letters: str, row: str, value: object) -> str:
        return ""

    def _text(self, letters: str, row: str, value: str, style: str = "") -> str:  # type: ignore[override]
        if not value:
            return ""
        if len(value) * 2 > MAX_TEXT and _too_long(value):
            value = _cut(value)
            self.truncated_cells += 1
        if _SPECIAL.search(value):
            value = escape(value)
        # An XML reader may drop white space at the ends unless told not to.
        space = ' xml:space="preserve"' if value[0].isspace() or value[-1].isspace() else ""
        return f'<c r="{letters}{row}"{style} t="inlineStr"><is><t{space}>{value}</t></is></c>'

    def _int(self, letters: str, row: str, value: int) -> str:
        if -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
            return f'<c r="{letters}{row}"><v>{value}</v></c>'
        try:
            return self._text(letters, row, str(value))
        except ValueError:  # the interpreter's limit of digits
            return self._text(letters, row, hex(value))

    def _float(self, letters: str, row: str, value: float) -> str:
        if isfinite(value):
            return f'<c r="{letters}{row}"><v>{value!r}</v></c>'
        if value != value:
            return ""
        return self._text(letters, row, "Infinity" if value > 0 else "-Infinity")

    def _bool(self, letters: str, row: str, value: bool) -> str:
        return f'<c r="{letters}{row}" t="b"><v>{value:d}</v></c>'

    def _date(self, letters: str, row: str, value: datetime.date) -> str:
        serial = self._dates.get(value)
        if serial is None:
            number = date_serial(value)
            if number is None:
                return self._text(letters, row, value.isoformat())
            serial = str(number)
            if len(self._dates) < 65_536:
                self._dates[value] = serial
        return f'<c r="{letters}{row}" s="{_DATE}"><v>{serial}</v></c>'

    def _date_time(self, letters: str, row: str, value: datetime.datetime) -> str:
        day = None if value.tzinfo is not None else date_serial(value.date())
        if day is None:
            return self._text(letters, row, value.isoformat())
        return f'<c r="{letters}{row}" s="{_DATE_TIME}"><v>{day + _clock_us(value) / _DAY_US!r}</v></c>'

    def _time(self, letters: str, row: str, value: datetime.time) -> str:
        if value.tzinfo is not None:
            return self._text(letters, row, value.isoformat())
        return f'<c r="{letters}{row}" s="{_TIME}"><v>{_clock_us(value) / _DAY_US!r}</v></c>'

    def _elapsed(self, letters: str, row: str, value: datetime.timedelta) -> str:
        days = value / datetime.timedelta(days=1)
        return f'<c r="{letters}{row}" s="{_ELAPSED}"><v>{days!r}</v></c>'

    def _foreign(self, letters: str, row: str, value: object) -> str:
        plain = coerce(value)
        return self._styled[type(plain)](letters, row, plain)

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
        self._part_path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._done:
            self._abandon()


def _text_length(columns: Sequence[Sequence[Value]]) -> int:
    return sum(len(value) for column in columns for value in column if type(value) is str)


def _all_plain(texts: Sequence[str]) -> bool:
    """Whether texts can be written as they are. Says no too often rather than too rarely; the slow path is always right."""
    together = "|".join(texts)
    return (
        together.isprintable()
        and "&" not in together
        and "<" not in together
        and ">" not in together
        and "_x" not in together
        and "| " not in together
        and " |" not in together
        and together[:1] not in (" ", "|", "")
        and together[-1] not in " |"
        and "||" not in together
        and len(max(texts, key=len)) * 2 <= MAX_TEXT
    )
