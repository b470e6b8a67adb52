"""Tables as the passes see them: names and numbers in memory, values in a column store on disk."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

from .records import fresh, record
from .scripts import read_only
from .spill import Spill
from .values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@record
class Piece:
    """A run of a column's values: one column of one batch of a store."""

    spill: Spill
    batch: int
    column: int


class Stored:
    """A column's values, in pieces, read by range."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._ends: list[int] = []

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._ends.append(len(self) + piece.spill.height(piece.batch))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, stop: int) -> list[Value]:
        """Values ``start`` (0-based) up to ``stop``; a new list that the caller may change."""
        found: list[Value] = []
        at = bisect_right(self._ends, start)
        while at < len(self._pieces):
            piece, end = self._pieces[at], self._ends[at]
            first = end - piece.spill.height(piece.batch)
            if first >= stop:
                break
            values = piece.spill.column(piece.batch, piece.column)
            if start > first or stop < end:
                values = values[max(0, start - first) : stop - first]
            if not found:
                found = values
            else:
                found.extend(values)
            at += 1
        return found


@record
class TableColumn:
    """One column. ``sheet_column`` is its 1-based place in the sheet."""

    id: str
    header: str | None
    sheet_column: int
    values: Stored
    sample: list[Value] = fresh(list)
    target: str | None = None
    """The field it is mapped to."""


@record
class Table:
    """One table of one sheet, with unique ids in the job."""

    id: str
    sheet_id: str
    sheet_name: str
    source_file: str
    header_kind: str
    header_row: int | None
    first_data_row: int | None
    last_row: int
    row_count: int
    columns: list[TableColumn]
    rows: Stored
    """The sheet row of every data row."""
    entry: dict[str, Any] = fresh(dict)
    """Its object in the artifact."""

    @cached_property
    def view(self) -> dict[str, Any]:
        """What scripts get as ``table``, read-only."""
        view: dict[str, Any] = read_only(
            {
                "id": self.id,
                "sheet_id": self.sheet_id,
                "header_row": self.header_row,
                "data_row_start": self.first_data_row,
                "row_count": self.row_count,
                "column_count": len(self.columns),
            }
        )
        return view

    def batches(self, size: int) -> Iterator[tuple[int, int]]:
        """``(start, stop)`` of every batch of at most ``size`` rows; a table without rows has none."""
        for start in range(0, self.row_count, size):
            yield start, min(start + size, self.row_count)

    def column_of(self, field_id: str) -> int | None:
        """The 0-based column mapped to a field."""
        for index, column in enumerate(self.columns):
            if column.target == field_id:
                return index
        return None
