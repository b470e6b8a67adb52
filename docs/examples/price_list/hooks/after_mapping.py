"""Stops the job when no sheet looks like a price list: somebody uploaded the wrong workbook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEEDED = {"sku", "list_price"}


def run(*, artifact: Mapping[str, Any], **_: object) -> dict[str, object]:
    """Reads the mapping from the artifact; counts the price lists for the annotation."""
    lists = incomplete = 0
    for sheet in artifact["sheets"]:
        for table in sheet["tables"]:
            found = {column["target_field"] for column in table["mapping"]}
            is_list = found.issuperset(NEEDED)
            lists += is_list
            incomplete += not is_list
    if not lists:
        raise LookupError("no sheet has both a SKU and a price column")
    return {"price_lists": lists, "incomplete_tables": incomplete}
