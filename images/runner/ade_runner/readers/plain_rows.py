"""Recognizes rows in the one spelling that nearly every program writes, so that they need no XML parser.

A row is taken only when all of it, to the last character, is made of the elements below; any other row, and everything
around the rows, is the parser's. Recognizing takes about half the time of parsing.
"""

from __future__ import annotations

import re

SHEET_DATA = b"<sheetData>"
ROW_END = b"</row>"

_ATTRIBUTES = r'(?: [A-Za-z][A-Za-z0-9:]*="[^"<&]*")*+'

ROW_START = re.compile(rf'\s*<row r="([1-9][0-9]{{0,6}})"{_ATTRIBUTES} ?>')
"""Group 1: the row's number."""

CELL = re.compile(
    r'(<c r="([A-Z]+)([0-9]+)"([^<>/]*)(?:>(?:<v>([^<]*)</v></c>'
    r'|<is><t(?: xml:space="preserve")?>([^<]*)</t></is></c>'
    rf"|(?:<f{_ATTRIBUTES}(?:/>|>[^<]*</f>))?(?:<v>([^<]*)</v>|<v/>)?</c>)|/>))"
)
"""Groups: the whole cell, its column's letters, its row's number, other attributes, value, inline text, a formula's value."""

CELL_ATTRIBUTES = re.compile('(?: s="([0-9]{1,6})")?(?: t="([A-Za-z]{1,9})")? ?')
"""What a cell's other attributes may be: style and type, in this order."""

_UTF8_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:<\?xml version=[\"']1\.0[\"'](?: encoding=[\"'][Uu][Tt][Ff]-8[\"'])?"
    rb"(?: standalone=[\"'](?:yes|no)[\"'])? ?\?>|<[A-Za-z])"
)
_CONTROL = bytes(c for c in range(32) if c not in b"\t\n")  # a carriage return is the parser's: XML changes it
_REFERENCE = re.compile("&(?:(amp|lt|gt|quot|apos)|#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6}));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


def starts_as_utf8(head: bytes) -> bool:
    """Whether a part declares UTF-8, or nothing, which means the same."""
    return _UTF8_START.match(head) is not None


def plain_text(block: bytes) -> str | None:
    """The text of a block of rows; None when it holds characters or marks that are the parser's business."""
    if len(block.translate(None, _CONTROL)) != len(block) or b"]]" in block:
        return None
    if not block.isascii() and (b"\xef\xbf\xbe" in block or b"\xef\xbf\xbf" in block):  # U+FFFE and U+FFFF
        return None
    try:
        return block.decode()
    except UnicodeDecodeError:
        return None


def dereference(text: str) -> str | None:
    """Replace character references; None when one of them is none that XML knows by itself."""
    if text.count("&") != len(_REFERENCE.findall(text)):
        return None
    try:
        decoded = _REFERENCE.sub(_character, text)
    except (ValueError, OverflowError):
        return None
    return decoded


def _character(match: re.Match[str]) -> str:
    name, decimal, hexadecimal = match.groups()
    if name:
        return _NAMED[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF:
        return chr(code)
    raise ValueError("not a character of XML 1.0")
