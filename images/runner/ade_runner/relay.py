"""What a child prints and reports, passed on to the engine within bounds."""

from __future__ import annotations

from collections import deque

from . import frames
from .engine import Engine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LINE_BYTES = 4_096
_TAIL_LINES = 50
_EVENT_BYTES = 32_768
_MAX_EVENTS = 20_000
"""Relayed events other than log lines; a well-behaved job sends some dozens."""
CHILD_EVENTS = frozenset({"log", "pass.start", "pass.exit", "hook.start", "hook.exit"})
INSTALLER_EVENTS = frozenset({"log", "deps.resolve", "deps.install"})
_LEVELS = frozenset({"debug", "info", "warning", "error"})


class LogLines:
    """Cuts a raw byte stream of the child into bounded lines."""

    def __init__(self, stream: str) -> None:
        self.stream = stream
        self._partial = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[str]:
        lines: list[str] = []
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            if not self._skipping:
                self._partial += piece
                lines.append(self._take())
            self._skipping = False
            self._partial.clear()
        if not self._skipping:
            self._partial += rest
            if len(self._partial) > _LINE_BYTES:
                lines.append(self._take())
                self._partial.clear()
                self._skipping = True
        return lines

    def finish(self) -> list[str]:
        lines = [self._take()] if self._partial else []
        self._partial.clear()
        return lines

    def _take(self) -> str:
        text = self._partial[:_LINE_BYTES].decode("utf-8", "replace")
        return text + " …" if len(self._partial) > _LINE_BYTES else text


class Relay:
    """Passes the child's events on to the engine, within bounds; past them it counts, and keeps the last lines."""

    def __init__(self, engine: Engine, lines: int, size: int, allowed: frozenset[str] = CHILD_EVENTS) -> None:
        self._engine = engine
        self._allowed = allowed
        self._lines = lines
        self._bytes = size
        self._others = _MAX_EVENTS
        self._tail: deque[tuple[str, dict[str, Any]]] = deque(maxlen=_TAIL_LINES)
        self.dropped_lines = 0
        self.dropped_bytes = 0

    def line(self, stream: str, text: str) -> None:
        self._log("info" if stream == "stdout" else "warning", {"stream": stream, "text": text}, len(text))

    def relay(self, message: dict[str, Any]) -> str | None:
        """Relays one ``EVENT`` of the child and returns its name; unknown names are dropped."""
        event, level, detail = message.get("event"), message.get("level"), message.get("detail")
        if not isinstance(event, str) or event not in self._allowed:
            return None
        if not isinstance(level, str) or level not in _LEVELS:
            level = "info"
        if not isinstance(detail, dict):
            detail = {}
        if event == "log":
            text = detail.get("text")
            size = len(text) if isinstance(text, str) else 64
            self._log(level, detail, size)
        elif self._others > 0:
            self._others -= 1
            self._emit(event, level, detail)
        else:
            self.dropped_lines += 1
        return event

    def _log(self, level: str, detail: dict[str, Any], size: int) -> None:
        if self._lines > 0 and self._bytes >= size:
            self._lines -= 1
            self._bytes -= size
            self._emit("log", level, detail)
        else:
            self._lines = 0
            self.dropped_lines += 1
            self.dropped_bytes += size
            self._tail.append((level, detail))

    def _emit(self, event: str, level: str, detail: dict[str, Any]) -> None:
        try:
            data = frames.encode_json(frames.EVENT, {"event": event, "level": level, "detail": detail})
        except (ValueError, RecursionError):  # NaN, too large, or nested too deep: what a hook returns may be any of these
            data = b""
        if not 0 < len(data) <= _EVENT_BYTES:
            data = frames.encode_json(frames.EVENT, {"event": event, "level": level, "detail": {"truncated": True}})
        self._engine.put(data)

    def finish(self) -> None:
        """Says what was dropped, and sends the tail that was kept."""
        if not self.dropped_lines:
            return
        self.dropped_lines -= len(self._tail)
        self.dropped_bytes -= sum(len(str(detail.get("text", ""))) for _, detail in self._tail)
        self._engine.event(
            "truncated", "warning", {"lines": self.dropped_lines, "bytes": self.dropped_bytes, "kept_tail": len(self._tail)}
        )
        for level, detail in self._tail:
            self._emit("log", level, {**detail, "tail": True})
