"""What every reader offers: a book with sheets, whose rows stream."""

from __future__ import annotations

from collections.abc import Iterator

from ade_runner.errors import JobError
from ade_runner.records import record
from ade_runner.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

Merge = tuple[int, int, int, int]
"""First row, first column, last row, last column; from 1."""

MIB = 1024 * 1024
_WAY_OUT = "Upload a workbook (xlsx, xlsm, xlsb, xls, ods) or a text table (csv, tsv)."


@record
class SheetInfo:
    """One worksheet. ``index`` counts worksheets from 1; ``visibility`` is ``visible``, ``hidden`` or ``very_hidden``."""

    index: int
    name: str
    visibility: str


@record
class ReadLimits:
    """Bounds against files made to exhaust the reader. Sizes are in bytes.

    ``max_dense_cells`` bounds the area of a sheet in the formats that are held in memory as a whole (xls, xlsb, ods).
    """

    max_parts: int = 10_000
    max_unpacked: int = 8 * 1024 * MIB
    max_ratio: int = 1_000
    ratio_applies_from: int = 100 * MIB
    max_shared_strings: int = 1024 * MIB
    max_small_part: int = 64 * MIB
    max_cell: int = 1 * MIB
    max_merges: int = 262_144
    max_sheets: int = 10_000
    max_dense_cells: int = 10_000_000


class Book(Protocol):
    """An open workbook.

    ``rows`` gives the sheet's row number (from 1) and the values from column A on, trailing empties trimmed, in ascending order,
    rows without any value left out. It may be called again, for any sheet. ``merged`` and ``error_cells`` are valid
    once ``rows`` of that sheet was exhausted. All of them raise ``JobError`` with an ``input_*`` kind.
    """

    format: str
    encoding: str | None
    delimiter: str | None
    sheets: list[SheetInfo]

    def rows(self, index: int) -> Iterator[tuple[int, list[Value]]]: ...

    def merged(self, index: int) -> list[Merge]: ...

    def error_cells(self, index: int) -> dict[str, int]: ...

    def close(self) -> None: ...


def display_name(name: str) -> str:
    """A file's name as it may stand in a message: printable and of bounded length."""
    printable = "".join(c if c.isprintable() else "?" for c in name[:200])
    return printable if len(printable) <= 100 else printable[:97] + "…"


def human_size(size: int) -> str:
    """``1048576`` → ``1 MiB``, rounded down to whole units."""
    for unit, factor in (("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if size >= factor:
            return f"{size // factor:,} {unit}"
    return f"{size} bytes"


def not_a_workbook(shown: str, what: str) -> JobError:
    """The error for a file of another kind; ``shown`` is its name, as :func:`display_name` gives it."""
    return JobError("input_not_workbook", f"{shown} is not a workbook; it looks like {what}. {_WAY_OUT}")
