"""Takes what is in the usual spelling out of a part of XML, so that only the rest goes through the XML parser.

Nearly every program writes rows and shared strings in one and the same way, and ``ade_native`` reads these several times as fast
as the parser and its handlers. It takes nothing that it does not know to the last byte; so the parser sees a part with pieces
left out, each of which it could have done without.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ade_runner.readers.markup import BoundedParser

_LONGEST = 2 * 1024 * 1024  # bytes of one piece; a longer one is left to the parser
_LONGEST_HEAD = 4 * 1024 * 1024  # bytes up to the end of the first piece

_UTF8_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:<\?xml version=[\"']1\.0[\"'](?: encoding=[\"'][Uu][Tt][Ff]-8[\"'])?"
    rb"(?: standalone=[\"'](?:yes|no)[\"'])? ?\?>|<[A-Za-z])"
)


def weave(
    chunks: Iterator[bytes],
    parser: BoundedParser,
    ending: bytes,
    parse: Callable[[bytes], None],
    between: Callable[[], int | None],
    take: Callable[[bytes, int], int],
) -> Iterator[None]:
    """Hand the pieces of a part, each of which ends with the tag ``ending``, to ``take`` where that takes them, all else to ``parse``.

    ``take`` is given a block and a place in it, and returns how far it got. It is asked only between two pieces: ``between`` says
    where, in bytes fed to the parser, the last end tag of a piece began, if nothing has begun since that is not closed again, else
    None. What looks like an end tag may be part of a comment, and then that place is another one; from there on all is the parser's.
    Yields after each chunk and at the end.
    """

    def settled() -> bool:
        return between() == parser.fed - len(ending)

    waiting = b""
    usual: bool | None = None  # not known before the end of the first piece
    for chunk in chunks:
        waiting += chunk
        at = 0
        if usual is None and ending in waiting:
            at = waiting.index(ending) + len(ending)
            usual = _UTF8_START.match(waiting) is not None
            parse(waiting[:at])
            usual = usual and settled()
        elif usual is None and len(waiting) > _LONGEST_HEAD:
            usual = False
        while usual:
            at = take(waiting, at)
            end = waiting.find(ending, at)
            if end < 0:
                break
            end += len(ending)
            parse(waiting[at:end])
            at = end
            usual = settled()
        waiting = waiting[at:]
        if usual and len(waiting) > _LONGEST:
            usual = False
        if usual is False:
            parse(waiting)
            waiting = b""
        yield
    parse(waiting)
    parser.feed(b"", final=True)
    yield
