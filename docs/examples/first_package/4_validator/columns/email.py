"""E-mail address of a participant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """The header is the label or a synonym of this field."""
    names = {str(name).casefold() for name in (field_meta["label"], *field_meta["synonyms"])}
    return {"scores": {"self": 0.6 if (header or "").casefold() in names else 0.0}}


def detect_at_sign(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Most of the first values have an @."""
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum("@" in str(value) for value in filled)
    return {"scores": {"self": 0.7 * hits / len(filled) if filled else 0.0}}


def validate(*, values: Sequence[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Everybody needs an address, or the confirmation goes nowhere."""
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value in (None, ""):
            issues.append({"row_index": row, "code": "required_missing", "message": "The address is missing."})
        elif "@" not in str(value):
            issues.append({"row_index": row, "code": "invalid_format", "message": "This is no e-mail address."})
    return {"issues": issues}
