"""E-mail address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """The header is the label of this field, or one of its synonyms."""
    names = {str(name).casefold() for name in (field_meta["label"], *field_meta["synonyms"])}
    return {"scores": {"self": 0.6 if (header or "").strip().casefold() in names else 0.0}}


def detect_at_sign(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """The more of the first values have an @, the likelier it is this column."""
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum("@" in str(value) for value in filled)
    return {"scores": {"self": 0.6 * hits / len(filled) if filled else 0.0}}


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """Addresses in lower case, without spaces around them; what is no text stays as it is."""
    return {"values": [value.strip().lower() if isinstance(value, str) else value for value in values]}


def validate(*, values: Sequence[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Says which cells are no address. Never put the value itself into a message: messages are kept."""
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value in (None, ""):
            issues.append({"row_index": row, "code": "required_missing", "message": "The address is missing."})
        elif "@" not in str(value):
            issues.append({"row_index": row, "code": "invalid_format", "message": "This is no e-mail address."})
    return {"issues": issues}
