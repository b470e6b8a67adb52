"""Reading a result back: every kind of cell that a workbook can hold, as text."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path

from ade_runner.cells import read_cells
from ade_runner.channel import ListChannel
from ade_runner.writer import SheetWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "fixtures"))
from expectation import as_text, kind_of  # noqa: E402

VALUES = [
    "text", " spaces ", "12", "=1+1", 12, -3, 17.5, 1e-7, 1e14, True, False, date(2025, 3, 1), datetime(2025, 3, 1, 0, 0),
    datetime(2025, 3, 1, 14, 30, 15), time(9, 5), timedelta(hours=26, minutes=5), None,
]  # fmt: skip


def read(tmp_path: Path, name: str = "normalized.xlsx"):
    channel = ListChannel()
    (tmp_path / "out").mkdir(exist_ok=True)
    read_cells({"inputs": [{"name": name, "path": name}]}, tmp_path, channel)
    return channel.results[0], tmp_path / "out" / "cells.ndjson"


def test_a_result_is_read_back_as_expectations_spell_it(tmp_path):
    with SheetWriter(tmp_path / "normalized.xlsx", "Out", ["One", "Two"]) as writer:
        writer.write_columns([VALUES, [None] * len(VALUES)])
        writer.write_columns([["last"], ["x"]])
    result, path = read(tmp_path)
    assert result == {"ok": True, "error": None, "summary": None}
    head, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert head == {"sheet": "Out"}
    assert rows[0] == [1, [["text", "One"], ["text", "Two"]]]
    # The row whose only value is None is in no workbook.
    spelled = [[2 + at, [[kind_of(value), as_text(value)]]] for at, value in enumerate(VALUES) if value is not None]
    assert rows[1:-1] == spelled
    assert rows[-1] == [2 + len(VALUES), [["text", "last"], ["text", "x"]]]


def test_what_is_no_workbook_is_refused_by_kind(tmp_path):
    (tmp_path / "normalized.xlsx").write_bytes(b"%PDF-1.7 and so on")
    result, _ = read(tmp_path)
    assert (result["ok"], result["error"]["kind"]) == (False, "input_not_workbook")
