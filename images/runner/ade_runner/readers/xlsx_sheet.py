"""Streams the rows of one worksheet part.

Rows in the usual spelling are taken as a whole by ``ade_native`` (see ``plain``); whatever else the part holds goes through the
XML parser, which never notices that rows were taken out of its sight, and which alone says what is wrong with a file. The
parser's handlers run once per XML event, so they are closures over plain local variables. One chunk is read at a time and its
rows are handed on before the next: memory does not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite

import _datetime as datetime  # see values.py
from ade_native import PlainRows, SharedStrings

from ade_runner.a1 import MAX_COLUMNS, MAX_ROWS, cell, parse_cell, parse_range
from ade_runner.errors import JobError
from ade_runner.readers.book import Merge, human_size
from ade_runner.readers.markup import MAX_DEPTH, Attributes, BoundedParser, prefix_of, unescape
from ade_runner.readers.package import CHUNK, Package
from ade_runner.readers.plain import weave
from ade_runner.records import fresh, record
from ade_runner.values import EXACT_DIGITS, Value

ERROR_TEXTS = frozenset(
    (
        "#NULL!",
        "#DIV/0!",
        "#VALUE!",
        "#REF!",
        "#NAME?",
        "#NUM!",
        "#N/A",
        "#GETTING_DATA",
        "#SPILL!",
        "#CALC!",
        "#FIELD!",
        "#BLOCKED!",
        "#CONNECT!",
        "#UNKNOWN!",
        "#BUSY!",
        "#PYTHON!",
        "#EXTERNAL!",
    )
)
"""The errors Excel knows. Any other text of an error cell is counted as ``OTHER_ERROR``: counts never hold cell values."""

OTHER_ERROR = "#OTHER!"

_EXACT = 10.0**EXACT_DIGITS
_SPARSE_GAP = 64  # empty columns in a row past which it is kept by column until it is handed on
_KNOWN_SERIALS = 65_536  # decoded dates kept for reuse
_ROW_END = b"</row>"


@record
class SheetFacts:
    """What is known about a sheet once its rows were read."""

    merged: list[Merge] = fresh(list)
    error_cells: dict[str, int] = fresh(dict)

    def count_error(self, text: str) -> None:
        key = text if text in ERROR_TEXTS else OTHER_ERROR
        self.error_cells[key] = self.error_cells.get(key, 0) + 1


class ColumnNumbers(dict[str, int]):
    """Column letters → column from 0, learnt as they occur; shared by all sheets of a book."""


def sheet_rows(
    package: Package,
    part: str,
    strings: SharedStrings,
    date_formats: dict[str | None, Callable[[int | float], Value]],
    columns: ColumnNumbers,
    facts: SheetFacts,
) -> Iterator[tuple[int, list[Value]]]:
    """Yield the rows of a worksheet; fill ``facts``. ``date_formats`` maps cell styles to their serial number decoders."""
    parser = BoundedParser(package, part)
    max_merges = package.limits.max_merges
    max_cell = package.limits.max_cell
    corrupt = parser.corrupt

    finished: list[tuple[int, list[Value] | dict[int, Value]]] = []
    texts: list[str] = []  # pieces of the text of the current v or t
    runs: list[str] = []  # complete t elements of the current is
    row: list[Value] = []
    sparse: dict[int, Value] | None = None  # instead of row, when it has wide gaps
    row_number = 0
    row_text = "0"  # the row's number in cell references
    row_digits = 1
    column = -1
    cell_type: str | None = None
    cell_style: str | None = None
    in_data = in_row = in_cell = reading = phonetic = False
    row_end = 0  # where the last end tag of a row began, in bytes fed to the parser
    misplaced = 0
    depth = 0  # of elements other than row, c, v and t
    serials: dict[tuple[str | None, str], Value] = {}
    plain_rows = PlainRows(strings, date_formats, max_cell)
    C = ROW = V = T = IS = PHONETIC = MERGE = DATA = ""

    def root(name: str, _: Attributes) -> None:
        nonlocal C, ROW, V, T, IS, PHONETIC, MERGE, DATA
        prefix = prefix_of(name, "worksheet")
        if prefix is None:
            raise corrupt("is not a worksheet")
        C, ROW, V, T, IS, PHONETIC, MERGE, DATA = (
            prefix + local for local in ("c", "row", "v", "t", "is", "rPh", "mergeCell", "sheetData")
        )
        parser.expat.StartElementHandler = start
        parser.expat.EndElementHandler = end

    def start(name: str, attributes: Attributes) -> None:
        nonlocal column, cell_type, cell_style, in_cell, reading
        if name == C:
            if in_cell:
                raise corrupt(f"has a cell inside of another one in row {row_number:,}")
            in_cell = True
            get = attributes.get
            reference = get("r")
            if reference is None:
                column += 1
                if column >= MAX_COLUMNS:
                    raise corrupt(f"has more than {MAX_COLUMNS:,} columns in row {row_number:,}")
            else:
                known = columns.get(reference[:-row_digits])
                column = locate(reference) if known is None or not reference.endswith(row_text) else known
            cell_type = get("t")
            cell_style = get("s")
        elif name == V or name == T:
            if reading:
                raise corrupt(f"has a value inside of another one in row {row_number:,}")
            reading = True
            texts.clear()
        else:
            start_other(name, attributes)

    def end(name: str) -> None:
        nonlocal in_cell, reading
        if name == V:
            reading = False
            text = texts[0] if len(texts) == 1 else long_text()
            if cell_type is None or cell_type == "n":
                if cell_style in date_formats:
                    value = serials.get((cell_style, text))
                    if value is None:
                        value = serial(text, cell_style)
                elif text.isdigit():
                    value = whole(text)
                else:
                    value = number(text)
            elif cell_type == "s":
                value = shared(text)
            else:
                value = other_type(text, cell_type)
            if value is not None and value != "":
                if column == len(row) and sparse is None:
                    row.append(value)
                else:
                    place(value)
        elif name == C:
            in_cell = False
        elif name == T:
            reading = False
            if not phonetic:
                runs.append(long_text())
        else:
            end_other(name)

    def start_other(name: str, attributes: Attributes) -> None:
        nonlocal in_data, in_row, phonetic, depth
        if name == ROW:
            if in_row:
                raise corrupt(f"has a row inside of row {row_number:,}")
            in_row = True
            begin_row(attributes.get("r"))
            return
        depth += 1
        if depth > MAX_DEPTH:
            raise corrupt(f"nests more than {MAX_DEPTH} elements")
        if name == IS:
            runs.clear()
        elif name == PHONETIC:
            phonetic = True
        elif name == DATA:
            in_data = True
        elif name == MERGE:
            if len(facts.merged) >= max_merges:
                raise corrupt(f"has more than {max_merges:,} merged ranges")
            try:
                merge = parse_range(attributes.get("ref", ""))
            except ValueError:
                raise corrupt("has a merged range that is outside of a worksheet") from None
            if merge[:2] != merge[2:]:
                facts.merged.append(merge)

    def end_other(name: str) -> None:
        nonlocal in_data, in_row, phonetic, depth, row_end
        if name == ROW:
            in_row = False
            row_end = parser.expat.CurrentByteIndex
            finish_row()
            return
        depth -= 1
        if name == IS:
            text = "".join(runs)
            if "_x" in text:
                text = unescape(text)
            if text:
                place(text)
        elif name == PHONETIC:
            phonetic = False
        elif name == DATA:
            in_data = False

    def begin_row(number_text: str | None) -> None:
        nonlocal row, sparse, row_number, row_text, row_digits, column
        if number_text is None:
            this_number = row_number + 1
        elif number_text.isdecimal() and len(number_text) <= 7:
            this_number = int(number_text)
        else:
            raise corrupt(f"has a row without a proper number after row {row_number:,}")
        if this_number <= row_number:
            raise corrupt(f"has row {this_number:,} after row {row_number:,}")
        if this_number > MAX_ROWS:
            raise corrupt(f"has more than {MAX_ROWS:,} rows")
        row_number, row_text, column = this_number, str(this_number), -1
        row_digits = len(row_text)
        row, sparse = [], None

    def finish_row() -> None:
        nonlocal row, sparse
        if sparse is not None:
            finished.append((row_number, sparse))
        elif row:
            finished.append((row_number, row))
        row, sparse = [], None  # a cell outside of any row ends up here and is forgotten

    def place(value: Value) -> None:
        """Put a value where the row does not just go on: after a gap, or back at an earlier column."""
        nonlocal sparse, misplaced
        if sparse is not None:
            sparse[column] = value
            return
        width = len(row)
        if column == width:
            row.append(value)
        elif column < width:
            misplaced += 1
            if misplaced > MAX_ROWS:
                raise corrupt("lists its cells out of order")
            row[column] = value
        elif column - width <= _SPARSE_GAP:
            row.extend([None] * (column - width))
            row.append(value)
        else:
            sparse = {at: kept for at, kept in enumerate(row) if kept is not None}
            sparse[column] = value

    def locate(reference: str) -> int:
        """The column of a reference whose letters were not met before; checks the row as well."""
        try:
            at_row, at_column = parse_cell(reference)
        except ValueError:
            raise corrupt(f"has a cell that is outside of a worksheet in row {row_number:,}") from None
        if at_row != row_number:
            raise corrupt(f"has a cell of row {at_row:,} in row {row_number:,}")
        if len(columns) < MAX_COLUMNS:  # letters may be spelled in more ways than there are columns
            columns[reference[:-row_digits]] = at_column - 1
        return at_column - 1

    def here() -> str:
        return cell(max(row_number, 1), column + 1)

    def whole(text: str) -> Value:
        try:
            return int(text)
        except ValueError:  # past the interpreter's limit of digits, or digits of a kind int() does not know
            raise corrupt(f"has a number that cannot be read in {here()}") from None

    def number(text: str) -> Value:
        if text.isdigit():
            return whole(text)
        try:
            value = float(text)
        except ValueError:
            if text == "" or text.isspace():
                return None
            raise corrupt(f"has a number that cannot be read in {here()}") from None
        if not isfinite(value):
            facts.count_error("#NUM!")
            return "#NUM!"
        if value.is_integer() and -_EXACT < value < _EXACT:
            return int(value)
        if text[0] == "-" and text[1:].isdecimal():
            return whole(text)
        return value

    def serial(text: str, style: str | None) -> Value:
        value = number(text)
        if type(value) is int or type(value) is float:
            value = date_formats[style](value)
        if len(serials) < _KNOWN_SERIALS and len(text) < 32:
            serials[style, text] = value
        return value

    def shared(position: str) -> str:
        string = strings.get(position)
        if string is None:
            raise corrupt(f"refers to a shared string that does not exist in {here()}")
        return string

    def long_text() -> str:
        """The text of the current element, from as many pieces as the parser made of it."""
        text = "".join(texts)
        if len(text) > max_cell:
            raise too_large()
        return text

    def too_large() -> JobError:
        return JobError(
            "input_cell_too_large",
            f"{package.name} has more than {human_size(max_cell)} of text in {here()};"
            " shorten it and upload the workbook again.",
        )

    def other_type(text: str, kind: str) -> Value:
        if kind == "b":
            return text.strip() not in ("0", "false")
        if kind == "e":
            facts.count_error(text)
            return text
        if kind == "d":
            return iso_date(text)
        if kind == "str" or kind == "inlineStr":
            return unescape(text) if "_x" in text else text
        raise corrupt(f"has a cell of an unknown type in {here()}")

    def parse(content: bytes) -> None:
        """Feed the parser and see that no cell's text piles up."""
        for at in range(0, len(content), CHUNK):
            parser.feed(content[at : at + CHUNK])
            if not reading:
                texts.clear()
            if (texts or runs) and sum(map(len, texts)) + sum(map(len, runs)) > max_cell:
                raise too_large()

    def between() -> int | None:
        return row_end if in_data and depth == 1 and not in_row else None

    def take(block: bytes, at: int) -> int:
        nonlocal row_number, row_text, row_digits, column
        at, numbers, rows, last, last_column = plain_rows.take(block, at, row_number)
        if last != row_number:
            row_number, row_text, column = last, str(last), last_column
            row_digits = len(row_text)
            finished.extend(zip(numbers, rows))
        return at

    def drain() -> Iterator[tuple[int, list[Value]]]:
        for at, values in finished:
            yield at, values if type(values) is list else _dense(values)  # type: ignore[arg-type]
        finished.clear()

    parser.expat.StartElementHandler = root
    parser.expat.CharacterDataHandler = texts.append
    for _ in weave(package.chunks(part), parser, _ROW_END, parse, between, take):
        yield from drain()


def _dense(values: dict[int, Value]) -> list[Value]:
    row: list[Value] = [None] * (max(values) + 1)
    for column, value in values.items():
        row[column] = value
    return row


def iso_date(text: str) -> Value:
    """A cell of type ``d``: a date, a date with time, or a time in ISO 8601; an offset is dropped, other text stays text."""
    for parse in (datetime.date.fromisoformat, datetime.datetime.fromisoformat, datetime.time.fromisoformat):
        try:
            value = parse(text.strip())
        except ValueError:
            continue
        if isinstance(value, datetime.datetime | datetime.time):
            return value.replace(tzinfo=None)
        return value
    return text
