"""Prices as the regions write them: real numbers, ``12.90``, ``£12.90``, ``12.90 / pc``, ``on request``."""

from __future__ import annotations

import re

PRICE = re.compile(r"[£€$]?\s*(\d+(?:,\d{3})*(?:\.\d{1,2})?)(?:\s*/\s*\w+)?")


def read_price(value: object) -> object:
    """A float; ``None`` for a blank; the text itself when it is no price."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return round(float(value), 2)
    text = str(value or "").strip()
    match = PRICE.fullmatch(text)
    return float(match[1].replace(",", "")) if match else text or None


def share_of_prices(sample: list[object]) -> float:
    """How much of a sample reads as a price, 0.0 to 1.0."""
    filled = [value for value in sample if value not in (None, "")]
    return sum(isinstance(read_price(value), float) for value in filled) / len(filled) if filled else 0.0
