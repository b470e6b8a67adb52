"""The forked child: the only process that ever imports tenant code."""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import time

import _thread  # threading is much more than the lock that is wanted of it
from ade_native import set_dumpable

from . import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

_PROGRESS_INTERVAL = 0.1
_NEEDED = "ade_runner.pipeline"
"""What nearly every job needs."""
_WANTED = (
    "ade_runner.readers.zipped", "typing", "importlib.util", "datetime", "threading", "csv",
    "encodings.ascii", "encodings.utf_8_sig", "encodings.latin_1",
)  # fmt: skip
"""What many jobs need. It is loaded once nobody has wanted the container for :data:`_PATIENCE_MS`: where jobs wait for containers, one
has come by then, and is done sooner without what it does not need."""
_PATIENCE_MS = 50


class PipeChannel:
    """The child's end of the channel to the supervisor. Events past a frame's size lose their detail, never the frame.

    It belongs to one process. A frame is longer than a pipe writes in one piece, so threads take turns, and workers that
    scripts fork keep out: what they print goes to the plain stdout and stderr that they inherit. A forked copy that comes
    back into the runner, because a script forked and returned, would run the job a second time; it ends here."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()
        self._turn = _thread.RLock()
        self._last_progress = 0.0

    def event(self, event: str, level: str = "info", /, **detail: object) -> None:
        if event == "log" and os.getpid() != self._pid:
            self._print(detail)
            return
        payload = _dump({"event": event, "level": level, "detail": detail})
        if len(payload) > frames.MAX_PAYLOAD:
            payload = _dump({"event": event, "level": level, "detail": {"truncated": True, "bytes": len(payload)}})
        self._send(frames.EVENT, payload)

    def progress(self, pass_name: str, rows: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self._send(frames.PROGRESS, _dump({"pass": pass_name, "rows": rows, "total": total}))

    def phase(self, name: str) -> None:
        self._send(frames.PHASE, _dump({"phase": name}))

    def trying(self, script: str) -> None:
        self._send(frames.FINDING, _dump({"script": script}))

    def found(self, finding: dict[str, Any]) -> None:
        self._send(frames.FINDING, _dump({"finding": finding}))

    def result(self, ok: bool, error: dict[str, Any] | None, summary: dict[str, Any] | None, **extra: object) -> None:
        record: dict[str, Any] = {"ok": ok, "error": error, "summary": summary, **extra}
        payload = _dump(record)
        while len(payload) > frames.MAX_PAYLOAD:
            payload = _dump(_shrink(record))
        self._send(frames.RESULT, payload)

    def _send(self, kind: int, payload: bytes) -> None:
        if os.getpid() != self._pid:
            os._exit(0)
        data = memoryview(frames.encode(kind, payload))
        with self._turn:
            while data:
                data = data[os.write(self._fd, data) :]

    def _print(self, detail: dict[str, object]) -> None:
        data = memoryview(f"{detail.get('text')}\n".encode("utf-8", "replace"))
        while data:
            data = data[os.write(2 if detail.get("stream") == "stderr" else 1, data) :]


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")


def _shrink(record: dict[str, Any]) -> dict[str, Any]:
    """Halves the longest list of diagnostics in a record (says how many went), or drops what is not essential."""
    holders = [record, (record.get("error") or {}).get("detail") or {}]
    for holder in holders:
        diagnostics = holder.get("diagnostics")
        if isinstance(diagnostics, list) and diagnostics:
            keep = len(diagnostics) // 2
            holder["diagnostics_dropped"] = holder.get("diagnostics_dropped", 0) + len(diagnostics) - keep
            holder["diagnostics"] = diagnostics[:keep]
            return record
    error = record.get("error") or {}
    if error.get("detail") is not None:
        error["detail"] = None
        return record
    kept = {key: record[key] for key in ("ok", "error", "summary")}
    if error:
        kept["error"] = {**error, "message": str(error.get("message"))[:1000]}
    kept["summary"] = None
    record.clear()
    record.update(kept)
    return record


def load() -> None:
    """Loads all that a child may load while it waits."""
    for name in (_NEEDED, *_WANTED):
        __import__(name)


def wait(order: int, bundle: AbstractContextManager[object]) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """The job, and how a first child ended, as they are read from ``order``; none when there will be no job. Loads what it may need
    meanwhile, with ``bundle`` entered."""
    gc.disable()
    with bundle:
        _load_until(order)
    gc.freeze()
    gc.enable()
    chunks = []
    while chunk := os.read(order, 65_536):
        chunks.append(chunk)
    os.close(order)
    if not chunks:
        return None
    job, ended = json.loads(b"".join(chunks))
    return job, ended


def _load_until(order: int) -> None:
    """Loads what is needed, then what is wanted until there is something to read."""
    __import__(_NEEDED)
    poll = select.poll()
    poll.register(order, select.POLLIN)
    patience = _PATIENCE_MS
    for name in _WANTED:
        if poll.poll(patience):
            return
        patience = 0
        __import__(name)


def run(job: dict[str, Any], root: str, channel_fd: int, ended: dict[str, Any] | None) -> int:
    """Does the child's work and returns its exit code. ``ended`` is the error of a first child that died or was stopped."""
    channel = PipeChannel(channel_fd)
    if job.get("lock_sha256") is not None:
        # Behind the standard library, the runner, and the package's own vendor/: nothing in a set can shadow any of them.
        sys.path.append("/deps/site")
    try:
        if ended is not None:
            from .pipeline import run_job_end

            run_job_end(job, root, channel, ended)
        elif job["mode"] == "validate":
            from .dry_run import dry_run

            # What watches the scripts must be out of their reach.
            set_dumpable(False)
            dry_run(job, root, channel)
        elif job["mode"] == "install":
            from .installer import install

            install(job, root, channel)
        elif job["mode"] == "read":
            from .cells import read_cells

            read_cells(job, root, channel)
        elif job["mode"] == "activate":
            from .pipeline import run_activation

            run_activation(job, root, channel)
        else:
            from .pipeline import run_job

            run_job(job, root, channel)
    except BaseException:  # noqa: BLE001 - the supervisor reports whatever this is as a crash of the runner
        import traceback  # costs a parked container 10 ms that no healthy job needs

        traceback.print_exc(limit=20, file=sys.__stderr__)
        return 70
    finally:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
    return 0
