"""A member row: several cells are filled, wherever it stands."""

from __future__ import annotations

from collections.abc import Sequence


def detect_filled(*, row_values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Three or more filled cells. Weaker than a header's score, so that a header still wins its own row."""
    filled = sum(value not in (None, "") for value in row_values_sample)
    return {"scores": {"data": 0.5 if filled >= 3 else 0.0}}
