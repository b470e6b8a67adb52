"""Reads money amounts as people write them.

==================  ==========
``1234.5``          1234.5      a real number stays one
``"1,234.50"``      1234.5
``"1.234,50 €"``    1234.5
``"EUR 1 234,50"``  1234.5      also with a no-break space
``"(250.00)"``      -250.0      an accountant's negative
``"250.00-"``       -250.0      an old mainframe's negative
``"1,234"``         1234.0      one separator before exactly three digits groups thousands
==================  ==========
"""

from __future__ import annotations

import re

CURRENCY = re.compile(r"(?:EUR|USD|GBP|€|\$|£)", re.IGNORECASE)
NUMBER = re.compile(r"\d{1,3}(?:[.,' ]\d{3})*(?:[.,]\d{1,2})?|\d+(?:[.,]\d+)?")


def read_amount(value: object) -> float | None:
    """The amount in units of its currency, rounded to cents; ``None`` when it is no amount."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return round(float(value), 2)
    text = " ".join(CURRENCY.sub("", str(value or "")).split())
    negative = text.startswith(("-", "(")) or text.endswith("-")
    text = text.strip("-() ")
    if not NUMBER.fullmatch(text):
        return None
    separators = re.findall(r"[.,]", text)
    decimals = text[-3:-2] in (".", ",") or text[-2:-1] in (".", ",")
    digits = re.sub(r"\D", "", text)
    if decimals:
        places = len(text) - 1 - max(text.rfind("."), text.rfind(","))
        amount = int(digits) / 10.0**places
    elif len(separators) == 1 and not re.fullmatch(r"\d{1,3}[.,]\d{3}", text):
        amount = float(text.replace(",", "."))
    else:
        amount = float(digits)
    return round(-amount if negative else amount, 2)


def amounts(values: list[object]) -> tuple[list[object], int]:
    """Reads a column; returns it with the number of filled cells that are no amount and were left alone."""
    out: list[object] = []
    unread = 0
    for value in values:
        amount = read_amount(value)
        if amount is None and value not in (None, ""):
            unread += 1
            out.append(value)
        else:
            out.append(amount)
    return out, unread


def share_of_amounts(sample: list[object]) -> float:
    """How much of a sample reads as money with cents, 0.0 to 1.0. Whole numbers could be anything."""
    filled = [value for value in sample if value not in (None, "")]
    if not filled:
        return 0.0
    hits = sum(
        isinstance(value, float)
        or (
            isinstance(value, str)
            and read_amount(value) is not None
            and re.search(r"[.,]\d\d(?!\d)", value) is not None
        )
        for value in filled
    )
    return hits / len(filled)
