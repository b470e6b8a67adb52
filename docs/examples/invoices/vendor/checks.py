"""The cross-check net + tax = total, made while the columns pass by.

A script sees one column, and of a long column one batch at a time. What several columns must agree on lives here: every
transform books its amounts, and what remains of a row should be nothing. It costs eight bytes a row, in whatever order
columns and batches come.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import nan

SIGNS = {"net": 1.0, "tax": 1.0, "total": -1.0}

_balances: dict[str, array[float]] = {}
_booked: dict[str, set[str]] = {}


def book(part: str, table_id: str, row_offset: int, amounts: Sequence[object]) -> None:
    """Books one batch of the column ``part``. An amount that is missing or unreadable makes its row incomparable."""
    balance = _balances.setdefault(table_id, array("d"))
    missing = row_offset + len(amounts) - len(balance)
    if missing > 0:
        balance.extend([0.0] * missing)
    sign = SIGNS[part]
    for row, amount in enumerate(amounts, start=row_offset):
        balance[row] += sign * amount if isinstance(amount, float) else nan
    _booked.setdefault(table_id, set()).add(part)


def wrong_rows(table_id: str, row_offset: int, rows: int, tolerance: float) -> list[int]:
    """The 1-based rows of a batch that do not add up; none when the table lacks one of the three columns."""
    if _booked.get(table_id) != set(SIGNS):
        return []
    balance = _balances[table_id][row_offset : row_offset + rows]
    # Not a number is never greater than anything, so incomparable rows drop out by themselves.
    return [row for row, rest in enumerate(balance, start=1) if abs(rest) > tolerance]
