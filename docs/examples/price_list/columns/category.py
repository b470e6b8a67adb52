"""Product category: codes and nicknames become the names in ``resources/categories.csv``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from headers import fold, names_field

CATEGORIES = Path(__file__).resolve().parent.parent / "resources" / "categories.csv"


@cache
def _names() -> dict[str, str]:
    """Every folded code, name and alias → the category's name. Read once per job."""
    names: dict[str, str] = {}
    with CATEGORIES.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for known_as in (row["code"], row["name"], *row["aliases"].split("|")):
                names[fold(known_as)] = row["name"]
    return names


def detect_header(*, header: str | None, field_meta: Mapping[str, Any], **_: object) -> dict[str, dict[str, float]]:
    """The header names the field."""
    return {"scores": {"self": 0.6 if names_field(header, field_meta) else 0.0}}


def detect_known(*, values_sample: list[object], **_: object) -> dict[str, dict[str, float]]:
    """The values are categories that we know."""
    filled = [value for value in values_sample if value not in (None, "")]
    hits = sum(fold(value) in _names() for value in filled)
    return {"scores": {"self": 0.6 * hits / len(filled) if filled else 0.0}}


def transform(*, values: list[object], **_: object) -> dict[str, list[Any]]:
    """Looks every value up; an unknown one stays."""
    names = _names()
    out = [names.get(fold(value), value) for value in values]
    unknown = sum(value is not None and fold(value) not in names for value in values)
    return {"values": out, "warnings": [f"categories that are not in categories.csv: {unknown}"] if unknown else []}


def validate(*, values: list[object], **_: object) -> dict[str, list[dict[str, Any]]]:
    """A category outside the table is most likely new: somebody should add it."""
    known = set(_names().values())
    return {
        "issues": [
            {
                "row_index": row,
                "code": "unknown_category",
                "severity": "warning",
                "message": "This category is not in categories.csv.",
            }
            for row, value in enumerate(values, start=1)
            if value is not None and value not in known
        ]
    }
