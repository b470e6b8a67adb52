"""XML for hostile files: no DOCTYPE, no entities, bounded tokens, bounded vocabulary."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.parsers import expat

from ade_runner.errors import JobError
from ade_runner.readers.book import display_name
from ade_runner.readers.package import Package

Attributes = dict[str, str]

MAX_DEPTH = 64
"""Nested elements; the formats read here need less than 20."""

_MAX_TOKEN = 2 * 1024 * 1024  # bytes of one tag or comment: the parser holds a token until it is complete
_MAX_NAMES = 20_000  # distinct element and attribute names: the parser keeps each one for good
_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")


class BoundedParser:
    """An expat parser for one part of a package, fed chunk by chunk; its failures name the part.

    ``expat`` is the parser to put handlers on, ``fed`` how many bytes it was given.
    """

    def __init__(self, package: Package, part: str, *, namespaces: bool = False) -> None:
        self._package = package
        self._part = display_name(part)
        self.fed = 0
        self.expat = expat.ParserCreate(namespace_separator=" ") if namespaces else expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.buffer_size = 65_536
        self.expat.StartDoctypeDeclHandler = self._refuse_doctype

    def _refuse_doctype(self, *_: object) -> None:
        raise self.corrupt("has a DOCTYPE, which no spreadsheet needs")

    def corrupt(self, why: str) -> JobError:
        return self._package.corrupt(f"the part {self._part} {why}")

    def feed(self, chunk: bytes, final: bool = False) -> None:
        try:
            self.expat.Parse(chunk, final)
        except expat.ExpatError as error:
            raise self.corrupt(
                f"is not well-formed XML (line {error.lineno}: {expat.ErrorString(error.code)})"
            ) from None
        except (LookupError, ValueError) as error:  # an encoding that does not exist or does not fit
            raise self.corrupt("is in an encoding that cannot be read") from error
        self.fed += len(chunk)
        if self.fed - self.expat.CurrentByteIndex > _MAX_TOKEN:
            raise self.corrupt("has a tag or comment of more than 2 MiB")
        if len(self.expat.intern) > _MAX_NAMES:
            raise self.corrupt(f"uses more than {_MAX_NAMES:,} different tags")


def scan(
    package: Package,
    part: str,
    on_start: Callable[[str, Attributes], None],
    *,
    limit: int | None = None,
) -> None:
    """Call ``on_start`` for every element of a part; names and attributes come without their namespaces.

    Relationship attributes keep their role: ``r:id`` arrives as ``rel:id``.
    """
    parser = BoundedParser(package, part, namespaces=True)
    depth = 0

    def start(name: str, attributes: Attributes) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise parser.corrupt(f"nests more than {MAX_DEPTH} elements")
        on_start(name.rpartition(" ")[2], {_plain(key): value for key, value in attributes.items()})

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser.expat.StartElementHandler = start
    parser.expat.EndElementHandler = end
    for chunk in package.chunks(part, limit if limit is not None else package.limits.max_small_part):
        parser.feed(chunk)
    parser.feed(b"", final=True)


def _plain(attribute: str) -> str:
    namespace, _, name = attribute.rpartition(" ")
    return f"rel:{name}" if namespace.endswith("/relationships") else name


def unescape(text: str) -> str:
    """Decode ``_xHHHH_`` (ST_Xstring, ECMA-376 part 1, 22.9.2.19); pairs of surrogates become one character."""
    decoded = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        decoded.encode()
    except UnicodeEncodeError:
        decoded = decoded.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return decoded


def prefix_of(name: str, wanted: str) -> str | None:
    """``x:worksheet`` → ``x:`` when ``wanted`` is ``worksheet``; None when it is another element."""
    prefix, colon, local = name.rpartition(":")
    return prefix + colon if local == wanted else None
