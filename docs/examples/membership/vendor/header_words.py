"""Compares header texts the way a person does: case, spaces and punctuation do not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def fold(text: object) -> str:
    """``"E-Mail  address:"`` and ``"email address"`` fold to the same word."""
    return "".join(letter for letter in str(text or "").casefold() if letter.isalnum())


def names_of(field_name: str, field_meta: Mapping[str, Any]) -> set[str]:
    """Every folded name under which a field is known: its id, its label and its synonyms."""
    names = {fold(field_name), fold(field_meta.get("label"))}
    names.update(fold(synonym) for synonym in field_meta.get("synonyms") or ())
    names.discard("")
    return names


def header_score(header: object, field_name: str, field_meta: Mapping[str, Any]) -> float:
    """0.6 for a header that names the field, enough to win alone; 0.0 otherwise."""
    return 0.6 if fold(header) in names_of(field_name, field_meta) else 0.0
