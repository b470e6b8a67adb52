"""One field of the package: what to do with its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """Takes the spaces around texts away; what is no text stays as it is."""
    return {"values": [value.strip() if isinstance(value, str) else value for value in values]}


def validate(
    *, values: Sequence[object], field_meta: Mapping[str, Any], **_: object
) -> dict[str, list[dict[str, Any]]]:
    """Reports blank cells once the manifest says that the field is required."""
    if not field_meta.get("required"):
        return {"issues": []}
    blank = [row for row, value in enumerate(values, start=1) if value in (None, "")]
    return {"issues": [{"row_index": row, "code": "required_missing", "message": "A value is missing."} for row in blank]}
