"""What one column has to know about another: the list prices of a table, kept for the check of the dealer prices.

The manifest asks for ``in_memory`` mode, so a script sees a whole table in one call and one list per table is enough.
The invoices example does such a check in batches.
"""

from __future__ import annotations

from collections.abc import Sequence

_list_prices: dict[str, Sequence[object]] = {}


def keep_list_prices(table_id: str, prices: Sequence[object]) -> None:
    """Called by ``columns/list_price.py`` once per table."""
    _list_prices[table_id] = prices


def list_prices(table_id: str) -> Sequence[object]:
    """The list prices of a table, row by row; empty when the table has none."""
    return _list_prices.get(table_id, ())
