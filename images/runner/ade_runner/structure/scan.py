"""One pass over a sheet's rows: labels them, stores the data rows, and cuts the sheet into blocks.

Only ranges, header candidates and counts per column stay in memory; values go to the column store in chunks.
"""

from __future__ import annotations

from itertools import groupby, zip_longest

from ..channel import Progress
from ..errors import JobError
from ..records import fresh, record
from ..spill import Spill
from ..values import Value
from .rows import Classifier, Surroundings, Verdict
from .text import fold, header_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CHUNK_ROWS = 8_192
CHUNK_CELLS = 500_000
"""A chunk of the column store ends at whichever comes first."""

MAX_TABLE_COLUMNS = 2_048
"""Columns side by side that hold values; a wider table is refused before its rows are stored."""

MAX_BLOCKS = 256
"""Blocks per sheet; once they are used up, further header rows and stray rows join the last block."""

MAX_CANDIDATES = 16
"""Header rows in a row, of which one becomes the header."""

MAX_RANGES = 1_000
MAX_TRACES = 20
"""Entries of ``row_classification`` per sheet: ranges, and rows with their traces besides the chosen headers."""


@record
class Candidate:
    """A row labelled ``header``."""

    row: int
    values: list[Value]
    score: float
    known: int
    """Cells that are words of the manifest."""


@record
class Block:
    """A run of data rows and what stands above it."""

    header: Candidate | None = None
    above: list[Candidate] = fresh(list)
    """Candidates over the header, nearest last."""
    chunks: list[int] = fresh(list)
    """Batches of the store; their first column is the sheet row."""
    counts: list[int] = fresh(list)
    """Values per sheet column, from A."""
    rows: int = 0
    first_row: int = 0
    last_row: int = 0
    left: int = 1_000_000
    """0-based first column in use."""
    width: int = 0
    """Columns in use, counted from A."""
    open: bool = True

    def stretch(self, values: list[Value]) -> None:
        """Takes a row into the columns in use."""
        if len(values) > self.width:
            self.width = len(values)
        if self.left:
            for at, value in enumerate(values[: self.left]):
                if value is not None:
                    self.left = at
                    break


class Classification:
    """The ``row_classification`` of a sheet: ranges of equal labels, and a few rows with their traces."""

    def __init__(self) -> None:
        self._ranges: list[list[Any]] = []
        self._traced: list[dict[str, Any]] = []
        self._headers = 0
        self._more = 0
        self._last: list[Any] = [None, -1, -1]

    def add(self, row: int, label: str) -> None:
        """Extends the current range or begins another."""
        last = self._last
        if last[0] == label and last[2] == row - 1:
            last[2] = row
            return
        self._last = [label, row, row]
        if len(self._ranges) < MAX_RANGES:
            self._ranges.append(self._last)
        else:
            self._more += 1

    def relabel(self, row: int, label: str) -> None:
        """Corrects the label of one row: merged cells are known only when all rows are."""
        for at, (old, first, last) in enumerate(self._ranges):
            if first <= row <= last:
                parts = [[old, first, row - 1], [label, row, row], [old, row + 1, last]]
                self._ranges[at : at + 1] = [part for part in parts if part[1] <= part[2]]
                return

    def trace(self, row: int, verdict: Verdict, label: str) -> None:
        """Keeps how one row was decided; ``label`` is what became of it."""
        if label == "header":
            self._headers += 1
            if self._headers > MAX_BLOCKS:
                return
        elif len(self._traced) - min(self._headers, MAX_BLOCKS) >= MAX_TRACES:
            return
        positive = sum(score for score in verdict.scores.values() if score > 0)
        own = max(0.0, verdict.scores.get(label, 0.0))
        self._traced.append(
            {
                "row_index": row,
                "label": label,
                "confidence": round(own / positive, 4) if positive else 0.0,
                "scores_by_type": {name: round(score, 6) for name, score in sorted(verdict.scores.items())},
                "rule_traces": [{"rule": rule, "delta": round(delta, 6)} for rule, delta in verdict.traces[:20]],
            }
        )

    @property
    def full(self) -> bool:
        """Whether another row that is not a header would still be traced."""
        return len(self._traced) - min(self._headers, MAX_BLOCKS) >= MAX_TRACES

    def entries(self) -> list[dict[str, Any]]:
        found = [{"first_row": first, "last_row": last, "label": label} for label, first, last in self._ranges]
        if self._more:
            found.append({"first_row": None, "last_row": None, "label": "more", "ranges": self._more})
        return found + self._traced


class SheetScan:
    """Feeds on rows in ascending order; after :meth:`finish`, ``blocks`` holds what was found."""

    def __init__(self, spill: Spill, classify: Classifier, words: frozenset[str], progress: Progress, name: str) -> None:
        self.blocks: list[Block] = []
        self.classification = Classification()
        self.rows = 0
        self.capped = 0
        """Header rows that could not begin another block."""
        self.excluded: list[int] = []
        """Under a table: how many rows were labelled ``separator``, the first and the last of them."""
        self._name = name
        """What errors call the sheet."""
        self._spill = spill
        self._classify = classify
        self._words = words
        self._progress = progress
        self._around = Surroundings()
        self._pending: list[tuple[Candidate, Verdict]] = []
        self._previous = 0
        self._broken = False
        self._block: Block | None = None
        self._numbers: list[int] = []
        self._buffer: list[list[Value]] = []
        self._reported = 0

    def feed(self, row: int, values: list[Value]) -> None:
        """Takes the next row that holds any value."""
        around = self._around
        around.gap = self._broken or row != self._previous + 1
        if around.gap:
            around.in_table = False
        verdict = self._classify(row, values, around)
        self._previous = row
        self._broken = False
        self.rows += 1
        label = verdict.label
        if label == "data":
            if self._pending:
                self._settle()
            self._data(row, values, verdict, around.gap)
        elif label == "separator":
            if self._pending:
                self._settle()
            self.classification.add(row, "separator")
            self.classification.trace(row, verdict, "separator")
            self._broken = True
            if self._block is not None:
                count, first, _ = self.excluded or (0, row, row)
                self.excluded = [count + 1, first, row]
        else:
            self._header(row, values, verdict)
        if self.rows - self._reported >= CHUNK_ROWS:
            self._progress.advance(self.rows - self._reported)
            self._reported = self.rows

    def finish(self) -> None:
        """Settles what is open."""
        if self._pending:
            self._settle()
        self._flush()
        self._progress.advance(self.rows - self._reported)

    # -- headers ------------------------------------------------------------------------------------------------------

    def _header(self, row: int, values: list[Value], verdict: Verdict) -> None:
        texts = {fold(value) for value in values if isinstance(value, str)}
        candidate = Candidate(row, values, verdict.scores.get("header", 0.0), len(texts & self._words))
        block = self._block
        if not self._pending and block is not None and block.rows and not self._begins(candidate, block):
            # Detectors that look at one row alone see headers in every row of texts; inside a table these are data.
            self._data(row, values, verdict, self._around.gap)
            return
        if self._pending and len(self._pending) >= MAX_CANDIDATES:
            self._settle()
            self._header(row, values, verdict)
            return
        self._pending.append((candidate, verdict))
        self._around.in_table = True
        best = self._best()
        self._around.header_row, self._around.rows = self._pending[best][0].row, 0
        self._around.width = sum(value is not None for value in self._pending[best][0].values)

    def _begins(self, candidate: Candidate, block: Block) -> bool:
        """Whether a header row below data begins another table."""
        if len(self.blocks) >= MAX_BLOCKS:
            self.capped += 1
            return False
        filled = sum(value is not None for value in candidate.values)
        if candidate.known >= 2 and candidate.known * 2 >= filled:
            return True
        if block.header is None:
            return True
        if self._around.gap:
            return candidate.score >= block.header.score or filled >= 2 and block.header.known == 0
        return candidate.score > block.header.score

    def _best(self) -> int:
        """The best score wins; then the more words of the manifest; then the upper row."""
        ranks = [(candidate.score, candidate.known) for candidate, _ in self._pending]
        return ranks.index(max(ranks))

    def _settle(self) -> None:
        """Chooses the header among the rows pending; rows below it are data after all."""
        best = self._best()
        pending, self._pending = self._pending, []
        for candidate, verdict in pending[: best + 1]:
            self.classification.add(candidate.row, "header")
            self.classification.trace(candidate.row, verdict, "header")
        header = pending[best][0]
        block = self._begin(header.row)
        block.header = header
        block.above = [candidate for candidate, _ in pending[:best]]
        block.stretch(header.values)
        around = self._around
        around.in_table, around.header_row, around.rows = True, header.row, 0
        around.width = block.width - min(block.left, block.width)
        previous = header.row
        for candidate, verdict in pending[best + 1 :]:
            self._data(candidate.row, candidate.values, verdict, candidate.row != previous + 1)
            previous = candidate.row

    # -- data ---------------------------------------------------------------------------------------------------------

    def _data(self, row: int, values: list[Value], verdict: Verdict, gap: bool) -> None:
        block = self._block
        if block is None or (gap and not self._continues(values, block)):
            block = self._begin(row)
            self._around.header_row, self._around.rows = None, 0
        block.stretch(values)
        block.rows += 1
        block.last_row = row
        self._numbers.append(row)
        self._buffer.append(values)
        if len(self._buffer) >= CHUNK_ROWS or len(self._buffer) * block.width >= CHUNK_CELLS:
            self._flush()
        self.classification.add(row, "data")
        if verdict.traces and not self.classification.full:
            self.classification.trace(row, verdict, "data")
        around = self._around
        around.in_table = True
        around.rows += 1
        around.width = block.width - block.left
        around.last = values

    def _continues(self, values: list[Value], block: Block) -> bool:
        """Whether a row below blank rows lies inside the columns of the table above."""
        if len(self.blocks) >= MAX_BLOCKS:
            return True
        if len(values) > block.width:
            return False
        return all(value is None for value in values[: block.left])

    def _begin(self, row: int) -> Block:
        self._flush()
        if self._block is not None and len(self.blocks) >= MAX_BLOCKS:
            return self._block
        self._block = Block(first_row=row, last_row=row)
        self.blocks.append(self._block)
        return self._block

    def _flush(self) -> None:
        block = self._block
        if block is None or not self._buffer:
            return
        columns: list[list[Any]] = [self._numbers]
        columns.extend(map(list, zip_longest(*self._buffer)))
        height = len(self._numbers)
        counts = block.counts
        counts.extend([0] * (len(columns) - 1 - len(counts)))
        for at, column in enumerate(columns[1:]):
            counts[at] += height - column.count(None)
        widest = max(len(list(run)) for used, run in groupby(counts, bool) if used)
        if widest > MAX_TABLE_COLUMNS:
            raise JobError(
                "input_too_wide",
                f"{self._name}: a table of {widest:,} columns or more; at most {MAX_TABLE_COLUMNS:,} are read. "
                "Split the sheet, or move its columns into rows.",
                detail={"columns": widest, "limit": MAX_TABLE_COLUMNS},
            )
        try:
            block.chunks.append(self._spill.append(columns))
        except OSError:
            raise JobError(
                "disk_full", "the job's scratch space is full; split the input, or have the scratch limit raised"
            ) from None
        self._numbers, self._buffer = [], []


def texts_of(candidate: Candidate) -> list[str | None]:
    """The header cells of a candidate as texts, from column A."""
    return [header_text(value) for value in candidate.values]
