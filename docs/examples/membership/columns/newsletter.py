"""Whether the member gets the newsletter: a real TRUE or FALSE, blank when nobody asked."""

from __future__ import annotations

from collections.abc import Sequence

WORDS = {
    "y": True,
    "yes": True,
    "x": True,
    "true": True,
    "1": True,
    "n": False,
    "no": False,
    "false": False,
    "0": False,
}


def transform(*, values: Sequence[object], **_: object) -> dict[str, list[object]]:
    """Reads the common words for yes and no; anything else stays as it is."""
    out: list[object] = []
    for value in values:
        word = str(value if value is not None else "").strip()
        out.append(WORDS.get(word.casefold(), word or None))
    return {"values": out, "warnings": []}
