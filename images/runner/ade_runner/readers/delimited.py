"""Reads csv and tsv: finds encoding and delimiter, then streams. Every cell is text: nothing is guessed from its looks."""

from __future__ import annotations

import codecs
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator

import _csv as csv  # the module around it has dialects and a sniffer, which nothing here needs

from ade_runner.a1 import MAX_COLUMNS
from ade_runner.errors import JobError
from ade_runner.readers.book import Merge, ReadLimits, SheetInfo, display_name, human_size
from ade_runner.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

# The mark of UTF-32 begins with that of UTF-16, so it comes first.
_MARKED = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BYTE_ORDER_MARKS = tuple(mark for mark, _ in _MARKED)

_BLOCK = 1024 * 1024
_NOT_IN_CP1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n|$)', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SNIFFED_RECORDS = 200
# When two delimiters fit equally well, the one that is rarer inside of values wins: a comma may be a decimal comma.
_DELIMITERS = ("\t", ";", "|", ",")
_FALLBACK = ","


class DelimitedBook:
    """One text table as a book with one sheet, named after the file. ``head`` is the file's beginning."""

    def __init__(self, path: str, name: str, head: bytes, limits: ReadLimits) -> None:
        self._path = path
        self._name = display_name(name)
        self._limits = limits
        self.encoding: str | None = find_encoding(path, self._name)
        text = _decode_head(head, self.encoding, complete=os.path.getsize(path) <= len(head))
        separator = _SEPARATOR_LINE.match(text)
        self._skip = len(separator[0]) if separator else 0
        self._delimiter = separator[1] if separator else sniff_delimiter(text, limits.max_cell)
        self.delimiter: str | None = self._delimiter
        self.format = "tsv" if self._delimiter == "\t" else "csv"
        self.sheets = [SheetInfo(1, _stem(self._name) or "Sheet1", "visible")]

    def rows(self, index: int) -> Iterator[tuple[int, list[Value]]]:
        with open(self._path, encoding=self.encoding, newline="") as file:
            file.read(self._skip)
            # A process-wide setting of the csv module; set anew for whoever changed it in between.
            csv.field_size_limit(self._limits.max_cell)
            reader = csv.reader(self._lines(file), delimiter=self._delimiter)
            number = 0
            while True:
                try:
                    record = next(reader, None)
                except csv.Error as error:
                    raise self._too_large(reader.line_num) from error
                except UnicodeError as error:
                    raise _bad_encoding(self._name, f"it is not valid {self.encoding}") from error
                if record is None:
                    return
                number += 1
                while record and not record[-1]:
                    record.pop()
                if len(record) > MAX_COLUMNS:
                    raise JobError(
                        "input_too_wide",
                        f"{self._name} has {len(record):,} columns in row {number:,}; the limit is {MAX_COLUMNS:,}."
                        " Check the delimiter or remove columns.",
                    )
                if record:
                    yield number, [field or None for field in record]

    def _lines(self, file: TextIO) -> Iterator[str]:
        """Lines of bounded length; a line may hold a whole row of fields."""
        longest = self._limits.max_cell * 16
        while line := file.readline(longest):
            if len(line) == longest and line[-1] not in "\r\n":
                raise JobError(
                    "input_cell_too_large",
                    f"{self._name} has a line of more than {longest:,} characters; check its line ends.",
                )
            if "\0" in line:
                raise _bad_encoding(self._name, "it has NUL characters")
            yield line

    def _too_large(self, line: int) -> JobError:
        return JobError(
            "input_cell_too_large",
            f"{self._name} has a field of more than {human_size(self._limits.max_cell)} that ends or breaks off at line"
            f" {line:,}; perhaps a quotation mark is never closed.",
        )

    def merged(self, index: int) -> list[Merge]:
        return []

    def error_cells(self, index: int) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing stays open between calls."""


def _stem(name: str) -> str:
    """A file's name without its folder and its ending."""
    return posixpath.splitext(posixpath.basename(name.rstrip("/")))[0]


def find_encoding(path: str, shown: str) -> str:
    """The encoding the whole file is valid in: by its byte order mark, else UTF-8, else Windows-1252 (``cp1252``).

    Raises ``input_bad_encoding``. Reads the file once, so that a late byte changes the answer for every row, not for some.
    """
    with open(path, "rb") as file:
        head = file.read(4)
        for mark, encoding in _MARKED:
            if head.startswith(mark):
                if not _decodes(path, encoding):
                    raise _bad_encoding(shown, f"it starts as {encoding} but is not valid {encoding}")
                return encoding
        file.seek(0)
        nul = undefined = False
        while block := file.read(_BLOCK):
            nul = nul or b"\0" in block
            undefined = undefined or _NOT_IN_CP1252.search(block) is not None
    if nul:
        raise _bad_encoding(shown, "it has NUL bytes, as UTF-16 without a byte order mark does")
    if _decodes(path, "utf-8"):
        return "utf-8"
    if undefined:
        raise _bad_encoding(shown, "it is neither valid UTF-8 nor Windows-1252")
    return "cp1252"


def _decodes(path: str, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeError:
        return False
    return True


def _bad_encoding(shown: str, why: str) -> JobError:
    return JobError(
        "input_bad_encoding", f"The text in {shown} cannot be decoded: {why}. Save it as UTF-8 and upload it again."
    )


def _decode_head(head: bytes, encoding: str, complete: bool) -> str:
    """The file's first lines, without the one that the end of ``head`` cuts."""
    text = codecs.getincrementaldecoder(encoding)().decode(head, final=False)
    if complete:
        return text
    end = max(text.rfind("\n"), text.rfind("\r"))
    return text[: end + 1] if end >= 0 else text


def sniff_delimiter(text: str, max_cell: int) -> str:
    """The delimiter under which most records have the same number of fields, more than one; a comma when none does."""
    best, best_score = _FALLBACK, 0.0
    for delimiter in _DELIMITERS:
        widths, clean = _widths(text, delimiter, max_cell)
        if not widths:
            continue
        # The most frequent width wins; a file where few rows are split at all is not split by this delimiter.
        split = Counter(width for width in widths if width > 1)
        if not split:
            continue
        width, count = max(split.items(), key=lambda item: (item[1], item[0]))
        score = round(count / len(widths), 1) * (1 if clean else 0.5)
        if score > best_score:
            best, best_score = delimiter, score
    return best


def _widths(text: str, delimiter: str, max_cell: int) -> tuple[list[int], bool]:
    """The number of fields of each record, and whether every quoted field ended at this delimiter."""
    csv.field_size_limit(max_cell)
    widths: list[int] = []
    for strict in (True, False):
        widths.clear()
        try:
            for record in csv.reader(_text_lines(text), delimiter=delimiter, strict=strict):
                if any(record):
                    widths.append(len(record))
                if len(widths) >= _SNIFFED_RECORDS:
                    break
            return widths, strict
        except csv.Error:
            pass  # not strictly this delimiter's; or a field past the limit, and what was counted so far still tells
    return widths, False


def _text_lines(text: str) -> Iterator[str]:
    """Lines as a file opened with ``newline=""`` gives them; ``str.splitlines`` knows more line ends than csv does."""
    return (match[0] for match in _LINE.finditer(text))
