"""Stock keeping unit: two letters, a dash, five digits; unique within each region's list.

The detectors show the other way to declare what a script needs: by position. Whatever names stand in the signature are
filled in, in any order; ``**_`` is only needed by scripts that take everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from headers import fold

CANONICAL = re.compile(r"[A-Z]{2}-\d{5}")
AS_WRITTEN = re.compile(r"([A-Za-z]{2})[\s\-]?(\d{5})")
NAMES = {"sku", "article", "articleno", "itemcode"}


def detect_header(
    header: str | None,
    values_sample: Sequence[object],
    column_index: int,
    table: Mapping[str, Any],
    job_context: Mapping[str, Any],
    env: Mapping[str, str],
) -> dict[str, dict[str, float]]:
    """The header names the field."""
    return {"scores": {"self": 0.6 if fold(header) in NAMES else 0.0}}


def detect_shape(
    header: str | None,
    values_sample: Sequence[object],
    column_index: int,
    table: Mapping[str, Any],
    job_context: Mapping[str, Any],
    env: Mapping[str, str],
) -> dict[str, dict[str, float]]:
    """Most values read as a SKU; a little more when the column comes first, as it does in every list we know."""
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum(isinstance(value, str) and AS_WRITTEN.fullmatch(value.strip()) is not None for value in filled)
    share = hits / len(filled) if filled else 0.0
    return {"scores": {"self": 0.6 * share + (0.1 if share and column_index == 1 else 0.0)}}


def transform(*, values: list[object], **_: object) -> dict[str, list[object]]:
    """``ab12345`` and ``AB 12345`` become ``AB-12345``."""
    out: list[object] = []
    for value in values:
        text = str(value or "").strip()
        match = AS_WRITTEN.fullmatch(text)
        out.append(f"{match[1].upper()}-{match[2]}" if match else text or None)
    return {"values": out}


def validate(*, values: list[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """Sees the whole table (``in_memory``), so that a repeated SKU is found however far apart its rows are."""
    rows_of: dict[object, list[int]] = {}
    issues: list[dict[str, Any]] = []
    for row, value in enumerate(values, start=1):
        if value is None:
            issues.append(_issue(row, "required_missing", "A price without a SKU cannot be used."))
        elif not CANONICAL.fullmatch(str(value)):
            issues.append(_issue(row, "pattern_mismatch", "A SKU is two letters, a dash and five digits."))
        else:
            rows_of.setdefault(value, []).append(row)
    for rows in rows_of.values():
        if len(rows) > 1:
            # Nobody can tell which of the prices counts, so every one of the rows is reported.
            message = f"This SKU is in {len(rows)} rows of the list."
            issues.extend(_issue(row, "duplicate", message) for row in rows)
    return {"issues": sorted(issues, key=lambda issue: issue["row_index"])}


def _issue(row: int, code: str, message: str) -> dict[str, Any]:
    return {"row_index": row, "code": code, "severity": "error", "message": message}
