"""Pass 3, transform: every mapped field's ``transform()`` over the column's values, batch by batch."""

from __future__ import annotations


from .channel import Progress
from .errors import JobError
from .manifest import Field
from .run import JobRun
from .scripts import Rule, read_only
from .structure import SAMPLE_VALUES
from .structure.scan import CHUNK_ROWS
from .tables import Piece, Stored, Table
from .values import VALUE_TYPES, Value, coerce

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WARNING_CHARS = 200
MAX_WARNINGS = 20
"""Warnings kept per table and field, each cut to that many characters."""

_CONTAINERS = (list, tuple, dict, set, frozenset, bytes, bytearray)


def run_transform(run: JobRun) -> dict[str, int]:
    """Replaces the values of mapped columns by what their scripts make of them; returns the pass's numbers."""
    work = [
        (table, one, rule, index)
        for table in run.tables
        for one in run.manifest.enabled_fields
        if (rule := run.scripts.transforms.get(one.id)) and (index := table.column_of(one.id)) is not None
    ]
    progress = Progress(run.channel, "transform", run.total_rows, sum(table.row_count for table, *_ in work))
    changed = warned = 0
    for table, one, rule, index in work:
        entry = transform_column(run, table, one, rule, index, progress)
        table.entry["transforms"].append(entry)
        run.warnings.extend(entry["warnings"])
        changed += entry["changed"]
        warned += bool(entry["warnings"])
    progress.finish()
    return {"rows": run.total_rows, "changed_cells": changed, "fields_with_warnings": warned}


def transform_column(run: JobRun, table: Table, one: Field, rule: Rule, index: int, progress: Progress) -> dict[str, Any]:
    """Replaces the values of one column (0-based), and returns the artifact's entry about it."""
    column = table.columns[index]
    result = Stored()
    warnings: list[str] = []
    more = changed = 0
    known = run.column_arguments(
        table, index, field_name=one.id, field_meta=read_only(one.meta), state=run.state(rule.script, table.id)
    )
    for start, stop in table.batches(run.batch):
        values = column.values.read(start, stop)
        place = {"table": table.id, "column": index + 1, "row_offset": start}
        known["values"], known["row_offset"] = list(values), start
        known["values_sample"] = list(column.sample)
        answer, said = _call(run, rule, known, len(values), place)
        if answer is not None:
            changed += sum(
                1 for old, new in zip(values, answer, strict=True) if old is not new and (type(old) is not type(new) or old != new)
            )
        for text in said:
            if len(warnings) < MAX_WARNINGS:
                warnings.append(text if len(text) <= WARNING_CHARS else text[:WARNING_CHARS] + "…")
            else:
                more += 1
        stored = values if answer is None else answer
        try:
            # In pieces of the size that the later passes read: each reading unpacks a whole piece.
            for first in range(0, len(stored), CHUNK_ROWS):
                result.add(Piece(run.transformed, run.transformed.append([stored[first : first + CHUNK_ROWS]]), 0))
        except OSError:
            raise JobError("disk_full", "the job's scratch space is full; have the scratch limit raised") from None
        progress.advance(stop - start)
    column.values = result
    column.sample = result.read(0, SAMPLE_VALUES)
    entry: dict[str, Any] = {
        "target_field": one.id,
        "transform": rule.id,
        "changed": changed,
        "total": table.row_count,
        "warnings": warnings,
    }
    if more:
        entry["warnings_dropped"] = more
    return entry


def _call(
    run: JobRun, rule: Rule, known: dict[str, Any], length: int, place: dict[str, Any]
) -> tuple[list[Value] | None, list[str]]:
    """New values, or None to keep the old ones, and warnings."""

    def refuse(message: str) -> tuple[None, list[str]]:
        run.diagnostics.refused("runtime.transform.invalid_result", rule, f"transform {message}; its values stay", place)
        return None, []

    try:
        answer = rule(known)
    except BaseException as fault:  # noqa: BLE001 - scripts may raise anything
        run.diagnostics.fault("runtime.transform.exception", rule, fault, run.package.root, place)
        return None, []
    if not isinstance(answer, dict) or not isinstance(answer.get("values"), (list, tuple)):
        return refuse("must return {'values': [...]}")
    values, warnings = answer["values"], answer.get("warnings") or []
    if len(values) != length:
        return refuse(f"returned {len(values):,} values for {length:,}")
    if not isinstance(warnings, (list, tuple)) or any(not isinstance(one, str) for one in warnings):
        run.diagnostics.refused("runtime.transform.invalid_result", rule, "warnings must be a list of strings", place)
        warnings = []
    result = list(values)
    if not VALUE_TYPES.issuperset(map(type, result)):
        for at, value in enumerate(result):
            if type(value) in VALUE_TYPES:
                continue
            if isinstance(value, _CONTAINERS):
                return refuse(f"returned a {type(value).__mro__[-2].__name__} where a cell's value belongs")
            try:
                result[at] = coerce(value)
            except JobError:
                return refuse("returned an object that cannot be turned into a cell")
    return result, [str.__str__(one) for one in warnings]
