"""The day a member joined, as a real date.

Rosters mix real dates, serial numbers of cells that lost their format, and text in several orders. Nobody can tell by
looking whether ``03/04/2021`` is in March or in April, so the package says: ``DATE_ORDER`` in the manifest's ``env``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from header_words import header_score

EXCEL_DAY_ZERO = date(1899, 12, 30)
SERIALS = range(20_000, 60_000)  # 1954 to 2064: a number in here is a day, not an amount
FORMATS = {
    "DMY": ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%d %b %Y", "%d %B %Y"),
    "MDY": ("%Y-%m-%d", "%m.%d.%Y", "%m/%d/%Y", "%b %d %Y", "%B %d %Y"),
}
LOOKS_LIKE_A_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{4}|\d\d? [A-Za-z]{3,9} \d{4}")


def detect_header(
    *, header: str | None, field_name: str, field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The header is one of the field's names."""
    return {"scores": {"self": header_score(header, field_name, field_meta)}}


def detect_shape(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Dates, or text written like one. A roster may hold other dates, so this does not decide alone."""
    filled = [value for value in values_sample if value not in (None, "")]
    if not filled:
        return {"scores": {}}
    hits = sum(
        isinstance(value, date) or LOOKS_LIKE_A_DATE.fullmatch(str(value).strip()) is not None for value in filled
    )
    return {"scores": {"self": 0.3 * hits / len(filled), "phone": -0.3 * hits / len(filled)}}


def transform(*, values: Sequence[object], job_context: Mapping[str, Any], **_: object) -> dict[str, list[Any]]:
    """Reads what it can; what it cannot read stays as it is and is reported by ``validate``."""
    formats = FORMATS[job_context["date_order"]]
    out = [_read(value, formats) for value in values]
    unread = sum(value is not None and not isinstance(value, date) for value in out)
    return {"values": out, "warnings": [f"dates that could not be read: {unread}"] if unread else []}


def validate(*, values: Sequence[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Every member joined on some day."""
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value is None:
            issues.append(_issue(row, "required_missing", "The day of joining is missing."))
        elif not isinstance(value, date):
            issues.append(_issue(row, "invalid_format", "This is no date that can be read."))
    return {"issues": issues}


def _read(value: object, formats: Sequence[str]) -> object:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, (int, float)) and int(value) in SERIALS:
        return EXCEL_DAY_ZERO + timedelta(days=int(value))
    text = str(value or "").strip()
    for pattern in formats:
        try:
            return datetime.strptime(text, pattern).date()
        except ValueError:
            continue
    return text or None


def _issue(row: int, code: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": "error", "message": message}
