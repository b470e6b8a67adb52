"""Checks the package's own setting once, and hands it to every later script through ``job_context``."""

from __future__ import annotations

from collections.abc import Mapping

ORDERS = ("DMY", "MDY")


def run(*, env: Mapping[str, str], **_: object) -> dict[str, str]:
    """Raising here fails the job before any row is read: better than 10,000 rows with months for days."""
    order = env.get("DATE_ORDER", "DMY")
    if order not in ORDERS:
        raise ValueError(f"DATE_ORDER in the manifest's env must be one of {', '.join(ORDERS)}")
    return {"date_order": order}
