"""Telling headers, values and totals apart by how a cell looks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import _datetime as datetime  # see values.py

from ..manifest import Manifest
from ..values import Value

HEADER_CHARS = 100
"""A longer text is not taken for a header by the built-in detectors."""

_NUMBER = re.compile(r"[-+(]?\s*[$€£¥]?\s*\d[\d.,'\s]*\s*[%$€£¥)]?\s*\Z")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d.*)?\Z")
_TOTAL = re.compile(r"\s*(grand\s+total|sub\s*-?\s*total|totals?|sum|summe|gesamt|total\s+général)\b", re.IGNORECASE)
_TOTAL_ONLY = re.compile(_TOTAL.pattern + r"\s*:?\s*\Z", re.IGNORECASE)
_NON_WORD = re.compile(r"[\W_]+")


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """A header reduced to what matters when it is compared: case, punctuation and spacing are gone."""
    return _NON_WORD.sub(" ", unicodedata.normalize("NFKC", text[:1000]).casefold()).strip()


def vocabulary(manifest: Manifest) -> frozenset[str]:
    """Every folded label, synonym and id of the enabled fields."""
    return frozenset(
        word for one in manifest.enabled_fields for text in (one.label, one.id, *one.synonyms) if (word := fold(text))
    )


def kind(value: Value) -> str:
    """``text``, ``number``, ``date``, ``flag`` or ``blank``; texts that look like numbers or dates count as such, since
    in csv files all values are texts."""
    if value is None:
        return "blank"
    if isinstance(value, str):
        if not value.strip():
            return "blank"
        if value[-1:].isalpha():
            return "text"
        if _NUMBER.match(value):
            return "number"
        return "date" if _DATE.match(value) else "text"
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, (int, float)) else "date"


def is_header_text(value: Value) -> bool:
    """Whether one cell could be a header's: a short text with letters that is neither an address nor a sentence, or a
    year."""
    if isinstance(value, str):
        text = value.strip()
        return (
            0 < len(text) <= HEADER_CHARS
            and any(map(str.isalpha, text))
            and "@" not in text
            and "://" not in text
            and kind(text) == "text"
            and not (text.endswith(".") and " " in text and len(text.split()) > 3)
        )
    return type(value) is int and 1900 <= value <= 2100


def header_text(value: Value) -> str | None:
    """A header cell as text; None for a blank one."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)


def is_total(text: str) -> bool:
    """Whether a text begins like the label of a totals row."""
    return _TOTAL.match(text) is not None


def is_total_only(text: str) -> bool:
    """Whether a text is nothing but the label of a totals row."""
    return _TOTAL_ONLY.match(text) is not None


def is_prose(values: Iterable[Value]) -> bool:
    """Whether a single column reads as notes: texts only, at least one of three words or more."""
    seen = [value for value in values if value is not None]
    return all(kind(value) == "text" for value in seen) and any(len(str(value).split()) >= 3 for value in seen)
