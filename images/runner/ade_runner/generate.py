"""Pass 5, generate: one sheet with the fields in manifest order, then the columns that no field took."""

from __future__ import annotations

import re

from .artifact import OUTPUT_NAME
from .channel import Progress
from .errors import JobError
from .records import record
from .run import JobRun
from .structure import shown
from .tables import Stored, Table
from .values import Value
from .writer import SheetWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WINDOW_ROWS = 8_192
WINDOW_CELLS = 500_000
"""Rows and cells that are handed to the writer at once."""

MAX_HEADER_CHARS = 200
_NON_WORD = re.compile(r"[\W_]+")


@record
class Plan:
    """The columns of the output: per table, where each one's values come from (None: nothing there)."""

    headers: list[str]
    sources: dict[str, list[Stored | None]]
    block: dict[str, Any]
    """``output`` of the artifact."""


def plan_output(run: JobRun) -> Plan:
    """Decides the output's columns; also recorded in the artifact, so that ``before_save`` can read it."""
    fields = run.manifest.enabled_fields
    headers = [one.label for one in fields]
    sources: dict[str, list[Stored | None]] = {}
    for table in run.tables:
        at = [table.column_of(one.id) for one in fields]
        sources[table.id] = [None if index is None else table.columns[index].values for index in at]
    target = [{"field": one.id, "output_header": one.label, "order": at} for at, one in enumerate(fields, start=1)]
    appended: list[dict[str, Any]] = []
    if run.manifest.writer.append_unmapped_columns:
        _append_unmapped(run, headers, sources, appended)
    block = {
        "format": "xlsx",
        "sheet": run.manifest.writer.output_sheet,
        "path": OUTPUT_NAME,
        "column_plan": {"target": target, "appended_unmapped": appended},
    }
    run.artifact.data["output"] = block
    return Plan(headers, sources, block)


def _append_unmapped(
    run: JobRun, headers: list[str], sources: dict[str, list[Stored | None]], appended: list[dict[str, Any]]
) -> None:
    """Adds the columns that no field took; tables share a column when their headers come out the same."""
    prefix = run.manifest.writer.unmapped_prefix
    taken = {header.casefold() for header in headers}
    shared: dict[tuple[str, int], int] = {}
    for table in run.tables:
        seen: dict[str, int] = {}
        for index, column in enumerate(table.columns, start=1):
            if column.target is not None:
                continue
            name = prefix + sanitized(column.header, index)
            seen[name.casefold()] = repeat = seen.get(name.casefold(), 0) + 1
            place = shared.get((name.casefold(), repeat))
            if place is None:
                place = shared[name.casefold(), repeat] = len(headers)
                header = _unique(name, taken)
                headers.append(header)
                appended.append(
                    {
                        "source_header": shown(column.header),
                        "output_header": header,
                        "order": len(headers),
                        "column": column.id,
                        "columns": [],
                    }
                )
            appended[place - len(run.manifest.enabled_fields)]["columns"].append(column.id)
            line = sources[table.id]
            line.extend([None] * (place + 1 - len(line)))
            line[place] = column.values
    for line in sources.values():
        line.extend([None] * (len(headers) - len(line)))


def sanitized(header: str | None, index: int) -> str:
    """``Start Date (local)`` → ``Start_Date_local``; a column without a header is ``column_3`` by its place."""
    name = _NON_WORD.sub("_", header or "").strip("_")[:MAX_HEADER_CHARS]
    return name or f"column_{index}"


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate.casefold())
    return candidate


def write_output(run: JobRun, plan: Plan, writer: SheetWriter) -> int:
    """Writes the rows of all tables in order of inputs, sheets and tables; returns how many."""
    progress = Progress(run.channel, "generate", run.total_rows)
    width = max(1, len(plan.headers))
    window = max(1, min(WINDOW_ROWS, WINDOW_CELLS // width))
    for table in run.tables:
        _write_table(table, plan.sources[table.id], window, writer, progress)
    if writer.truncated_cells:
        run.diagnostics.add(
            "output.truncated_cells",
            f"{writer.truncated_cells:,} texts were longer than the 32,767 characters a cell can hold and were cut",
        )
    progress.finish()
    return writer.rows_written


def _write_table(
    table: Table, sources: list[Stored | None], window: int, writer: SheetWriter, progress: Progress
) -> None:
    for start, stop in table.batches(window):
        blank: list[Value] = [None] * (stop - start)
        try:
            columns = [blank if one is None else one.read(start, stop) for one in sources]
            writer.write_columns(columns)
        except OSError:
            raise JobError("disk_full", "the job's scratch space is full; have the scratch limit raised") from None
        progress.advance(stop - start)
