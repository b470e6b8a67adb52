"""The cross-check net + tax = total, made while the columns pass by.

A script sees one column. What several columns must agree on lives here: each transform hands over its part, and as
soon as all three parts of a batch are in, the rows that do not add up are noted and the amounts are let go, so that
memory does not grow with the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence

PARTS = ("net", "tax", "total")

_waiting: dict[tuple[str, int], dict[str, Sequence[object]]] = {}
_wrong: dict[tuple[str, int], list[int]] = {}


def hand_over(part: str, table_id: str, row_offset: int, amounts: Sequence[object], tolerance: float) -> None:
    """Takes one column of one batch. Rows where an amount is missing or unreadable are not compared."""
    key = (table_id, row_offset)
    if key not in _waiting:
        # Another batch begins: what an earlier one still waited for will never come.
        _waiting.clear()
    parts = _waiting.setdefault(key, {})
    parts[part] = amounts
    if len(parts) == len(PARTS):
        _wrong[key] = [
            row
            for row, (net, tax, total) in enumerate(zip(*(parts[name] for name in PARTS)), start=1)
            if isinstance(net, float)
            and isinstance(tax, float)
            and isinstance(total, float)
            and abs(net + tax - total) > tolerance
        ]
        del _waiting[key]


def wrong_rows(table_id: str, row_offset: int) -> list[int]:
    """The 1-based rows of a batch that do not add up."""
    return _wrong.get((table_id, row_offset), [])
