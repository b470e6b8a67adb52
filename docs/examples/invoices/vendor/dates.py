"""Reads the dates of invoices: real ones, ISO, and day-first text."""

from __future__ import annotations

from datetime import date, datetime

FORMATS = ("%Y-%m-%d", "%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%d %B %Y", "%d %b %Y", "%B %d, %Y")


def read_date(value: object) -> object:
    """A ``date``; ``None`` for a blank; the value itself when it cannot be read."""
    if isinstance(value, datetime):
        return value.date()
    if value is None or isinstance(value, date):
        return value
    text = str(value).strip()
    for pattern in FORMATS:
        try:
            return datetime.strptime(text, pattern).date()
        except ValueError:
            continue
    return text or None


def share_of_dates(sample: list[object]) -> float:
    """How much of a sample reads as a date, 0.0 to 1.0."""
    filled = [value for value in sample if value not in (None, "")]
    return sum(isinstance(read_date(value), date) for value in filled) / len(filled) if filled else 0.0
