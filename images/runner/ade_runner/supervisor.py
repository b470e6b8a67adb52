"""PID 1 of a job container: takes one job over stdin, runs tenant code in forked children, reports the truth over stdout.

Single-threaded on purpose (it forks), never imports tenant code, and does not handle signals a tenant could send: without
a handler the kernel drops signals to PID 1 that come from inside its own namespace (pid_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import signal
import stat
import sys
import tarfile
import time
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

from . import RUNNER_VERSION, cgroup, child, frames, tunnel
from .frames import Frame, ProtocolError
from .tunnel import Tunnel

ROOT = Path("/job")
_PR_SET_DUMPABLE = 4
_CHUNK = 65_536
_TICK_S = 0.5
_CLOCK_S = 0.1
"""How often the clocks are looked at while there is much to do; reading one costs as much as relaying a frame."""
_REAP_BUDGET_S = 5.0
_LINE_BYTES = 4_096
_TAIL_LINES = 50
_EVENT_BYTES = 32_768
_MAX_EVENTS = 20_000
"""Relayed events other than log lines; a well-behaved job sends some dozens."""
_CHILD_EVENTS = frozenset({"log", "pass.start", "pass.exit", "hook.start", "hook.exit"})
_DISK_LOOK_S = 0.5
_SPARE_DISK = 256 * 1_048_576
"""What an installer leaves free on the engine's disk, bytes."""
_LEVELS = frozenset({"debug", "info", "warning", "error"})
_ENVIRONMENT = {
    "PATH": "/usr/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/job/tmp",
    "TMPDIR": "/job/tmp",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""The whole environment of tenant code, with that of the tunnel; the manifest's ``env`` is added by the pipeline."""
_OUTPUTS = {
    "run": ("artifact.json", "normalized.xlsx"),
    "activate": ("activation.json",),
    "read": ("cells.ndjson",),
    "install": ("install.log", "install.json"),
}
"""What the engine gets of each mode; of a failure, the first only."""
_INSTALLER_EVENTS = frozenset({"log", "deps.resolve", "deps.install"})
DEPS = Path("/deps")
"""Where a dependency set is mounted: read-only for a job, writable for its installer."""


class EngineGone(Exception):
    """Stdin was closed: the engine died or gave up; nothing may outlive it."""


class Engine:
    """The engine's end: frames in from stdin, frames out to stdout (blocking: the engine always reads)."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self._reader = frames.Reader(stdin)
        self._queue: deque[Frame] = deque()
        self.tunnel: Tunnel | None = None
        """Takes the frames of relayed connections, once there can be any."""

    def send(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.stdout, view) :]

    def event(self, event: str, level: str, detail: dict[str, Any]) -> None:
        self.send(frames.encode_json(frames.EVENT, {"event": event, "level": level, "detail": detail}))

    def fill(self) -> None:
        """Reads once from stdin; raises :class:`EngineGone` at its end."""
        if self._reader.fill() == 0:
            raise EngineGone
        for kind, stream, payload in self._reader.frames():
            if stream >= frames.FIRST_CONNECTION and self.tunnel is not None:
                self.tunnel.take(kind, stream, payload)
            else:
                self._queue.append(Frame(kind, stream, bytes(payload)))

    def next_frame(self) -> Frame:
        while not self._queue:
            self.fill()
        return self._queue.popleft()

    def waiting(self) -> list[Frame]:
        """Frames that have already arrived."""
        waiting = list(self._queue)
        self._queue.clear()
        return waiting


class InputArchive:
    """A readable file over the ``DATA`` frames of the input stream, for :mod:`tarfile`'s stream mode."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and not self._ended:
            frame = self._engine.next_frame()
            if frame.kind == frames.DATA and frame.stream == frames.INPUT:
                self._buffer += frame.payload
            elif frame.kind == frames.END and frame.stream == frames.INPUT:
                self._ended = True
            else:
                raise ProtocolError(f"frame 0x{frame.kind:02x} inside the input archive")
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def drain(self) -> None:
        while self.read(_CHUNK):
            pass


def unpack(archive: InputArchive, root: Path) -> None:
    """Writes the input archive below ``root``. Only regular files with plain relative names exist in it; anything else
    is a broken engine and refused."""
    with tarfile.open(fileobj=archive, mode="r|", bufsize=_CHUNK) as tar:
        for member in tar:
            parts = member.name.split("/")
            if not member.isreg() or member.name.startswith("/") or any(part in ("", ".", "..") for part in parts):
                raise ProtocolError(f"input archive: entry {member.name!r} is not a plain file")
            target = root.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            with open(target, "xb") as file:
                while source is not None and (chunk := source.read(_CHUNK)):
                    file.write(chunk)
    archive.drain()


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

    def __init__(self, engine: Engine, lines: int, size: int, allowed: frozenset[str] = _CHILD_EVENTS) -> None:
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
        self._engine.send(data)

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


class Ended:
    """How a child ended."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.result: dict[str, Any] | None = None
        self.phase = "load"
        self.stopped: str | None = None
        self.error: dict[str, Any] | None = None
        """Set when the supervisor itself ended the child (CPU limit, forged channel)."""
        self.end_hook_seen = False
        self.end_hook_timed_out = False


class Child:
    """One forked child, from fork to the last process of its tree being gone."""

    def __init__(self, engine: Engine, relay: Relay, job: dict[str, Any], ended: dict[str, Any] | None) -> None:
        self._engine = engine
        self._relay = relay
        self._limits: dict[str, Any] = job["limits"]
        self._end_only = ended is not None
        self._next_disk_look = 0.0
        self._set_bytes: int | None = job["install"]["max_bytes"] if job["mode"] == "install" else None
        self.ended = Ended()
        reads: list[int] = []
        writes: list[int] = []
        for _ in range(3):
            read, write = os.pipe()
            reads.append(read)
            writes.append(write)
        if engine.tunnel is not None:
            engine.tunnel.open()
        self._pid = os.fork()
        if self._pid == 0:
            _become_child(writes, job, ended)
        for write in writes:
            os.close(write)
        for read in reads:
            os.set_blocking(read, False)
        out, err, channel = reads
        self._logs = {out: LogLines("stdout"), err: LogLines("stderr")}
        self._channel = channel
        self._channel_decoder: frames.Decoder | None = frames.Decoder()
        self._open = set(reads)
        self._poll = select.poll()
        self._next_look = 0.0
        self._end_deadline: float | None = None
        if self._end_only:
            self._arm_end_budget()

    def watch(self, wakeup: int) -> Ended:
        """Relays until the child has ended, then makes sure that nothing of it is left."""
        poll = self._poll
        for fd in (*self._open, wakeup, self._engine.stdin):
            poll.register(fd, select.POLLIN)
        connections = self._engine.tunnel
        if connections is not None:
            connections.watch(poll)
        while not self._reaped():
            for fd, events in poll.poll(_TICK_S * 1000):
                if fd == wakeup:
                    _drain(wakeup)
                elif fd == self._engine.stdin:
                    self._engine.fill()
                elif fd in self._open:
                    self._read(fd)
                elif connections is not None:
                    connections.ready(fd, events)
            self._obey()
            self._check_clocks()
        _kill_everything()
        if connections is not None:
            connections.close()
        for fd in list(self._open):
            while fd in self._open and self._read(fd):
                pass
            if fd in self._open:
                self._close(fd)
        for log in self._logs.values():
            for line in log.finish():
                self._relay.line(log.stream, line)
        return self.ended

    def _reaped(self) -> bool:
        """Whether the child itself has ended (its orphans are reaped on the way)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                if os.WIFSIGNALED(status):
                    self.ended.signal = os.WTERMSIG(status)
                else:
                    self.ended.exit_code = os.WEXITSTATUS(status)
                return True

    def _read(self, fd: int) -> bool:
        """Reads one chunk; whether there may be more."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._close(fd)
            return False
        if fd == self._channel:
            self._messages(chunk)
        else:
            log = self._logs[fd]
            for line in log.feed(chunk):
                self._relay.line(log.stream, line)
        return True

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        self._poll.unregister(fd)
        os.close(fd)

    def _messages(self, chunk: bytes) -> None:
        if self._channel_decoder is None:
            return
        try:
            for frame in self._channel_decoder.feed(chunk):
                self._message(frame)
        except (ProtocolError, RecursionError) as error:
            self._channel_decoder = None
            self._end_with("protocol_violation", f"a script wrote to the runner's own channel: {error}")

    def _message(self, frame: Frame) -> None:
        if frame.kind == frames.PROGRESS:
            self._engine.send(frames.encode(frames.PROGRESS, frame.payload))
        elif frame.kind == frames.EVENT:
            message = frame.json()
            name = self._relay.relay(message)
            detail = message.get("detail")
            if name == "hook.start" and isinstance(detail, dict) and detail.get("stage") == "on_job_end":
                self.ended.end_hook_seen = True
        elif frame.kind == frames.PHASE:
            phase = frame.json().get("phase")
            if isinstance(phase, str):
                self.ended.phase = phase[:40]
        elif frame.kind == frames.RESULT:
            if self.ended.result is None and not self._end_only:
                self.ended.result = frame.json()
                self._arm_end_budget()
                # What was written since the last look counts as well.
                if self._set_bytes is not None:
                    self._check_disk(self._set_bytes)
        else:
            raise ProtocolError(f"unknown message 0x{frame.kind:02x}")

    def _arm_end_budget(self) -> None:
        self._end_deadline = time.monotonic() + int(self._limits["on_job_end_ms"]) / 1000

    def _obey(self) -> None:
        for frame in self._engine.waiting():
            if frame.kind != frames.STOP:
                raise ProtocolError(f"frame 0x{frame.kind:02x} while a job runs")
            reason = str(frame.json().get("reason"))
            finishing = self.ended.result is not None or self._end_only
            if finishing and reason == "timeout":
                continue  # the work is done in time; on_job_end has its own budget
            self.ended.stopped = reason
            _kill_children()

    def _check_clocks(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _CLOCK_S
        if self._end_deadline is not None and now > self._end_deadline:
            self._end_deadline = None
            self.ended.end_hook_timed_out = True
            _kill_children()
        if self._set_bytes is not None and self.ended.result is None and now >= self._next_disk_look:
            self._next_disk_look = now + _DISK_LOOK_S
            self._check_disk(self._set_bytes)
        limit = int(self._limits["cpu_seconds"])
        used = cgroup.cpu_ms()
        if used is not None and used > limit * 1000 and self.ended.error is None and self.ended.result is None:
            self._end_with("cpu_limit", f"the scripts used more than {limit} s of CPU time")

    def _check_disk(self, limit: int) -> None:
        """A volume has no quota, so that an installer is watched from outside of what may misbehave."""
        if _usage(DEPS) > limit:
            self._end_with(
                "dependency_install_failed", f"the dependency set takes more than {limit // 1_048_576} MB on disk",
                {"code": "set_too_large", "limit_mb": limit // 1_048_576},
            )
            return
        disk = os.statvfs(DEPS)
        if disk.f_bavail * disk.f_frsize < _SPARE_DISK:
            self._end_with(
                "dependency_install_failed", "the engine's disk is nearly full", {"code": "disk_full"}
            )

    def _end_with(self, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        if self.ended.error is None:
            self.ended.error = {
                "kind": kind, "message": message, "pass": None, "script": None, "function": None, "line": None,
                "detail": detail,
            }  # fmt: skip
        _kill_children()


def _become_child(writes: list[int], job: dict[str, Any], ended: dict[str, Any] | None) -> NoReturn:
    """Runs in the forked child; never returns."""
    code = 70
    try:
        out, err, channel = writes
        channel = os.dup2(channel, 200, inheritable=False)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, channel)
        os.closerange(channel + 1, 1024)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        _prctl_dumpable(True)
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        os.setsid()
        os.environ.clear()
        os.environ.update(_ENVIRONMENT)
        if (terms := job.get("egress")) is not None:
            bundle = terms["ca_bundle"]
            os.environ.update(tunnel.environment(None if bundle is None else str(ROOT / bundle)))
        os.chdir(ROOT / "package")
        code = child.run(job, ROOT, channel, ended)
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the supervisor's stack
        try:
            os.write(2, f"child setup: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        except OSError:
            pass
    finally:
        os._exit(code)


def _prctl_dumpable(dumpable: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, int(dumpable), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def _kill_children() -> None:
    """SIGKILL to every process of the container but this one (kill(2): pid -1 spares the caller and PID 1)."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _kill_everything() -> None:
    """Kills and reaps until no other process is left, or the budget is used up (the engine then kills the container)."""
    deadline = time.monotonic() + _REAP_BUDGET_S
    while time.monotonic() < deadline:
        _kill_children()
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            time.sleep(0.002)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def collect(engine: Engine, names: tuple[str, ...], limit: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Sends the outputs as one tar on stream 2; returns what was sent and what was refused and why.

    Called when no tenant process is left, so nothing changes under it. Links are never followed."""
    sent: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    try:
        folder = os.open(ROOT / "out", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        refused.append({"name": "out", "reason": "the output folder was replaced"})
        folder = -1
    for name in names if folder >= 0 else ():
        reason = _send_output(engine, folder, name, limit, sent)
        if reason is not None:
            refused.append({"name": name, "reason": reason})
    if folder >= 0:
        os.close(folder)
    engine.send(frames.encode(frames.DATA, bytes(1024), frames.OUTPUT))
    engine.send(frames.encode(frames.END, b"", frames.OUTPUT))
    return sent, refused


def _send_output(engine: Engine, folder: int, name: str, limit: int, sent: list[dict[str, Any]]) -> str | None:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"cannot be examined: {error.strerror}"
    kind = _kind_of(status.st_mode)
    if kind != "file":
        return f"is a {kind}, not a regular file"
    if status.st_nlink != 1:
        return "has further hard links"
    if status.st_size > limit:
        return f"has {status.st_size} bytes, the limit is {limit}"
    try:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    try:
        info = tarfile.TarInfo(name)
        info.size = status.st_size
        engine.send(frames.encode(frames.DATA, info.tobuf(tarfile.PAX_FORMAT), frames.OUTPUT))
        left = status.st_size
        while left:
            chunk = os.read(source, min(_CHUNK, left)) or bytes(min(_CHUNK, left))
            left -= len(chunk)
            engine.send(frames.encode(frames.DATA, chunk, frames.OUTPUT))
        padding = -status.st_size % 512
        if padding:
            engine.send(frames.encode(frames.DATA, bytes(padding), frames.OUTPUT))
    finally:
        os.close(source)
    sent.append({"name": name, "bytes": status.st_size})
    return None


def _kind_of(mode: int) -> str:
    for test, kind in (
        (stat.S_ISREG, "file"), (stat.S_ISLNK, "symbolic link"), (stat.S_ISDIR, "directory"),
        (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return kind
    return "device"


def _wakeup_pipe() -> int:
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"kind": kind, "message": message, "pass": None, "script": None, "function": None, "line": None, "detail": None}


def _death(ended: Ended, oom_kills: int) -> dict[str, Any]:
    """What on_job_end is told about a child that ended without a completion record; the engine judges for itself."""
    if ended.stopped is not None:
        kind = "timeout" if ended.stopped == "timeout" else "cancelled"
        return {**_error(kind, f"the job was stopped: {ended.stopped}"), "pass": ended.phase}
    if ended.error is not None:
        return {**ended.error, "pass": ended.phase}
    if ended.signal == signal.SIGKILL and oom_kills > 0:
        return {**_error("out_of_memory", "the scripts used more memory than the limit"), "pass": ended.phase}
    how = f"signal {ended.signal}" if ended.signal is not None else f"exit code {ended.exit_code}"
    return {**_error("script_error", f"the scripts' process ended by itself ({how})"), "pass": ended.phase}


def serve(engine: Engine) -> None:
    """One job, from READY to DONE."""
    ready = {"protocol": frames.PROTOCOL, "runner_version": RUNNER_VERSION, "python": ".".join(map(str, sys.version_info[:3]))}
    engine.send(frames.encode_json(frames.READY, ready))
    frame = engine.next_frame()
    if frame.kind != frames.JOB:
        raise ProtocolError(f"frame 0x{frame.kind:02x} before the job")
    job = frame.json()
    limits = job["limits"]
    mode = job["mode"]
    allowed = _INSTALLER_EVENTS if mode == "install" else _CHILD_EVENTS
    relay = Relay(engine, int(limits["log_lines"]), int(limits["log_bytes"]), allowed)
    archive = InputArchive(engine)
    try:
        for name in ("package", "in", "out", "tmp"):
            (ROOT / name).mkdir()
        unpack(archive, ROOT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        archive.drain()
        message = f"the package and the inputs do not fit into the scratch space of {limits['scratch_mb']} MB"
        engine.send(frames.encode(frames.END, b"", frames.OUTPUT))
        _done(engine, "setup_failed", _error("disk_full", message), None, relay, [], [])
        return

    fault = _set_fault(job)
    if fault is not None:
        engine.send(frames.encode(frames.END, b"", frames.OUTPUT))
        _done(engine, "setup_failed", _error("dependency_unavailable", fault), None, relay, [], [])
        return

    if (terms := job.get("egress")) is not None:
        engine.tunnel = Tunnel(engine.send, terms)
        for pipe in (engine.stdin, engine.stdout):
            tunnel.widen(pipe)
    wakeup = _wakeup_pipe()
    oom_before = cgroup.oom_kills() or 0
    ended = Child(engine, relay, job, None).watch(wakeup)
    oom_kills = max(0, (cgroup.oom_kills() or 0) - oom_before)
    result = ended.result
    if result is not None and not isinstance(result.get("ok"), bool):
        result, ended.error = None, _error("protocol_violation", "the completion record has no verdict")
    if result is None and mode == "run" and not ended.end_hook_seen:
        last = Child(engine, relay, job, _death(ended, oom_kills)).watch(wakeup).end_hook_timed_out
        ended.end_hook_timed_out = ended.end_hook_timed_out or last
    if ended.end_hook_timed_out:
        detail = {"stage": "on_job_end", "ok": False, "error": "timeout", "limit_ms": limits["on_job_end_ms"]}
        engine.event("hook.exit", "error", detail)
    relay.finish()

    cleanly = ended.exit_code == 0 or ended.end_hook_timed_out
    if ended.stopped is not None:
        outcome, error = "stopped", None
    elif result is not None and ended.error is None and cleanly:
        outcome, error = ("completed", None) if result["ok"] else ("failed", result.get("error"))
    else:
        outcome, error = "died", ended.error
    names = _OUTPUTS.get(mode, ())
    sent, refused = collect(engine, names if outcome == "completed" else names[:1], int(limits["output_mb"]) * 1_048_576)
    record = {"child": {"exit_code": ended.exit_code, "signal": ended.signal, "oom_kills": oom_kills, "phase": ended.phase}}
    if result is not None:
        record["summary"] = result.get("summary")
        record["diagnostics"] = result.get("diagnostics")
    _done(engine, outcome, error, record, relay, sent, refused)


def _set_fault(job: dict[str, Any]) -> str | None:
    """Whether the dependency set that the engine promised is the one that is mounted: Docker makes an empty volume of one that
    somebody removed."""
    lock = job.get("lock_sha256")
    if lock is None:
        return None
    try:
        found = (DEPS / "whole").read_text(encoding="ascii")
    except (OSError, ValueError):
        found = ""
    return None if found == lock else "the dependency set of this package is not what it was; it is made anew on the next try"


def _usage(folder: Path) -> int:
    """Bytes on disk below a folder. What vanishes meanwhile is not counted."""
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(here, name)).st_blocks * 512
            except OSError:
                continue
    return total


def _done(
    engine: Engine, outcome: str, error: dict[str, Any] | None, extra: dict[str, Any] | None,
    relay: Relay, sent: list[dict[str, Any]], refused: list[dict[str, Any]],
) -> None:
    record: dict[str, Any] = {"outcome": outcome, "error": error, "summary": None, "child": None}
    record.update(extra or {})
    record["usage"] = {"cpu_ms": cgroup.cpu_ms(), "peak_memory_bytes": cgroup.peak_memory_bytes()}
    record["outputs"], record["rejected"] = sent, refused
    record["dropped"] = {"log_lines": relay.dropped_lines, "log_bytes": relay.dropped_bytes}
    for doubtful in ("diagnostics", "summary", "error"):  # from the child, the least important first
        try:
            engine.send(frames.encode_json(frames.DONE, record))
            return
        except (ValueError, RecursionError):
            record[doubtful] = None
    record["outcome"], record["error"] = "failed", _error("protocol_violation", "the completion record is too large or no JSON")
    engine.send(frames.encode_json(frames.DONE, record))


def preload() -> None:
    """Imports what every job needs while the container is still parked: a fork then starts with it."""
    from . import check, pipeline  # noqa: F401


def main() -> NoReturn:
    """Entry point of the container. Refuses to be anything but PID 1: it kills every process that it can signal."""
    if os.getpid() != 1:
        print("supervisor: this is not PID 1 of a container", file=sys.stderr)
        os._exit(71)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would let a tenant interrupt PID 1
    _prctl_dumpable(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft or hard:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    preload()
    code = 0
    engine = Engine(os.dup(0), os.dup(1))
    try:
        serve(engine)
    except (EngineGone, BrokenPipeError):
        code = 0
    except (ProtocolError, tarfile.TarError, KeyError) as error:
        print(f"supervisor: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 71
    finally:
        _kill_children()
    os._exit(code)
