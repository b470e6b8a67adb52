"""PID 1 of a job container: takes one job over stdin, runs tenant code in forked children, reports the truth over stdout.

Single-threaded on purpose (it forks), never imports tenant code, and does not handle signals a tenant could send: without
a handler the kernel drops signals to PID 1 that come from inside its own namespace (pid_namespaces(7)).
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys
import tarfile
import time

import _signal as signal  # see processes.py
from ade_native import forbid_core_dumps, set_dumpable

from . import RUNNER_VERSION, cgroup, frames, tunnel
from .deps_volume import overfull, set_fault
from .engine import Engine, EngineGone, InputArchive, unpack
from .findings import Finding, Findings, finding
from .frames import Frame, ProtocolError
from .outputs import collect
from .processes import drain, kill_children, kill_everything, wakeup_pipe
from .relay import CHILD_EVENTS, INSTALLER_EVENTS, LogLines, Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any, NoReturn

ROOT = "/job"
_CHUNK = 65_536
_TICK_S = 0.5
_CLOCK_S = 0.1
"""How often the clocks are looked at while there is much to do; reading one costs as much as relaying a frame."""
_DISK_LOOK_S, _DISK_LOOK_MAX_S = 0.5, 5.0
_DISK_LOOK_SHARE = 20
"""The pause after a look at the disk, as a multiple of what the look took."""
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


class Ended:
    """How a child ended."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.result: dict[str, Any] | None = None
        self.phase = "load"
        self.stopped: str | None = None
        self.findings: Findings | None = None
        """Of a dry run: what it has found so far."""
        self.trying: str | None = None
        """The script that it is at."""
        self.error: dict[str, Any] | None = None
        """Set when the supervisor itself ended the child (CPU limit, forged channel)."""
        self.end_hook_seen = False
        self.end_hook_timed_out = False


class Waiting:
    """A forked child that waits for its job, and loads meanwhile what a job needs. ``bundle`` is entered while it does."""

    def __init__(self, bundle: AbstractContextManager[object]) -> None:
        pipes = [os.pipe() for _ in range(4)]
        self.pid = os.fork()
        if self.pid == 0:
            (order, _), *reports = pipes
            _become_child(order, [write for _, write in reports], bundle)
        (order, self._order), *reports = pipes
        os.close(order)
        self.reports: list[int] = []
        for read, write in reports:
            os.close(write)
            os.set_blocking(read, False)
            self.reports.append(read)

    def waits(self) -> bool:
        """Whether it is still there."""
        return os.waitpid(self.pid, os.WNOHANG) == (0, 0)

    def begin(self, job: dict[str, Any], ended: dict[str, Any] | None) -> None:
        """Gives it its job."""
        view = memoryview(json.dumps([job, ended]).encode())
        try:
            while view:
                view = view[os.write(self._order, view) :]
        except BrokenPipeError:
            pass  # whoever watches it sees that it has ended
        finally:
            os.close(self._order)


class Child:
    """A child that does a job, from its begin to the last process of its tree being gone."""

    def __init__(
        self, waiting: Waiting, engine: Engine, relay: Relay, job: dict[str, Any], ended: dict[str, Any] | None
    ) -> None:
        self._engine = engine
        self._relay = relay
        self._limits: dict[str, Any] = job["limits"]
        self._end_only = ended is not None
        self._next_disk_look = 0.0
        self._set_bytes: int | None = job["install"]["max_bytes"] if job["mode"] == "install" else None
        self.ended = Ended()
        if job["mode"] == "validate":
            self.ended.findings = Findings()
        if engine.tunnel is not None:
            engine.tunnel.open()
        self._pid = waiting.pid
        out, err, channel = waiting.reports
        self._logs = {out: LogLines("stdout"), err: LogLines("stderr")}
        self._channel = channel
        self._channel_decoder: frames.Decoder | None = frames.Decoder()
        self._open = set(waiting.reports)
        self._poll = select.poll()
        self._next_look = 0.0
        self._end_deadline: float | None = None
        if self._end_only:
            self._arm_end_budget()
        waiting.begin(job, ended)

    def watch(self, wakeup: int) -> Ended:
        """Relays until the child has ended, then makes sure that nothing of it is left."""
        poll = self._poll
        for fd in (*self._open, wakeup, self._engine.stdin):
            poll.register(fd, select.POLLIN)
        connections = self._engine.tunnel
        if connections is not None:
            connections.watch(poll)
        while not self._reaped():
            due = self._engine.due()
            if due == 0.0:
                self._engine.flush()
                due = None
            for fd, events in poll.poll((_TICK_S if due is None else due) * 1000):
                if fd == wakeup:
                    drain(wakeup)
                elif fd == self._engine.stdin:
                    self._engine.fill()
                elif fd in self._open:
                    self._read(fd)
                elif connections is not None:
                    connections.ready(fd, events)
            self._obey()
            self._check_clocks()
        kill_everything()
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
            self._engine.put(frames.encode(frames.PROGRESS, frame.payload))
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
        elif frame.kind == frames.FINDING and self.ended.findings is not None:
            message = frame.json()
            one, script = message.get("finding"), message.get("script")
            if isinstance(one, dict):
                self.ended.findings.add(one)
            if isinstance(script, str):
                self.ended.trying = script
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
            kill_children()

    def _check_clocks(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _CLOCK_S
        if self._end_deadline is not None and now > self._end_deadline:
            self._end_deadline = None
            self.ended.end_hook_timed_out = True
            kill_children()
        if self._set_bytes is not None and self.ended.result is None and now >= self._next_disk_look:
            self._check_disk(self._set_bytes)
            done = time.monotonic()
            # Thousands of files take a while to count, and an install makes thousands.
            pause = min(max(_DISK_LOOK_S, _DISK_LOOK_SHARE * (done - now)), _DISK_LOOK_MAX_S)
            self._next_disk_look = done + pause
        limit = int(self._limits["cpu_seconds"])
        used = cgroup.cpu_ms()
        if used is not None and used > limit * 1000 and self.ended.error is None and self.ended.result is None:
            self._end_with("cpu_limit", f"the scripts used more than {limit} s of CPU time")

    def _check_disk(self, limit: int) -> None:
        """A volume has no quota, so that an installer is watched from outside of what may misbehave."""
        fault = overfull(limit)
        if fault is not None:
            self._end_with("dependency_install_failed", *fault)

    def _end_with(self, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        if self.ended.error is None:
            self.ended.error = {
                "kind": kind, "message": message, "pass": None, "script": None, "function": None, "line": None,
                "detail": detail,
            }  # fmt: skip
        kill_children()


def _become_child(order: int, reports: list[int], bundle: AbstractContextManager[object]) -> NoReturn:
    """Runs in the forked child; never returns."""
    code = 70
    try:
        out, err, channel = reports
        channel = os.dup2(channel, 200, inheritable=False)
        order = os.dup2(order, 201, inheritable=False)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, channel)
        os.closerange(order + 1, 1024)
        cgroup.forget()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        set_dumpable(True)
        first = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(first, b"1000")
        os.close(first)
        os.setsid()
        os.environ.clear()
        os.environ.update(_ENVIRONMENT)
        from . import child

        asked = child.wait(order, bundle)
        if asked is None:
            code = 0
            return
        job, ended = asked
        if (terms := job.get("egress")) is not None:
            ca_bundle = terms["ca_bundle"]
            os.environ.update(tunnel.environment(None if ca_bundle is None else f"{ROOT}/{ca_bundle}"))
        os.chdir("package")
        code = child.run(job, ROOT, channel, ended)
    except BaseException as error:  # noqa: BLE001 - nothing may unwind into the supervisor's stack
        try:
            os.write(2, f"child setup: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        except OSError:
            pass
    finally:
        os._exit(code)


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


def _cut_off(ended: Ended) -> list[Finding]:
    """At which script a dry run ended before its end."""
    if ended.trying is None:
        return []
    if ended.stopped is not None:
        message = "the time for all scripts ran out while this one was tried"
    elif ended.error is not None:
        message = f"{ended.error['message']}, and this one was tried just then"
    else:
        how = f"signal {ended.signal}" if ended.signal is not None else f"exit code {ended.exit_code}"
        message = f"the process that tries scripts out was ended ({how}) while it was at this one, by it or by what another left running"
    return [finding("script_crashed", ended.trying, message)]


def serve(engine: Engine, bundle: AbstractContextManager[object]) -> None:
    """One job, from READY to DONE."""
    waiting = Waiting(bundle)
    ready = {"protocol": frames.PROTOCOL, "runner_version": RUNNER_VERSION, "python": ".".join(map(str, sys.version_info[:3]))}
    engine.send(frames.encode_json(frames.READY, ready))
    frame = engine.next_frame()
    if frame.kind != frames.JOB:
        raise ProtocolError(f"frame 0x{frame.kind:02x} before the job")
    engine.send(frames.encode(frames.TAKEN))
    job = frame.json()
    limits = job["limits"]
    mode = job["mode"]
    allowed = INSTALLER_EVENTS if mode == "install" else CHILD_EVENTS
    relay = Relay(engine, int(limits["log_lines"]), int(limits["log_bytes"]), allowed)
    archive = InputArchive(engine)
    try:
        for name in ("package", "in", "out", "tmp"):
            os.mkdir(name)
        unpack(archive, ".")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        archive.drain()
        message = f"the package and the inputs do not fit into the scratch space of {limits['scratch_mb']} MB"
        engine.send(frames.encode(frames.END, b"", frames.OUTPUT))
        _done(engine, "setup_failed", _error("disk_full", message), None, relay, [], [])
        return

    fault = set_fault(job)
    if fault is not None:
        engine.send(frames.encode(frames.END, b"", frames.OUTPUT))
        _done(engine, "setup_failed", _error("dependency_unavailable", fault), None, relay, [], [])
        return

    if (terms := job.get("egress")) is not None:
        engine.tunnel = tunnel.Tunnel(engine.send, terms)
        for pipe in (engine.stdin, engine.stdout):
            tunnel.widen(pipe)
    wakeup = wakeup_pipe()
    oom_before = cgroup.oom_kills() or 0
    ended = Child(waiting if waiting.waits() else Waiting(bundle), engine, relay, job, None).watch(wakeup)
    oom_kills = max(0, (cgroup.oom_kills() or 0) - oom_before)
    result = ended.result
    if result is not None and not isinstance(result.get("ok"), bool):
        result, ended.error = None, _error("protocol_violation", "the completion record has no verdict")
    if result is None and mode == "run" and not ended.end_hook_seen:
        last = Child(Waiting(bundle), engine, relay, job, _death(ended, oom_kills)).watch(wakeup).end_hook_timed_out
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
    elif ended.findings is not None:
        record["diagnostics"] = [*_cut_off(ended), *ended.findings.entries()]
    _done(engine, outcome, error, record, relay, sent, refused)


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


def main(bundle: AbstractContextManager[object]) -> NoReturn:
    """Entry point of the container; modules are loaded faster while ``bundle`` is entered. Refuses to be anything but PID 1: it kills
    every process that it can signal."""
    if os.getpid() != 1:
        print("supervisor: this is not PID 1 of a container", file=sys.stderr)
        os._exit(71)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would let a tenant interrupt PID 1
    set_dumpable(False)
    forbid_core_dumps()
    # Names from here do not begin at the root, whose storage driver may have to be asked about it every time.
    os.chdir(ROOT)
    code = 0
    engine = Engine(os.dup(0), os.dup(1))
    try:
        serve(engine, bundle)
    except (EngineGone, BrokenPipeError):
        code = 0
    except (ProtocolError, tarfile.TarError, KeyError) as error:
        print(f"supervisor: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        code = 71
    finally:
        kill_children()
    os._exit(code)
