"""Fee in pounds."""

from __future__ import annotations

from collections.abc import Sequence


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """``"£ 17.50"`` becomes the number 17.5; what is no number stays as it is."""
    return {"values": [_read(value) for value in values]}


def _read(value: object) -> object:
    try:
        return float(str(value).replace("£", "").strip())
    except ValueError:
        return value
