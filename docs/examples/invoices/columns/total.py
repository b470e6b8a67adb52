"""The amount to pay: net and tax together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amounts import amounts, share_of_amounts
from checks import book, wrong_rows
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
    book("total", table_id, row_offset, out)
    return {"values": out, "warnings": [f"amounts that could not be read: {unread}"] if unread else []}


def validate(
    *, values: list[object], table_id: str, row_offset: int, job_context: Mapping[str, Any], **_: object
) -> dict[str, list[dict[str, Any]]]:
    """A total must be there, be an amount, and be the sum of net and tax."""
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value is None:
            issues.append(_issue(row, "required_missing", "error", "The total is missing."))
        elif isinstance(value, str):
            issues.append(_issue(row, "invalid_format", "error", "This is no amount."))
    for row in wrong_rows(table_id, row_offset, len(values), job_context["tolerance"]):
        issues.append(_issue(row, "total_mismatch", "warning", "Net and tax do not add up to the total."))
    return {"issues": issues}


def _issue(row: int, code: str, severity: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": severity, "message": message}
