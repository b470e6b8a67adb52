"""From the blocks of a sheet to its tables: headers, side-by-side tables, and blocks that are no table at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ..errors import JobError
from ..records import record
from ..spill import Spill
from ..tables import Piece, Stored
from ..values import Value
from .scan import MAX_TABLE_COLUMNS, Block, Candidate, texts_of
from .text import fold, header_text, is_header_text, is_prose, kind

PREAMBLE_ROWS = 10
"""A small block without a header over the first header of a sheet is a preamble, not a table."""
PROMOTION_SAMPLE = 50
"""Rows below the first that are compared with it before it is promoted to a header."""

MAX_HEADER_ROWS = 8
"""Rows that a header may reach downwards by merged cells."""

Merge = tuple[int, int, int, int]
Anchor = Callable[[int, int], str | None]
"""The header text of a cell above the header rows, by 1-based row and column."""


@record
class Found:
    """One table: its columns (0-based in the sheet), header texts, and stored values."""

    header_kind: str
    header_row: int | None
    headers: list[str | None]
    columns: list[int]
    values: list[Stored]
    rows: Stored
    first_row: int
    """Of the data."""
    last_row: int
    header_rows: tuple[int, ...] = ()
    """Rows that were read as data and belong to the header: merged cells reach into them."""


@record
class Skipped:
    """A block that is no table, and why."""

    reason: str
    first_row: int
    last_row: int
    rows: int


def infer(
    blocks: list[Block], merged: Iterable[Merge], spill: Spill, words: frozenset[str], sheet: str
) -> tuple[list[Found], list[Skipped]]:
    """The tables of a sheet, top to bottom and left to right, and what was left out."""
    tables: list[Found] = []
    skipped: list[Skipped] = []
    merges = sorted(merged)
    headed = [block for block in blocks if block.header is not None]
    for at, block in enumerate(blocks):
        reason = _why_not(block, at, blocks, headed, spill)
        if reason:
            first = block.header.row if block.header else block.first_row
            skipped.append(Skipped(reason, first, max(first, block.last_row), block.rows))
            continue
        header, above, extra = block.header, block.above, []
        headers: list[str | None] = []
        if header is not None:
            extra = _reached(header, block, merges, spill)
            if extra:
                header, above = extra[-1], [*above, header, *extra[:-1]]
            headers = _headers(header, above, merges, len(block.counts), _anchor(blocks[:at], spill))
        width = max(len(headers), len(block.counts))
        headers += [None] * (width - len(headers))
        counts = block.counts + [0] * (width - len(block.counts))
        for candidate in extra:
            for column, value in enumerate(candidate.values):
                counts[column] -= value is not None
        groups = _groups(headers, counts, words, block, spill)
        for group in groups:
            if len(group) > MAX_TABLE_COLUMNS:
                raise JobError(
                    "input_too_wide",
                    f"{sheet}: a table of {len(group):,} columns; at most {MAX_TABLE_COLUMNS:,} are read. "
                    "Split the sheet, or move its rows into columns.",
                    detail={"columns": len(group), "limit": MAX_TABLE_COLUMNS},
                )
            header_rows = tuple(candidate.row for candidate in extra)
            texts = [headers[one] for one in group]
            found = _table(block, group, header, header_rows, texts, len(groups) > 1, spill)
            if found is not None:
                tables.append(found)
    return tables, skipped


# -- what is a table ---------------------------------------------------------------------------------------------------


def _why_not(block: Block, at: int, blocks: list[Block], headed: list[Block], spill: Spill) -> str | None:
    used = sum(1 for count in block.counts if count)
    if block.header is not None:
        # "Prepared by | A. Person" over a real table has the looks of a header; the table below is the better one.
        later = [other.header for other in blocks[at + 1 :] if other.header is not None]
        small = block.rows <= PREAMBLE_ROWS and max(used, _filled(block.header)) <= 2
        if small and not block.header.known:
            if any(other.score > block.header.score and _filled(other) > 2 for other in later):
                return "preamble"
        return None
    if used <= 1:
        column = next((one for one, count in enumerate(block.counts) if count), 0)
        if headed or block.rows < 3 or is_prose(_values(block, column, spill)):
            return "notes"
        return None
    if not headed:
        return None
    if block.rows <= PREAMBLE_ROWS and any(other.header is not None for other in blocks[at + 1 :]):
        return "preamble"
    return "notes" if block.rows < 3 else None


def _filled(candidate: Candidate) -> int:
    return sum(value is not None for value in candidate.values)


def _values(block: Block, column: int, spill: Spill) -> list[Value]:
    """A column's values in the first chunk of a block."""
    batch = block.chunks[0]
    return spill.column(batch, column + 1) if column + 1 < spill.width(batch) else []


# -- headers -----------------------------------------------------------------------------------------------------------


def _reached(header: Candidate, block: Block, merges: list[Merge], spill: Spill) -> list[Candidate]:
    """The rows below the header row that belong to it, because a merged cell of it reaches down into them."""
    last = max((merge[2] for merge in merges if merge[0] <= header.row < merge[2]), default=header.row)
    if last == header.row or last - header.row > MAX_HEADER_ROWS:
        return []
    stored: dict[int, list[Value]] = {}
    if block.chunks:
        batch = block.chunks[0]
        numbers: list[int] = spill.column(batch, 0)  # type: ignore[assignment]
        count = sum(number <= last for number in numbers)
        columns = [spill.column(batch, one)[:count] for one in range(1, spill.width(batch))]
        stored = dict(zip(numbers, map(list, zip(*columns, strict=True)), strict=False))
    rows = [Candidate(row, stored.get(row, []), 0.0, 0) for row in range(header.row + 1, last + 1)]
    texts = all(value is None or is_header_text(value) for one in rows for value in one.values)
    return rows if texts else []


def _anchor(blocks: list[Block], spill: Spill) -> Anchor:
    """Finds the text of a cell in the blocks above: a group row under a preamble was read as part of that."""

    def text(row: int, column: int) -> str | None:
        for block in reversed(blocks):
            for batch in reversed(block.chunks):
                numbers: list[int] = spill.column(batch, 0)  # type: ignore[assignment]
                if numbers[0] <= row <= numbers[-1] and row in numbers:
                    value = _column(spill, batch, column - 1)[numbers.index(row)]
                    return header_text(value) if is_header_text(value) else None
        return None

    return text


def _headers(
    header: Candidate, above: list[Candidate], merges: list[Merge], width: int, anchored: Anchor
) -> list[str | None]:
    """Header texts from column A; a blank cell takes the text of the merged cell that covers it, or of the candidate
    row directly above."""
    texts = texts_of(header)
    rows = {header.row: texts}
    expected = header.row - 1
    for candidate in reversed(above):
        if candidate.row != expected:
            break
        rows[candidate.row] = texts_of(candidate)
        expected -= 1
    reach = max(width, *(len(one) for one in rows.values()))
    for one in rows.values():
        one += [None] * (reach - len(one))
    for first_row, first_column, last_row, last_column in merges:
        if first_row > header.row:
            break
        if last_row <= expected or first_column > reach:
            continue
        anchor = rows.get(first_row)
        text = anchor[first_column - 1] if anchor else anchored(first_row, first_column)
        if text is None:
            continue
        for row in range(first_row, min(last_row, header.row) + 1):
            for column in range(first_column - 1, min(last_column, reach)):
                if row in rows and rows[row][column] is None:
                    rows[row][column] = text
    for row in range(header.row - 1, expected, -1):
        for column, text in enumerate(texts):
            if text is None:
                texts[column] = rows[row][column]
    return texts


def _promoted(first: list[Value], below: list[list[Value]]) -> bool:
    """Whether the first row of a block without a header can serve as one: distinct short texts over other types."""
    if not below or not all(is_header_text(value) for value in first):
        return False
    if not any(isinstance(value, str) for value in first):
        return False
    names = [fold(text) for value in first if (text := header_text(value))]
    if len(set(names)) < len(names):
        return False
    for column in zip(*below, strict=True):
        kinds = Counter(kind(value) for value in column)
        del kinds["blank"]
        if kinds and kinds.most_common(1)[0][0] != "text":
            return True
    return False


# -- side-by-side tables -----------------------------------------------------------------------------------------------


def _groups(
    headers: list[str | None], counts: list[int], words: frozenset[str], block: Block, spill: Spill
) -> list[list[int]]:
    """Columns in use, split at empty columns into tables that stand side by side."""
    runs: list[list[int]] = []
    previous = -2
    for column, (text, count) in enumerate(zip(headers, counts, strict=True)):
        if text is None and not count:
            continue
        if column == previous + 1:
            runs[-1].append(column)
        else:
            runs.append([column])
        previous = column
    groups: list[list[int]] = []
    for run in runs:
        if groups and not _apart(groups[-1], run, headers, counts, words):
            groups[-1].extend(run)
        else:
            groups.append(run)
    return groups


def _apart(
    left: list[int], right: list[int], headers: list[str | None], counts: list[int], words: frozenset[str]
) -> bool:
    """Whether two runs of columns are two tables: each has two columns or more, unless their headers answer to
    different fields of the manifest and they are equally filled: then the gap is decoration."""
    if len(left) < 2 or len(right) < 2:
        return False
    known_left = {fold(text) for one in left if (text := headers[one])} & words
    known_right = {fold(text) for one in right if (text := headers[one])} & words
    complement = known_left and known_right and not known_left & known_right
    level = max(counts[one] for one in left) == max(counts[one] for one in right)
    return not (complement and level)


# -- one table ---------------------------------------------------------------------------------------------------------


def _table(
    block: Block,
    group: list[int],
    header: Candidate | None,
    header_rows: tuple[int, ...],
    headers: list[str | None],
    shared: bool,
    spill: Spill,
) -> Found | None:
    """Builds a table of some columns of a block; None when nothing of it is in these columns."""
    named = header is not None and any(text is not None for text in headers)
    kind_, row = ("raw", header.row if header else None) if named else ("synthetic", None)
    drop = frozenset(header_rows)
    if not named:
        first, below, number = _head(block, group, spill)
        if number is None:
            return None
        if _promoted(first, below):
            kind_, row, drop = "promoted", number, drop | {number}
            headers = [header_text(value) for value in first]
    values: list[Stored] = [Stored() for _ in group]
    rows = Stored()
    first_row = last_row = 0
    for batch in block.chunks:
        numbers, picked, stored = _pick(batch, group, shared, drop, spill)
        if not numbers:
            continue
        first_row = first_row or numbers[0]
        last_row = numbers[-1]
        rows.add(Piece(spill, stored, 0))
        for at, place in enumerate(picked):
            values[at].add(Piece(spill, stored, place))
    if not len(rows) and kind_ == "synthetic":
        return None
    if not first_row:
        last_row = row or block.first_row
    return Found(kind_, row, headers, group, values, rows, first_row, last_row, header_rows)


def _head(block: Block, group: list[int], spill: Spill) -> tuple[list[Value], list[list[Value]], int | None]:
    """The first row with a value in these columns, the rows below it, and its number in the sheet."""
    for batch in block.chunks:
        columns = [_column(spill, batch, one) for one in group]
        table = [list(line) for line in zip(*columns, strict=True)]
        for at, line in enumerate(table):
            if any(value is not None for value in line):
                numbers: list[int] = spill.column(batch, 0)  # type: ignore[assignment]
                return line, table[at + 1 : at + 1 + PROMOTION_SAMPLE], numbers[at]
    return [], [], None


def _pick(
    batch: int, group: list[int], shared: bool, drop: frozenset[int], spill: Spill
) -> tuple[list[int], list[int], int]:
    """The rows of a chunk that belong to these columns: their numbers, the places of the columns in the store, and the
    batch that holds them, which is a new one when some rows had to be left out."""
    numbers: list[int] = spill.column(batch, 0)  # type: ignore[assignment]
    width = spill.width(batch)
    ragged = any(one + 1 >= width for one in group)
    dropping = any(numbers[0] <= row <= numbers[-1] for row in drop)
    if not shared and not ragged and not dropping:
        return numbers, [one + 1 for one in group], batch
    columns = [_column(spill, batch, one) for one in group]
    if shared or dropping:
        keep = [
            at
            for at, line in enumerate(zip(*columns, strict=True))
            if numbers[at] not in drop and any(value is not None for value in line)
        ]
        numbers = [numbers[at] for at in keep]
        columns = [[column[at] for at in keep] for column in columns]
    if not numbers:
        return [], [], batch
    return numbers, list(range(1, len(group) + 1)), spill.append([list(numbers), *columns])


def _column(spill: Spill, batch: int, column: int) -> list[Value]:
    if column + 1 < spill.width(batch):
        return spill.column(batch, column + 1)
    return [None] * spill.height(batch)
