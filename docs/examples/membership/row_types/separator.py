"""Rows that are neither header nor member: titles above, totals and remarks below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TOTALS = ("total", "sum", "count")


def detect_total(*, row_values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """The first filled cell begins with a word for a total, and little else is filled."""
    filled = [value for value in row_values_sample if value not in (None, "")]
    is_total = 1 <= len(filled) <= 3 and str(filled[0]).strip().casefold().startswith(TOTALS)
    return {"scores": {"separator": 1.0 if is_total else 0.0}}


def detect_remark(
    *, row_values_sample: Sequence[object], table_hint: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """A single text in a row that stands apart. Right below a member it is a member of whom little is known."""
    filled = [value for value in row_values_sample if value not in (None, "")]
    is_remark = len(filled) == 1 and isinstance(filled[0], str) and not table_hint["in_table"]
    return {"scores": {"separator": 0.6 if is_remark else 0.0}}
