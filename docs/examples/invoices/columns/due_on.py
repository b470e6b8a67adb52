"""The day by which the invoice is to be paid. Optional: some suppliers state terms instead."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from dates import read_date, share_of_dates
from headers import names_field


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """Two date columns stand side by side: the name decides between them."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_dates(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """Supports the name; a column without dates loses even when it has the name."""
    return {"scores": {"self": 0.4 * share_of_dates(values_sample) - 0.2}}


def transform(*, values: list[object], **_: object) -> dict[str, list[Any]]:
    """Real dates; unreadable text stays and is reported by ``validate``."""
    out = [read_date(value) for value in values]
    unread = sum(isinstance(value, str) for value in out)
    return {"values": out, "warnings": [f"dates that could not be read: {unread}"] if unread else []}


def validate(*, values: list[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """What is there must be a date ("30 days net" is none)."""
    return {
        "issues": [
            {
                "row_index": row,
                "code": "invalid_format",
                "severity": "warning",
                "message": "This is no date that can be read.",
            }
            for row, value in enumerate(values, start=1)
            if value is not None and not isinstance(value, date)
        ]
    }
