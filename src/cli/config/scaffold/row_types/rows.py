"""Which rows are the header, and which are neither header nor data. A row that nothing scores is data.

Without any file in ``row_types`` ADE tells rows apart by itself; with one, it is these functions alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def detect_header(
    *, row_values_sample: Sequence[object], manifest: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """At least two cells name a field: by its label, or by a synonym."""
    names = {
        str(name).casefold()
        for meta in manifest["columns"]["meta"].values()
        for name in (meta["label"], *meta.get("synonyms", []))
    }
    hits = sum(isinstance(value, str) and value.strip().casefold() in names for value in row_values_sample)
    return {"scores": {"header": 1.0 if hits >= 2 else 0.0}}


def detect_other(
    *, row_values_sample: Sequence[object], table_hint: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """Totals, and titles: a single text that stands apart from the table."""
    filled = [value for value in row_values_sample if value not in (None, "")]
    is_title = len(filled) == 1 and not table_hint["in_table"]
    is_total = bool(filled) and str(filled[0]).strip().casefold().startswith("total")
    return {"scores": {"separator": 1.0 if is_title or is_total else 0.0}}
