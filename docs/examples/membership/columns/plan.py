"""Membership plan: one of the values that the manifest lists under ``allowed``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from header_words import fold, header_score


def detect_header(
    *, header: str | None, field_name: str, field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """The header is one of the field's names."""
    return {"scores": {"self": header_score(header, field_name, field_meta)}}


def detect_known_plans(
    *, values_sample: Sequence[object], field_meta: Mapping[str, Any], **_: object
) -> dict[str, dict[str, float]]:
    """Most values begin like an allowed plan."""
    known = _by_initial(field_meta)
    filled = [fold(value) for value in values_sample if value not in (None, "")]
    if not filled:
        return {"scores": {}}
    hits = sum(_plan(value, known) is not None for value in filled if len(value) > 1)
    return {"scores": {"self": 0.6 * hits / len(filled)}}


def transform(*, values: Sequence[object], field_meta: Mapping[str, Any], **_: object) -> dict[str, list[object]]:
    """``family``, ``FAMILY`` and the initial ``F`` all become ``Family``."""
    known = _by_initial(field_meta)
    out: list[object] = []
    for value in values:
        text = str(value or "").strip()
        out.append(_plan(fold(text), known) or text or None)
    return {"values": out, "warnings": []}


def validate(
    *, values: Sequence[object], field_meta: Mapping[str, Any], **_: object
) -> dict[str, list[dict[str, Any]]]:
    """A plan that is not on the list is worth a look, but no reason to refuse the member."""
    allowed = set(field_meta.get("allowed") or ())
    return {
        "issues": [
            {
                "row_index": row,
                "code": "not_allowed",
                "severity": "warning",
                "message": "This plan is not on the list.",
            }
            for row, value in enumerate(values, start=1)
            if value is not None and value not in allowed
        ]
    }


def _by_initial(field_meta: Mapping[str, Any]) -> dict[str, str]:
    return {plan[0].casefold(): plan for plan in field_meta.get("allowed") or ()}


def _plan(folded: str, known: Mapping[str, str]) -> str | None:
    plan = known.get(folded[:1])
    return plan if plan is not None and folded in (folded[:1], plan.casefold()) else None
