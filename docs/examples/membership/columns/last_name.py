"""Last name. Found by its header alone: names have no shape of their own."""

from __future__ import annotations

from collections.abc import Sequence


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """Trims, joins inner spaces, and calms names that were TYPED IN CAPITALS."""
    return {"values": [_tidy(value) for value in values], "warnings": []}


def _tidy(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())
    return (text.title() if text.isupper() else text) or None
