"""ISO 4217 code of the amounts; a blank means the default currency of the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headers import names_field

SIGNS = {"€": "EUR", "$": "USD", "US$": "USD", "£": "GBP"}


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """The header names the field."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_codes(
    *, values_sample: list[object], field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """Codes and signs that we know, whatever the header says."""
    allowed = set(field_meta.get("allowed") or ())
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum(_code(value) in allowed for value in filled)
    return {"scores": {"self": 0.6 * hits / len(filled) if filled else 0.0}}


def transform(*, values: list[object], job_context: Mapping[str, Any], **_: object) -> dict[str, list[object]]:
    """Signs become codes, blanks become the default that ``hooks/on_job_start.py`` read from the settings."""
    return {"values": [_code(value) or job_context["default_currency"] for value in values]}


def validate(*, values: list[object], field_meta: Mapping[str, Any], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Only the currencies that the manifest allows."""
    allowed = set(field_meta.get("allowed") or ())
    return {
        "issues": [
            {
                "row_index": row,
                "code": "not_allowed",
                "severity": "error",
                "message": "This currency is not on the list.",
            }
            for row, value in enumerate(values, start=1)
            if value not in allowed
        ]
    }


def _code(value: object) -> str:
    text = str(value or "").strip().upper()
    return SIGNS.get(text, text)
