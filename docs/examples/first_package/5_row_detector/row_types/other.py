"""Rows of the form that are no sign-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def detect_other(
    *, row_values_sample: Sequence[object], table_hint: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The totals line, the "e.g." line that shows how to fill in the form, and titles.

    A title is a single text that stands apart; a single text right below a participant may be another participant.
    """
    filled = [value for value in row_values_sample if value not in (None, "")]
    is_title = len(filled) == 1 and not table_hint["in_table"]
    is_other = is_title or str(filled[0]).casefold().startswith(("total", "e.g."))
    return {"scores": {"separator": 1.0 if is_other else 0.0}}
