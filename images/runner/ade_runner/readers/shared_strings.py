"""The table of shared strings, held as one blob of UTF-8 and an array of offsets: about the size of its text."""

from __future__ import annotations

from array import array
from itertools import accumulate

from ade_runner.errors import JobError
from ade_runner.readers.book import human_size
from ade_runner.readers.markup import MAX_DEPTH, Attributes, BoundedParser, prefix_of, unescape
from ade_runner.readers.package import Package

_HOT_STRINGS = 32_768  # decoded strings kept for reuse; the table lists strings by first appearance
_HOT_LENGTH = 256  # characters; longer ones are decoded again


class SharedStrings:
    """Strings by position. ``get`` takes the position as the cell's text has it."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._offsets = array("Q", [0])
        self.hot: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def extend(self, strings: list[str]) -> None:
        encoded = [string.encode() for string in strings]
        start = self._offsets.pop()
        self._offsets.extend(accumulate(map(len, encoded), initial=start))
        self._blob += b"".join(encoded)

    def get(self, position: str) -> str | None:
        """The string at a position; None when there is no such position."""
        if not (position.isdecimal() and len(position) <= 12):
            return None
        at = int(position)
        if at >= len(self._offsets) - 1:
            return None
        string = self._blob[self._offsets[at] : self._offsets[at + 1]].decode()
        if len(self.hot) < _HOT_STRINGS and len(string) <= _HOT_LENGTH:
            self.hot[position] = string
        return string


def load(package: Package, part: str) -> SharedStrings:
    """Stream the part. Runs of rich text are joined, phonetic runs are left out."""
    table = SharedStrings()
    parser = BoundedParser(package, part)
    limits = package.limits
    pieces: list[str] = []  # of the current text
    runs: list[str] = []  # of the current string
    strings: list[str] = []  # complete, not yet in the table
    depth = phonetic = 0
    reading = False
    item = text = phonetic_run = ""

    def root(name: str, _: Attributes) -> None:
        nonlocal item, text, phonetic_run
        prefix = prefix_of(name, "sst")
        if prefix is None:
            raise parser.corrupt("is not a table of shared strings")
        item, text, phonetic_run = prefix + "si", prefix + "t", prefix + "rPh"
        parser.expat.StartElementHandler = start
        parser.expat.EndElementHandler = end

    def start(name: str, _: Attributes) -> None:
        nonlocal depth, phonetic, reading
        depth += 1
        if name == text:
            reading = True
            pieces.clear()
        elif name == item:
            runs.clear()
        elif name == phonetic_run:
            phonetic = depth
        if depth > MAX_DEPTH:
            raise parser.corrupt(f"nests more than {MAX_DEPTH} elements")

    def end(name: str) -> None:
        nonlocal depth, phonetic, reading
        if name == text:
            reading = False
            if not phonetic:
                runs.append("".join(pieces))
        elif name == item:
            string = runs[0] if len(runs) == 1 else "".join(runs)
            strings.append(unescape(string) if "_x" in string else string)
        elif depth == phonetic:
            phonetic = 0
        depth -= 1

    parser.expat.StartElementHandler = root
    parser.expat.CharacterDataHandler = pieces.append
    for chunk in package.chunks(part, limits.max_shared_strings):
        parser.feed(chunk)
        if strings:
            table.extend(strings)
            strings.clear()
        if not reading:
            pieces.clear()
        if sum(map(len, pieces)) + sum(map(len, runs)) > limits.max_cell:
            raise JobError(
                "input_cell_too_large",
                f"{package.name} has a text of more than {human_size(limits.max_cell)} in one cell"
                f" (shared string {len(table) + 1:,}); shorten it and upload the workbook again.",
            )
    parser.feed(b"", final=True)
    table.extend(strings)
    return table
