"""The amount before tax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amounts import amounts, share_of_amounts
from checks import book
from headers import names_field


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """Amount columns all look alike: the name decides."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_amounts(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """Supports the name; a column without amounts loses even when it has the name."""
    return {"scores": {"self": 0.4 * share_of_amounts(values_sample) - 0.2}}


def transform(*, values: list[object], table_id: str, row_offset: int, **_: object) -> dict[str, list[Any]]:
    """Real numbers, rounded to cents."""
    out, unread = amounts(values)
    book("net", table_id, row_offset, out)
    return {"values": out, "warnings": [f"amounts that could not be read: {unread}"] if unread else []}


def validate(*, values: list[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """What is left as text is no amount."""
    return {
        "issues": [
            {"row_index": row, "code": "invalid_format", "severity": "error", "message": "This is no amount."}
            for row, value in enumerate(values, start=1)
            if isinstance(value, str)
        ]
    }
