"""Leaves a short summary as an annotation in the artifact. Runs always, also after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def run(
    *, success: bool, error: Mapping[str, Any] | None, artifact: Mapping[str, Any], **_: object
) -> dict[str, object]:
    """Counts only: the artifact never holds a member's data."""
    summary = artifact.get("summary") or {}
    return {
        "outcome": "normalized" if success else (error or {}).get("kind"),
        "members": summary.get("rows_written"),
        "issues": summary.get("issues_found"),
    }
