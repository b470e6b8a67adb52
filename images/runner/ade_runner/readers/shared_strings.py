"""Reads the table of shared strings into ``ade_native.SharedStrings``, which is about the size of its text."""

from __future__ import annotations

from ade_native import SharedStrings

from ade_runner.errors import JobError
from ade_runner.readers.book import human_size
from ade_runner.readers.markup import MAX_DEPTH, Attributes, BoundedParser, prefix_of, unescape
from ade_runner.readers.package import Package
from ade_runner.readers.plain import weave

_ITEM_END = b"</si>"


def load(package: Package, part: str) -> SharedStrings:
    """Stream the part. Runs of rich text are joined, phonetic runs are left out."""
    table = SharedStrings()
    parser = BoundedParser(package, part)
    limits = package.limits
    pieces: list[str] = []  # of the current text
    runs: list[str] = []  # of the current string
    depth = phonetic = 0
    item_end = 0  # where the last end tag of a string began, in bytes fed to the parser
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
        nonlocal depth, phonetic, reading, item_end
        if name == text:
            reading = False
            if not phonetic:
                runs.append("".join(pieces))
        elif name == item:
            string = runs[0] if len(runs) == 1 else "".join(runs)
            table.append(unescape(string) if "_x" in string else string)
            item_end = parser.expat.CurrentByteIndex
        elif depth == phonetic:
            phonetic = 0
        depth -= 1

    def parse(content: bytes) -> None:
        """Feed the parser and see that no string's text piles up."""
        parser.feed(content)
        if not reading:
            pieces.clear()
        if sum(map(len, pieces)) + sum(map(len, runs)) > limits.max_cell:
            raise JobError(
                "input_cell_too_large",
                f"{package.name} has a text of more than {human_size(limits.max_cell)} in one cell"
                f" (shared string {len(table) + 1:,}); shorten it and upload the workbook again.",
            )

    def between() -> int | None:
        return None if depth or reading else item_end

    def take(block: bytes, at: int) -> int:
        return table.take(block, at, limits.max_cell)

    parser.expat.StartElementHandler = root
    parser.expat.CharacterDataHandler = pieces.append
    for _ in weave(package.chunks(part, limits.max_shared_strings), parser, _ITEM_END, parse, between, take):
        pass
    return table
