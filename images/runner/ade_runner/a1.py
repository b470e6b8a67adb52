"""A1 notation. Rows and columns count from 1."""

from __future__ import annotations

from functools import cache

MAX_ROWS = 1_048_576
"""Rows of a worksheet; from Excel's specifications and limits."""

MAX_COLUMNS = 16_384
"""Columns of a worksheet (XFD); from Excel's specifications and limits."""


@cache
def column_letters(column: int) -> str:
    """``1`` → ``A``, ``27`` → ``AA``. Raises ValueError below 1 and past XFD."""
    if not 1 <= column <= MAX_COLUMNS:
        raise ValueError(f"a worksheet has columns 1 to {MAX_COLUMNS:,}, not {column}")
    letters = ""
    while column:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters


def cell(row: int, column: int) -> str:
    """``(4, 2)`` → ``B4``."""
    return f"{column_letters(column)}{row}"


def range_(first_row: int, first_column: int, last_row: int, last_column: int) -> str:
    """``(4, 2, 159, 7)`` → ``B4:G159``; one single cell is still written as a range, ``B4:B4``."""
    return f"{cell(first_row, first_column)}:{cell(last_row, last_column)}"


def parse_cell(reference: str) -> tuple[int, int]:
    """``B4`` → ``(4, 2)``; ``$`` signs and lower case are understood. Raises ValueError outside of a worksheet."""
    plain = reference.replace("$", "").upper()
    letters = plain.rstrip("0123456789")
    digits = plain[len(letters) :]
    if not (1 <= len(letters) <= 3 and letters.isascii() and letters.isalpha() and 1 <= len(digits) <= 7):
        raise ValueError("not a cell reference")
    column = 0
    for letter in letters:
        column = column * 26 + ord(letter) - ord("A") + 1
    row = int(digits)
    if not (1 <= row <= MAX_ROWS and column <= MAX_COLUMNS):
        raise ValueError("outside of a worksheet")
    return row, column


def parse_range(reference: str) -> tuple[int, int, int, int]:
    """``B4:G159`` → ``(4, 2, 159, 7)``, corners in order; a single cell is a range of one. Raises ValueError."""
    first, _, last = reference.partition(":")
    row_1, column_1 = parse_cell(first)
    row_2, column_2 = parse_cell(last or first)
    return min(row_1, row_2), min(column_1, column_2), max(row_1, row_2), max(column_1, column_2)
