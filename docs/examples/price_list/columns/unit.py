"""Sales unit: piece, box, metre or litre, in its short form."""

from __future__ import annotations

from collections.abc import Sequence

from headers import fold

SHORT = {
    **dict.fromkeys(("pc", "pcs", "piece", "pieces", "each", "ea"), "pc"),
    **dict.fromkeys(("box", "boxes", "bx"), "box"),
    **dict.fromkeys(("m", "metre", "metres", "meter"), "m"),
    **dict.fromkeys(("l", "litre", "litres", "liter"), "l"),
}


def detect_units(header: str | None, values_sample: Sequence[object]) -> dict[str, dict[str, float]]:
    """Header or values: either is enough. Only what a detector uses has to be declared."""
    filled = [fold(value) for value in values_sample if value not in (None, "")]
    share = sum(value in SHORT for value in filled) / len(filled) if filled else 0.0
    return {"scores": {"self": 0.6 if fold(header) in {"unit", "uom", "per"} else 0.6 * share}}


def transform(*, values: list[object], **_: object) -> dict[str, list[object]]:
    """Known spellings become the short form; others stay."""
    return {"values": [SHORT.get(fold(value), value) for value in values]}
