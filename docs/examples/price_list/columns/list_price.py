"""List price in pounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headers import names_field
from price_book import keep_list_prices
from prices import read_price, share_of_prices


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """Both price columns look alike: the name decides."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_prices(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """Supports the name; a column without prices loses even when it has the name."""
    return {"scores": {"self": 0.4 * share_of_prices(values_sample) - 0.2}}


def transform(*, values: list[object], table_id: str, **_: object) -> dict[str, list[object]]:
    """Real numbers; also kept for the check of the dealer prices."""
    prices = [read_price(value) for value in values]
    keep_list_prices(table_id, prices)
    return {"values": prices}


def validate(*, values: list[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Every article has a price; "on request" is none."""
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value is None:
            issues.append(_issue(row, "required_missing", "The list price is missing."))
        elif isinstance(value, str):
            issues.append(_issue(row, "invalid_format", "This is no price."))
    return {"issues": issues}


def _issue(row: int, code: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": "error", "message": message}
