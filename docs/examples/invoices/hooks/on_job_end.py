"""A summary for the accountant, kept in the artifact's annotations. Runs always."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def run(*, success: bool, artifact: Mapping[str, Any], **_: object) -> dict[str, object]:
    """How many invoices came from how many lists, and what is wrong with them, by kind."""
    by_code: Counter[str] = Counter()
    tables = 0
    for sheet in artifact.get("sheets") or ():
        for table in sheet["tables"]:
            tables += 1
            by_code.update(issue["code"] for issue in (table.get("validation") or {}).get("issues") or ())
    return {
        "ready_to_pay": success and not by_code,
        "lists": tables,
        "invoices": (artifact.get("summary") or {}).get("rows_written"),
        "issues": dict(sorted(by_code.items())),
    }
