"""Mode ``read``: the cells of a workbook's first sheet as text with their kinds, for a program that compares results and does
not parse workbooks itself. Nothing of the package is looked at."""

from __future__ import annotations

import datetime
import zlib
from typing import Any, TextIO

from .artifact import encode
from .channel import Channel
from .errors import JobError
from .readers import Book, open_book
from .scripts import raise_if_fatal
from .values import Value

CELLS_NAME = "cells.ndjson"

_KINDS: dict[type, str] = {
    str: "text",
    bool: "boolean",
    int: "number",
    float: "number",
    datetime.datetime: "datetime",
    datetime.date: "date",
    datetime.time: "time",
    datetime.timedelta: "duration",
}


def read_cells(job: dict[str, Any], root: str, channel: Channel) -> None:
    """Writes ``cells.ndjson``: ``{"sheet": name}``, then ``[row number, cells]`` of every row that has a value."""
    channel.phase("read")
    error: dict[str, Any] | None = None
    given = job["inputs"][0]
    try:
        book = open_book(f"{root}/{given['path']}", given["name"])
        try:
            with open(f"{root}/out/{CELLS_NAME}", "x", encoding="utf-8", errors="replace") as file:
                _write(book, file)
        finally:
            book.close()
    except JobError as fault:
        error = fault.as_dict("read")
    except (OSError, EOFError, zlib.error) as fault:
        try:
            raise_if_fatal(fault)
            raise
        except JobError as known:
            error = known.as_dict("read")
    channel.result(error is None, error, None)


def _write(book: Book, file: TextIO) -> None:
    first = book.sheets[0]
    _line(file, {"sheet": first.name})
    for number, values in book.rows(first.index):
        _line(file, [number, [as_cell(value) for value in values]])


def _line(file: TextIO, value: object) -> None:
    file.write(f"{encode(value)}\n")


def as_cell(value: Value) -> tuple[str, str] | None:
    """A value's kind and text: ISO 8601 for days and times, ``TRUE`` and ``FALSE``, ``26:05:00`` for a duration."""
    if value is None:
        return None
    return _KINDS[type(value)], _text(value)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        seconds = round(value.total_seconds())
        minutes, seconds = divmod(abs(seconds), 60)
        return f"{'-' if value.total_seconds() < 0 else ''}{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
    return str(value)
