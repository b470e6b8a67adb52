"""Invoice number, kept as text: ``000417`` is not 417."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headers import names_field

SHAPE = re.compile(r"[A-Z]{1,4}[-/ ]?\d{2,}([-/]\d+)*")


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """The header names the field."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_shape(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """Letters, digits, a dash: ``RE-2025-014``. Not enough alone: cost centres and order numbers look alike."""
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum(isinstance(value, str) and SHAPE.fullmatch(value.strip().upper()) is not None for value in filled)
    return {"scores": {"self": 0.3 * hits / len(filled) if filled else 0.0}}


def transform(*, values: list[object], **_: object) -> dict[str, list[object]]:
    """Trimmed text in upper case."""
    return {"values": [str(value).strip().upper() or None if value is not None else None for value in values]}


def validate(*, values: list[object], state: dict[str, Any], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Every invoice has a number, and no number comes twice in a list: it would be paid twice.

    A long list comes in batches; ``state`` keeps what was seen in the earlier ones of the same table.
    """
    issues: list[dict[str, Any]] = []
    seen: set[object] = state.setdefault("seen", set())
    for row, value in enumerate(values, start=1):
        if value is None:
            issues.append(_issue(row, "required_missing", "The invoice number is missing."))
        elif value in seen:
            issues.append(_issue(row, "duplicate", "This invoice number is already in the list."))
        seen.add(value)
    return {"issues": issues}


def _issue(row: int, code: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": "error", "message": message}
