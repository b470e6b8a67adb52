"""Rows of the form that are no sign-up."""

from __future__ import annotations

from collections.abc import Sequence


def detect_total_or_example(*, row_values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """The totals line, the "e.g." line that shows how to fill in the form, and lines with a single text."""
    filled = [value for value in row_values_sample if value not in (None, "")]
    first = str(filled[0]).casefold()
    is_other = len(filled) == 1 or first.startswith(("total", "e.g."))
    return {"scores": {"separator": 1.0 if is_other else 0.0}}
