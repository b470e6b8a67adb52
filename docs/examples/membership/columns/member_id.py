"""Member ID: ``M-`` and four digits, unique within a roster.

Offices write ``M-0042`` as ``m 42``, ``M0042``, ``0042`` or the bare number 42.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from header_words import header_score

CANONICAL = re.compile(r"M-\d{4}")
AS_WRITTEN = re.compile(r"m?[\s.\-]*(\d{1,4})", re.IGNORECASE)
WITH_LETTER = re.compile(r"m[\s.\-]*\d{1,4}", re.IGNORECASE)


def detect_header(
    *, header: str | None, field_name: str, field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The header is one of the field's names."""
    return {"scores": {"self": header_score(header, field_name, field_meta)}}


def detect_shape(*, values_sample: Sequence[object], **_: object) -> dict[str, dict[str, float]]:
    """Most values are an M and up to four digits. Bare numbers could be anything, so they score nothing."""
    filled = [value for value in values_sample if value not in (None, "")]
    if not filled:
        return {"scores": {}}
    hits = sum(isinstance(value, str) and WITH_LETTER.fullmatch(value.strip()) is not None for value in filled)
    return {"scores": {"self": 0.6 * hits / len(filled)}}


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[Any]]:
    """Writes every recognizable id as ``M-0042``; leaves the rest for ``validate`` to report."""
    unreadable = 0
    out: list[object] = []
    for value in values:
        text = str(value).strip() if isinstance(value, (str, int)) else ""
        match = AS_WRITTEN.fullmatch(text)
        if match:
            out.append(f"M-{int(match[1]):04d}")
        else:
            out.append(text or None)
            unreadable += text != ""
    warnings = [f"ids that could not be read: {unreadable}"] if unreadable else []
    return {"values": out, "warnings": warnings}


def validate(
    *, values: Sequence[object], row_offset: int, state: dict[str, Any], **_: object
) -> dict[str, list[dict[str, Any]]]:
    """Missing, malformed and repeated ids. The first holder of an id is right; the later ones are reported.

    A table of more than 50,000 rows comes in batches: ``row_offset`` rows came before, ``state`` keeps what was seen.
    """
    issues: list[dict[str, Any]] = []
    first_seen: dict[object, int] = state.setdefault("first_seen", {})
    for row, value in enumerate(values, start=1):
        if value in (None, ""):
            issues.append(_issue(row, "required_missing", "Every member needs an ID."))
        elif not (isinstance(value, str) and CANONICAL.fullmatch(value)):
            issues.append(_issue(row, "pattern_mismatch", "An ID is M- and four digits."))
        elif first_seen.setdefault(value, row_offset + row) != row_offset + row:
            issues.append(_issue(row, "duplicate", f"The same ID is on row {first_seen[value]} of this table."))
    return {"issues": issues}


def _issue(row: int, code: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": "error", "message": message}
