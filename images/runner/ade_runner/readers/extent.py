"""The rectangle a sheet's values span: what a reader that holds a sheet densely must allocate."""

from __future__ import annotations


class Extent:
    """Grows with every cell that is included; rows and columns from 0."""

    def __init__(self) -> None:
        self.first_row = self.first_column = 1 << 31
        self.last_row = self.last_column = -1

    def include(self, row: int, column: int) -> bool:
        """True when the rectangle had to grow."""
        grew = False
        if row > self.last_row:
            self.last_row, grew = row, True
        if row < self.first_row:
            self.first_row, grew = row, True
        if column > self.last_column:
            self.last_column, grew = column, True
        if column < self.first_column:
            self.first_column, grew = column, True
        return grew

    @property
    def cells(self) -> int:
        if self.last_row < 0:
            return 0
        return (self.last_row - self.first_row + 1) * (self.last_column - self.first_column + 1)
