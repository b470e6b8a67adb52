"""Pass 1, structure: finds the tables of every sheet of every input and puts their values into the column store.

Every sheet is read once. The rules are written down in docs/developers/pipeline.md.
"""

from __future__ import annotations


from .. import a1
from ..channel import Progress
from ..errors import JobError
from ..readers import Book, open_book
from ..run import JobRun
from ..tables import Table, TableColumn
from .infer import Found, infer
from .rows import builtin_classifier, package_classifier
from .scan import SheetScan
from .text import vocabulary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SAMPLE_VALUES = 8
"""First values of a column that scripts get as ``values_sample``."""
MAX_TABLES = 1_000
MAX_COLUMNS = 20_000
"""Tables, and columns of all tables, of one job."""
HEADER_CHARS = 255
"""Longer headers are cut in the artifact; scripts get them whole."""


def run_structure(run: JobRun) -> dict[str, int]:
    """Fills ``run.tables``; returns the pass's numbers."""
    progress = Progress(run.channel, "structure")
    words = vocabulary(run.manifest)
    sheets = rows = 0
    for number, given in enumerate(run.job["inputs"], start=1):
        entry = run.artifact.data["inputs"][number - 1]
        book = open_book(f"{run.root}/{given['path']}", given["name"])
        try:
            entry |= {"format": book.format, "encoding": book.encoding, "delimiter": book.delimiter}
            for info in book.sheets:
                sheets += 1
                rows += _sheet(run, book, info.index, f"sheet_{sheets}", number, given["name"], words, progress)
        finally:
            book.close()
    if not rows:
        raise JobError("input_no_data", "no cell of any input holds a value; check that the right files were given")
    if not run.tables:
        run.diagnostics.add(
            "structure.no_tables", "no table was found in any sheet; row_classification tells how the rows were read"
        )
    run.total_rows = sum(table.row_count for table in run.tables)
    progress.finish()
    return {
        "sheets": sheets,
        "tables": len(run.tables),
        "rows": run.total_rows,
        "columns": sum(len(table.columns) for table in run.tables),
        "rows_read": rows,
    }


def _sheet(
    run: JobRun, book: Book, index: int, sheet_id: str, number: int, source: str, words: frozenset[str], progress: Progress
) -> int:
    info = book.sheets[index - 1]
    classify = (
        package_classifier(run, sheet_id, info.name, source) if run.scripts.row_detectors else builtin_classifier(words)
    )
    name = f"sheet {info.name!r} of {source}"
    scan = SheetScan(run.raw, classify, words, progress, name)
    for row, values in book.rows(index):
        scan.feed(row, values)
    scan.finish()
    tables, skipped = infer(scan.blocks, book.merged(index), run.raw, words, name)
    for row in {row for found in tables for row in found.header_rows}:
        scan.classification.relabel(row, "header")
    entry: dict[str, Any] = {
        "id": sheet_id,
        "name": info.name,
        "input": number,
        "visibility": info.visibility,
        "rows": scan.rows,
        "error_cells": dict(sorted(book.error_cells(index).items())),
        "row_classification": scan.classification.entries(),
        "tables": [],
    }
    run.artifact.data["sheets"].append(entry)
    for block in skipped:
        run.diagnostics.add(
            "structure.skipped_block",
            f"rows that are no table were left out ({block.reason})",
            level="info",
            place={
                "sheet": sheet_id,
                "reason": block.reason,
                "first_row": block.first_row,
                "last_row": block.last_row,
                "rows": block.rows,
            },
        )
    if scan.excluded:
        count, first, last = scan.excluded
        run.diagnostics.add(
            "structure.excluded_rows",
            "rows under a table were labelled separator (totals, notes, breaks) and left out of it",
            level="info",
            place={"sheet": sheet_id, "rows": count, "first_row": first, "last_row": last},
        )
    if scan.capped:
        run.diagnostics.add(
            "structure.too_many_tables",
            "the sheet has more tables than are told apart; later header rows were read as data",
            place={"sheet": sheet_id, "header_rows": scan.capped},
        )
    for at, found in enumerate(tables, start=1):
        table = _table(found, f"{sheet_id}.table_{at}", sheet_id, info.name, source)
        entry["tables"].append(table.entry)
        run.tables.append(table)
        _report(run, table)
    if len(run.tables) > MAX_TABLES or sum(len(table.columns) for table in run.tables) > MAX_COLUMNS:
        raise JobError(
            "input_too_wide",
            f"the inputs hold more than {MAX_TABLES:,} tables or {MAX_COLUMNS:,} columns together; split the job",
            detail={"tables": len(run.tables), "limit_tables": MAX_TABLES, "limit_columns": MAX_COLUMNS},
        )
    return scan.rows


def _table(found: Found, table_id: str, sheet_id: str, sheet_name: str, source: str) -> Table:
    columns = [
        TableColumn(
            id=f"{table_id}.col.{at}",
            header=text,
            sheet_column=column + 1,
            values=values,
            sample=values.read(0, SAMPLE_VALUES),
        )
        for at, (column, text, values) in enumerate(zip(found.columns, found.headers, found.values, strict=True), start=1)
    ]
    count = len(found.rows)
    top = found.header_row or found.first_row
    left, right = columns[0].sheet_column, columns[-1].sheet_column
    table = Table(
        id=table_id,
        sheet_id=sheet_id,
        sheet_name=sheet_name,
        source_file=source,
        header_kind=found.header_kind,
        header_row=found.header_row,
        first_data_row=found.first_row or None,
        last_row=found.last_row,
        row_count=count,
        columns=columns,
        rows=found.rows,
    )
    table.entry = {
        "id": table_id,
        "range": a1.range_(top, left, max(top, found.last_row), right),
        "data_range": a1.range_(found.first_row, left, found.last_row, right) if count else None,
        "row_count": count,
        "header": {
            "kind": found.header_kind,
            "row_index": found.header_row,
            "source_header": [shown(column.header) for column in columns],
        },
        "columns": [
            {
                "column_id": column.id,
                "source_header": shown(column.header),
                "order": at,
                "column": a1.column_letters(column.sheet_column),
            }
            for at, column in enumerate(columns, start=1)
        ],
        "mapping": [],
        "transforms": [],
        "validation": {"issues": [], "summary_by_field": {}},
    }
    return table


def shown(header: str | None) -> str | None:
    """A header as the artifact holds it."""
    return header if header is None or len(header) <= HEADER_CHARS else header[:HEADER_CHARS] + "…"


def _report(run: JobRun, table: Table) -> None:
    place = {"sheet": table.sheet_id, "table": table.id}
    if table.header_kind == "synthetic":
        run.diagnostics.add("structure.no_header", "no header row was found; its columns have no names", place=place)
    if not table.row_count:
        run.diagnostics.add("structure.no_rows", "a header row without any data row below it", place=place)
