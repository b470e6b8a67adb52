"""A column store on disk between the passes: each pass loads only the columns it needs, one batch at a time.

A column is pickled by itself and packed when that pays. The file is private to the process that writes it, so that
nothing is unpickled that did not come from here.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Sequence
from types import TracebackType

from _pickle import Pickler, loads  # the module around it is its reference in Python, which nothing here needs

from ade_runner.records import record
from ade_runner.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_PACK_FROM = 512  # bytes; below, packing costs more than it saves
_LEVEL = 1


@record
class _Column:
    offset: int
    size: int
    packed: bool


class Spill:
    """Batches of columns in a file that has the name ``path`` for a moment. ``OSError`` (no space left) passes through; the batch is
    then not counted.

    It belongs to one process. A copy that a script forked and that came back into the runner would share the place in the file with
    the original; it ends as soon as it touches the store."""

    def __init__(self, path: str) -> None:
        self._pid = os.getpid()
        self._file = open(path, "w+b", buffering=0)
        os.unlink(path)
        self._columns: list[list[_Column]] = []
        self._heights: list[int] = []
        self._end = 0

    @property
    def batches(self) -> int:
        return len(self._columns)

    def append(self, columns: Sequence[list[Value]]) -> int:
        """Store one batch of equally long columns; returns its number, from 0."""
        self._end_copies()
        height = len(columns[0]) if columns else 0
        if any(len(column) != height for column in columns):
            raise ValueError("columns of unequal length")
        start = self._end
        index: list[_Column] = []
        try:
            for column in columns:
                index.append(self._store(column))
        except BaseException:
            self._end = start
            raise
        self._columns.append(index)
        self._heights.append(height)
        return len(self._columns) - 1

    def _store(self, column: list[Value]) -> _Column:
        buffer = io.BytesIO()
        Pickler(buffer, protocol=5).dump(column)
        content = buffer.getbuffer()
        packed = len(content) >= _PACK_FROM
        stored = zlib.compress(content, _LEVEL) if packed else content
        self._file.seek(self._end)
        left = memoryview(stored)
        while left:  # an unbuffered write may take less than all
            left = left[self._file.write(left) :]
        place = _Column(self._end, len(stored), packed)
        self._end += len(stored)
        return place

    def column(self, batch: int, column: int) -> list[Value]:
        """One column of one batch, both from 0."""
        self._end_copies()
        place = self._columns[batch][column]
        self._file.seek(place.offset)
        content = bytearray(place.size)
        view, done = memoryview(content), 0
        while done < place.size:
            count = self._file.readinto(view[done:])
            if not count:
                raise EOFError("the column store was cut off")
            done += count
        return loads(zlib.decompress(content) if place.packed else content)  # type: ignore[no-any-return]

    def _end_copies(self) -> None:
        if os.getpid() != self._pid:
            os._exit(0)

    def height(self, batch: int) -> int:
        """Rows of a batch."""
        return self._heights[batch]

    def width(self, batch: int) -> int:
        """Columns of a batch."""
        return len(self._columns[batch])

    def close(self) -> None:
        """Gives the file up. A second call does nothing."""
        self._end_copies()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
