"""What a dry run has to say about scripts."""

from __future__ import annotations

import json
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DIAGNOSTICS = 200
_RECORD_BYTES = 48 * 1024
"""All diagnostics together, as JSON: they go into one frame."""

Finding = dict[str, "Any"]


def finding(code: str, script: str, message: str, line: int | None = None, function: str | None = None) -> Finding:
    return {"code": code, "path": script, "line": line, "function": function, "message": message}


class Findings:
    """What is said about all scripts: each thing once, and no more than fits into one frame."""

    def __init__(self, tell: Callable[[Finding], None] = lambda one: None) -> None:
        self._tell = tell
        self._list: list[Finding] = []
        self._seen: set[str] = set()
        self._left = _RECORD_BYTES
        self._dropped = 0

    def add(self, one: Finding) -> None:
        text = json.dumps(one, sort_keys=True)
        if text in self._seen:
            return
        self._left -= len(text)
        if self._left < 0 or len(self._list) >= MAX_DIAGNOSTICS:
            self._dropped += 1
            return
        self._seen.add(text)
        self._list.append(one)
        self._tell(one)

    def entries(self) -> list[Finding]:
        if self._dropped:
            self._list.append(finding("more_diagnostics", "manifest.json", f"there are {self._dropped} more than are listed"))
            self._dropped = 0
        return self._list
