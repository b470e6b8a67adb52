"""Phone number: a leading ``+`` where there was one, digits, and single spaces between groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from header_words import header_score

SHAPE = re.compile(r"\+?[\d\s()./\-]{7,20}")


def detect_header(
    *, header: str | None, field_name: str, field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The header is one of the field's names."""
    return {"scores": {"self": header_score(header, field_name, field_meta)}}


def detect_shape(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Digits with phone punctuation. Weak on its own: dates and numbers look alike."""
    filled = [value for value in values_sample if isinstance(value, str) and value.strip()]
    if not filled:
        return {"scores": {}}
    hits = sum(SHAPE.fullmatch(value.strip()) is not None for value in filled)
    return {"scores": {"self": 0.3 * hits / len(filled)}}


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """``+44 (0)20-7946 0123`` becomes ``+44 20 7946 0123``."""
    return {"values": [_tidy(value) for value in values], "warnings": []}


def _tidy(value: object) -> object:
    if value is None:
        return None
    text = str(value).strip()
    plus = "+" if text.startswith("+") else ""
    if plus:
        text = text.replace("(0)", " ")
    groups = re.findall(r"\d+", text)
    return plus + " ".join(groups) if groups else None
