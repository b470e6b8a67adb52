"""E-mail address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from header_words import header_score

ADDRESS = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")


def detect_header(
    *, header: str | None, field_name: str, field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The header is one of the field's names."""
    return {"scores": {"self": header_score(header, field_name, field_meta)}}


def detect_shape(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Values with an @ are addresses, whatever the header says ("Contact" is a common one)."""
    filled = [value for value in values_sample if value not in (None, "")]
    if not filled:
        return {"scores": {}}
    share = sum("@" in str(value) for value in filled) / len(filled)
    # An address column is never a phone column: say so, in case its header says "Mobile / mail".
    return {"scores": {"self": 0.7 * share, "phone": -0.7 * share}}


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """Lower case, without the spaces and ``mailto:`` that copying leaves behind."""
    out: list[object] = []
    for value in values:
        text = str(value or "").strip().lower()
        out.append(text.removeprefix("mailto:") or None)
    return {"values": out, "warnings": []}


def validate(*, values: Sequence[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """An address is optional; one that is there must look like one."""
    return {
        "issues": [
            {
                "row_index": row,
                "code": "invalid_format",
                "severity": "error",
                "message": "This is no e-mail address.",
            }
            for row, value in enumerate(values, start=1)
            if value is not None and not ADDRESS.fullmatch(str(value))
        ]
    }
