"""Dealer price in pounds: never above the list price of the same row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headers import names_field
from price_book import list_prices
from prices import read_price, share_of_prices


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """Both price columns look alike: the name decides."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_prices(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """Supports the name; a column without prices loses even when it has the name."""
    return {"scores": {"self": 0.4 * share_of_prices(values_sample) - 0.2}}


def transform(*, values: list[object], **_: object) -> dict[str, list[object]]:
    """Real numbers."""
    return {"values": [read_price(value) for value in values]}


def validate(*, values: list[object], table_id: str, **_: object) -> dict[str, list[dict[str, Any]]]:
    """Compares with the other column, row by row. All transforms are done when the first validator runs."""
    return {
        "issues": [
            {
                "row_index": row,
                "code": "above_list_price",
                "severity": "error",
                "message": "Dealers would pay more than the list price.",
            }
            for row, (dealer, retail) in enumerate(zip(values, list_prices(table_id)), start=1)
            if isinstance(dealer, float) and isinstance(retail, float) and dealer > retail
        ]
    }
