"""What the child tells the supervisor, and the captured ``print()`` output of scripts.

The supervisor implements :class:`Channel` on a pipe; :class:`ListChannel` collects in memory. Nothing here decides a
job's fate: the engine treats every message as hostile input and bounds it again.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

LOG_LINE_CHARS = 4_096
"""A longer line of script output is cut here and marked with an ellipsis."""

PROGRESS_INTERVAL_S = 0.1
"""Progress messages are at least this far apart."""


class Channel(Protocol):
    """Messages from the child. Every method returns quickly and never raises for what it is told."""

    def event(self, event: str, level: str = "info", /, **detail: object) -> None:
        """One of ``pass.start``, ``pass.exit``, ``hook.start``, ``hook.exit``, ``log``."""

    def progress(self, pass_name: str, rows: int, total: int | None) -> None:
        """Rows done so far in a pass; shown to people, never stored."""

    def phase(self, name: str) -> None:
        """What the child does from now on, so that a kill can be told apart by where it struck."""

    def trying(self, script: str) -> None:
        """The script that a dry run is at: whose move it was when nothing more comes."""

    def found(self, finding: dict[str, Any]) -> None:
        """What a dry run has found, as it finds it: it counts also when the completion record never comes."""

    def result(self, ok: bool, error: dict[str, Any] | None, summary: dict[str, Any] | None, **extra: object) -> None:
        """The completion record, sent once, before ``on_job_end`` runs."""


class ListChannel:
    """A channel that remembers everything, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, object]]] = []
        self.progressed: list[tuple[str, int, int | None]] = []
        self.phases: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.tried: list[str] = []
        self.findings: list[dict[str, Any]] = []

    def event(self, event: str, level: str = "info", /, **detail: object) -> None:
        self.events.append((event, level, detail))

    def progress(self, pass_name: str, rows: int, total: int | None) -> None:
        self.progressed.append((pass_name, rows, total))

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def trying(self, script: str) -> None:
        self.tried.append(script)

    def found(self, finding: dict[str, Any]) -> None:
        self.findings.append(finding)

    def result(self, ok: bool, error: dict[str, Any] | None, summary: dict[str, Any] | None, **extra: object) -> None:
        self.results.append({"ok": ok, "error": error, "summary": summary, **extra})

    def named(self, event: str) -> list[dict[str, object]]:
        """The details of all events of one name, in order."""
        return [detail for name, _, detail in self.events if name == event]


class Progress:
    """Counts the work of one pass and reports it as rows, no more often than :data:`PROGRESS_INTERVAL_S`.

    A pass that handles a table field by field counts ``steps`` values; they are shown as their share of the ``total`` rows."""

    def __init__(self, channel: Channel, pass_name: str, total: int | None = None, steps: int | None = None) -> None:
        self._channel = channel
        self._pass = pass_name
        self._steps = steps
        self._done = 0
        self.total = total
        self._next = 0.0

    def advance(self, rows: int) -> None:
        """Adds rows done; cheap enough for once per some thousand rows, not for once per row."""
        self._done += rows
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_INTERVAL_S
            rows = self._done
            if self._steps and self.total is not None:
                rows = rows * self.total // self._steps
            self._channel.progress(self._pass, rows, self.total)

    def finish(self) -> None:
        """Reports the final count."""
        rows = self._done if self.total is None else self.total
        self._channel.progress(self._pass, rows, rows)


class LineWriter(io.TextIOBase):
    """Stands in for ``sys.stdout`` or ``sys.stderr`` while scripts run: every line becomes a ``log`` event."""

    def __init__(self, stream: str, level: str, channel: Channel, fd: int) -> None:
        super().__init__()
        self._stream = stream
        self._level = level
        self._channel = channel
        self._fd = fd
        self._pending = ""
        self._cutting = False
        self.buffer = _ByteSide(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return False

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError("write() argument must be str")
        *lines, rest = text.split("\n")
        for line in lines:
            self._line(self._pending + line)
            self._pending = ""
        self._pending += rest
        if len(self._pending) > LOG_LINE_CHARS:
            self._line(self._pending)
            self._pending = ""
            self._cutting = True
        return len(text)

    def flush(self) -> None:
        """Lines are sent when they end: a partial line waits for its end or for :meth:`finish`."""

    def finish(self) -> None:
        """Sends what is left without a newline."""
        if self._pending:
            self._line(self._pending)
            self._pending = ""
        self._cutting = False

    def _line(self, line: str) -> None:
        if self._cutting:
            # The head of this line was sent when it outgrew the limit; its tail is dropped up to the newline.
            self._cutting = False
            return
        text = line if len(line) <= LOG_LINE_CHARS else line[:LOG_LINE_CHARS] + "…"
        self._channel.event("log", self._level, stream=self._stream, text=text.encode("utf-8", "replace").decode("utf-8"))


class _ByteSide(io.RawIOBase):
    """``sys.stdout.buffer``: bytes are decoded as UTF-8, damaged ones replaced."""

    def __init__(self, text: LineWriter) -> None:
        super().__init__()
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._text.write(raw.decode("utf-8", "replace"))
        return len(raw)


@contextmanager
def captured_output(channel: Channel) -> Iterator[None]:
    """Turns ``print()`` and friends into ``log`` events (stdout: info, stderr: warning). Lines are bounded here; how many
    of them are kept is the supervisor's to say."""
    saved = sys.stdout, sys.stderr
    out = LineWriter("stdout", "info", channel, 1)
    err = LineWriter("stderr", "warning", channel, 2)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = saved
        out.finish()
        err.finish()
