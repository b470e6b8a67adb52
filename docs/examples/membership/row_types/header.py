"""The header row: most of its cells are names of our fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from header_words import fold, names_of

_known: set[str] = set()


def detect_known_names(
    *, row_values_sample: Sequence[object], manifest: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """Scores by the share of cells that name a field; one matching cell in a sentence proves nothing."""
    if not _known:
        for field_name, field_meta in manifest["columns"]["meta"].items():
            _known.update(names_of(field_name, field_meta))
    filled = [value for value in row_values_sample if value not in (None, "")]
    hits = sum(isinstance(value, str) and fold(value) in _known for value in filled)
    if hits < 3:
        return {"scores": {}}
    return {"scores": {"header": 2.0 * hits / len(filled)}}
