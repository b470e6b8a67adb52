"""The header row names our fields."""

from __future__ import annotations

from collections.abc import Sequence

WORDS = {"who", "reach at", "fee paid", "boat"}


def detect_words(*, row_values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Two of the words that the form uses."""
    hits = sum(str(value).casefold() in WORDS for value in row_values_sample)
    return {"scores": {"header": 1.0 if hits >= 2 else 0.0}}
