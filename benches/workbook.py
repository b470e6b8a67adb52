"""Makes a benchmark workbook: workbook.py ROWS FILE [excel|plain]

`excel` (default) is made by XlsxWriter with shared strings, as Excel writes them; `plain` by the runner's own writer with
inline strings, for sizes where the former takes minutes. Ten columns, six of which the package maps."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

HEADERS = ["ID", "Name", "Email", "Joined", "Amount", "Qty", "City", "Code", "Flag", "Note"]
CITIES = ["Oslo", "Paris", "Rome"]
START = datetime.date(2020, 1, 1)


def row(i: int) -> list[object]:
    return [
        i, f"person {i % 5000} of {i % 97}", f"P{i}@example.com", START + datetime.timedelta(days=i % 1000), i * 1.3742,
        i % 17, CITIES[i % 3], f"C{i % 997:05d}", i % 2 == 0, "n" if i % 4 == 0 else None,
    ]


def excel(rows: int, path: Path) -> None:
    import xlsxwriter

    with xlsxwriter.Workbook(str(path)) as book:
        sheet = book.add_worksheet("Data")
        date = book.add_format({"num_format": "yyyy-mm-dd"})
        sheet.write_row(0, 0, HEADERS)
        for i in range(1, rows + 1):
            for column, value in enumerate(row(i)):
                if isinstance(value, datetime.date):
                    sheet.write_datetime(i, column, value, date)
                elif value is not None:
                    sheet.write(i, column, value)


def plain(rows: int, path: Path) -> None:
    from ade_runner.writer import SheetWriter

    with SheetWriter(path, "Data", HEADERS) as sheet:
        for first in range(1, rows + 1, 50_000):
            batch = [row(i) for i in range(first, min(first + 50_000, rows + 1))]
            sheet.write_columns([list(column) for column in zip(*batch)])


if __name__ == "__main__":
    {"excel": excel, "plain": plain}[sys.argv[3] if len(sys.argv) > 3 else "excel"](int(sys.argv[1]), Path(sys.argv[2]))
