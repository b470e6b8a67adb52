"""Compares header texts: case, spaces and punctuation do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fold(text: object) -> str:
    """``"Inv. No:"`` and ``"inv no"`` fold to the same word."""
    return "".join(letter for letter in str(text or "").casefold() if letter.isalnum())


def names_field(header: object, field_meta: Mapping[str, Any]) -> bool:
    """Whether the header is the field's label or one of its synonyms."""
    names = {fold(field_meta.get("label")), *(fold(synonym) for synonym in field_meta.get("synonyms") or ())}
    return fold(header) in names - {""}
