"""Mode ``validate``: every script is imported, and every detector, transform and validator called with made-up values.

Hooks are imported and not called, for they have effects. This process imports nothing of the package: a worker does, script by
script, and says over a pipe where it is. When one dies, hangs or runs out of memory, the script it was at is named, and
another worker goes on behind it, so that one bad script does not hide what there is to say about the others. What is found
goes to the supervisor at once: a script that kills this process as well takes nothing back.
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from ade_native import set_dumpable

from . import cgroup
from .artifact import Artifact
from .channel import Channel, Progress
from .errors import JobError
from .findings import MAX_DIAGNOSTICS, Finding, Findings, finding
from .manifest import Field, HookRef, Manifest, load_manifest
from .mapping import detect
from .pipeline import NO_SCRIPTS, stage
from .records import record
from .run import JobRun
from .scripts import Diagnostics, Package, Rule, Scripts, exception_name, exception_text, locate, raise_if_fatal
from .structure import SAMPLE_VALUES
from .structure.rows import Surroundings, package_classifier
from .tables import Piece, Stored, Table, TableColumn
from .transform import transform_column
from .validation import Ledger, validate_column
from .values import Value

SCRIPT_SECONDS = 8.0
"""For the import of one script and the calls of its functions."""
SHARE_OF_TIMEOUT = 0.8
"""All scripts together get this part of the container's time, so that there is some left for saying what was found."""
TEXT_CHARS = 300
_LINE_BYTES = 256 * 1024
"""One message of a worker."""

_TEXTS: tuple[Value, ...] = (
    "A-1001", "  Ada Lovelace ", "ada@example.org", "", None, "1.234,50", "2024-03-01", "€ 12", "yes", "n/a", "0", "ÄÖÜ ß 東京",
)  # fmt: skip
_CELLS: tuple[Value, ...] = (
    "text", None, 0, 1, -3, 2.5, 1e12, True, datetime.datetime(2024, 3, 1, 12, 30), datetime.date(2024, 2, 29), datetime.time(8, 0),
)  # fmt: skip
"""What a column of a csv file may hold, and of a workbook."""

_CODES = {"package_invalid": "script_refused", "script_error": "script_import_failed", "out_of_memory": "script_memory_limit"}
"""The loader's kinds of error, as diagnostics."""


@record
class Try:
    """One script in one role: row detectors (neither is set), a field's script, or a hook."""

    script: str
    field: Field | None = None
    hook: HookRef | None = None


def dry_run(job: dict[str, Any], root: str, channel: Channel, seconds: float = SCRIPT_SECONDS) -> None:
    """Tries all scripts of ``/job/package`` and sends one completion record with everything that there is to say about them."""
    channel.phase("validate")
    try:
        manifest = load_manifest(f"{root}/package")
    except JobError as fault:
        channel.result(False, fault.as_dict("validate"), None)
        return
    tries = plan(Package(f"{root}/package", manifest))
    found = Findings(channel.found)
    deadline = time.monotonic() + int(job["limits"]["timeout_ms"]) / 1000 * SHARE_OF_TIMEOUT
    at = 0
    while at < len(tries):
        if time.monotonic() >= deadline:
            found.add(finding("dry_run_skipped", tries[at].script, f"no time was left for this script and {len(tries) - at - 1} more"))
            break
        try:
            at = _round(job, root, manifest, tries, at, found, channel, seconds, deadline)
        except OSError as fault:
            message = f"no process could be started for it ({fault.strerror}): those of other scripts are still there"
            found.add(finding("script_crashed", tries[at].script, message))
            break
    channel.result(True, None, None, diagnostics=found.entries())


def plan(package: Package) -> list[Try]:
    """The scripts in the order in which a job would call them; hooks last."""
    manifest = package.manifest
    rows = [Try(script) for script in package.row_scripts()]
    fields = [Try(one.script, field=one) for one in manifest.enabled_fields if one.script]
    hooks = {hook.script: Try(hook.script, hook=hook) for hook in manifest.hooks}
    return [*rows, *fields, *hooks.values()]


# ---------------------------------------------------------------------------------------------------------------------
# The process that watches


def _round(
    job: dict[str, Any],
    root: str,
    manifest: Manifest,
    tries: list[Try],
    start: int,
    found: Findings,
    channel: Channel,
    seconds: float,
    deadline: float,
) -> int:
    """Has a worker try the scripts from ``start`` on; returns where the next one has to begin."""
    read, write = os.pipe()
    wait, go_on = os.pipe()
    os.set_blocking(go_on, False)
    oom_before = cgroup.oom_kills() or 0
    channel.trying(tries[start].script)
    try:
        worker = os.fork()
    except OSError:
        for end in (read, write, wait, go_on):
            os.close(end)
        raise
    if worker == 0:
        _become_worker(write, wait, job, root, manifest, tries, start)
    os.close(write)
    os.close(wait)
    try:
        at, why = _listen(read, go_on, start, tries, found, channel, seconds, deadline)
    finally:
        os.close(read)
        os.close(go_on)
        status = _end(worker)
    if at >= len(tries):
        return at
    found.add(_how_it_ended(tries[at].script, why, status, (cgroup.oom_kills() or 0) > oom_before))
    return at + 1


def _listen(
    read: int, go_on: int, start: int, tries: list[Try], found: Findings, channel: Channel, seconds: float, deadline: float
) -> tuple[int, str | None]:
    """Takes what a worker says until it says no more; returns the script it is at, and why it is to be ended.

    The worker goes on when it is told to: the next script may kill this process, and by then everything has been passed on."""
    at = start
    pending = bytearray()
    limit = time.monotonic() + seconds
    poll = select.poll()
    poll.register(read, select.POLLIN)
    while True:
        now = time.monotonic()
        if now >= min(limit, deadline):
            return at, f"did not come to an end within {min(limit, deadline) - limit + seconds:.0f} s"
        if not poll.poll((min(limit, deadline) - now) * 1000 + 1):
            continue
        chunk = os.read(read, 65_536)
        if not chunk:
            return at, None
        *lines, rest = (pending + chunk).split(b"\n")
        pending = bytearray(rest)
        if len(pending) > _LINE_BYTES:
            return at, "wrote to the runner's own channel"
        for line in lines:
            said = _parsed(line)
            if said is None:
                return at, "wrote to the runner's own channel"
            for one in said:
                found.add(one)
            at += 1
            limit = time.monotonic() + seconds
            if at >= len(tries):
                return at, None
            channel.trying(tries[at].script)
            try:
                os.write(go_on, b"\n")
            except (BlockingIOError, BrokenPipeError):
                pass  # it said more than it was asked, or is gone


def _parsed(line: bytes) -> list[Finding] | None:
    """The findings of one script, as far as they look like any: scripts live in the process that wrote this."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, list):
        return None
    found: list[Finding] = []
    for one in said[:MAX_DIAGNOSTICS]:
        if not isinstance(one, dict):
            return None
        code, path, message = one.get("code"), one.get("path"), one.get("message")
        line_number, function = one.get("line"), one.get("function")
        if not isinstance(code, str) or not isinstance(path, str) or not isinstance(message, str):
            return None
        found.append(
            finding(
                code[:80], path[:240], message[: 2 * TEXT_CHARS],
                line_number if type(line_number) is int and 0 < line_number < 2**31 else None,
                function[:100] if isinstance(function, str) else None,
            )  # fmt: skip
        )
    return found


def _end(worker: int) -> int:
    """Kills a worker with all of its session and returns its wait status."""
    for kill in (lambda: os.killpg(worker, signal.SIGKILL), lambda: os.kill(worker, signal.SIGKILL)):
        try:
            kill()
        except (ProcessLookupError, PermissionError):
            pass
    try:
        return os.waitpid(worker, 0)[1]
    except ChildProcessError:
        return 0


def _how_it_ended(script: str, why: str | None, status: int, out_of_memory: bool) -> Finding:
    if why is not None and "within" in why:
        return finding("script_time_limit", script, f"the import of this script or a call of its functions {why}")
    if why is not None:
        return finding("script_crashed", script, f"this script {why}")
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and out_of_memory:
        return finding("script_memory_limit", script, "the import of this script or a call of its functions took more memory than there is")
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.waitstatus_to_exitcode(status)}"
    return finding("script_crashed", script, f"this script ended its own process ({how})")


# ---------------------------------------------------------------------------------------------------------------------
# The process that imports


class _Silence:
    """The channel of a worker: what scripts print is theirs, and there is nothing else to say."""

    def event(self, event: str, level: str = "info", /, **detail: object) -> None:
        pass

    def progress(self, pass_name: str, rows: int, total: int | None) -> None:
        pass

    def phase(self, name: str) -> None:
        pass

    def trying(self, script: str) -> None:
        pass

    def found(self, one: Finding) -> None:
        pass

    def result(self, ok: bool, error: dict[str, Any] | None, summary: dict[str, Any] | None, **extra: object) -> None:
        pass


class _Context(dict[str, Any]):
    """``job_context`` without what ``on_job_start`` would have returned; notices when a script wants something of it."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self._expected = bool(manifest.hooks_of("on_job_start"))
        self.missed = False

    def __missing__(self, key: str) -> NoReturn:
        self.missed = self._expected
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.missed = self.missed or (self._expected and key not in self)
        return super().get(key, default)


class _Told(Diagnostics):
    """Diagnostics that quote the exception: its values are made up, so that there is nothing to hide. What a function does
    without the context that it wants says nothing about it."""

    def __init__(self, context: _Context) -> None:
        super().__init__()
        self._context = context

    def refused(self, code: str, rule: Rule, message: str, place: Any = None) -> None:
        if not self._context.missed:
            super().refused(code, rule, message)

    def fault(self, code: str, rule: Rule, fault: BaseException, package: str, place: Any = None) -> None:
        raise_if_fatal(fault)
        if self._context.missed:
            return
        script, function, line = locate(fault, package)
        text = exception_text(fault, TEXT_CHARS)
        message = f"{rule.function} raised {exception_name(fault)}{': ' if text else ''}{text}"
        self.add(code, message, script=script or rule.script, function=function or rule.function, line=line or rule.line)


def _become_worker(
    write: int, wait: int, job: dict[str, Any], root: str, manifest: Manifest, tries: list[Try], start: int
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        set_dumpable(True)
        # Above both, so that none is closed before it is moved.
        write, wait = fcntl.fcntl(write, fcntl.F_DUPFD, 10), fcntl.fcntl(wait, fcntl.F_DUPFD, 10)
        os.dup2(write, 3, inheritable=False)
        os.dup2(wait, 4, inheritable=False)
        # The channel to the supervisor is no business of a script's.
        os.closerange(5, 1024)
        _work(3, 4, job, root, manifest, tries, start)
        code = 0
    finally:
        os._exit(code)


def _work(
    write: int, wait: int, job: dict[str, Any], root: str, manifest: Manifest, tries: list[Try], start: int
) -> None:
    diagnostics = Diagnostics()
    artifact = Artifact.begin(job, f"{root}/out", diagnostics, manifest)
    ours = os.getpid()
    with stage(job, root, _Silence(), manifest, artifact, diagnostics) as run:
        run.job_context = _Context(manifest)
        run.refresh()
        for one in tries[start:]:
            findings = list(_attempt(run, one))
            if os.getpid() != ours:
                return  # a script forked and came back; the original goes on
            data = memoryview(json.dumps(findings[:MAX_DIAGNOSTICS]).encode("ascii") + b"\n")
            while data:
                data = data[os.write(write, data) :]
            if not os.read(wait, 1):
                return


def _attempt(run: JobRun, one: Try) -> Iterator[Finding]:
    run.diagnostics = _Told(_fresh(run))
    try:
        _call(run, one)
    except JobError as fault:
        cause = fault.__cause__
        text = f": {exception_text(cause, TEXT_CHARS)}" if cause is not None else ""
        code = _CODES.get(fault.kind, "script_crashed")
        yield finding(code, fault.script or one.script, fault.message + text, fault.line, fault.function)
    except MemoryError:
        yield finding("script_memory_limit", one.script, "a call of its functions took more memory than there is")
    for entry in run.diagnostics.entries():
        script = entry.get("script", one.script)
        yield finding(entry["code"], script, entry["message"], entry.get("line"), entry.get("function"))


def _fresh(run: JobRun) -> _Context:
    """The context before a call."""
    context = run.job_context
    assert isinstance(context, _Context)
    context.missed = False
    return context


def _call(run: JobRun, one: Try) -> None:
    if one.hook is not None:
        run.package.hook(one.hook)
    elif one.field is not None:
        _call_column(run, one.field)
    else:
        _call_rows(run, one.script)


def _call_rows(run: JobRun, script: str) -> None:
    """Has the row detectors look at a header, two rows of data, and a row of totals."""
    run.scripts = Scripts(run.package.row_detectors(script), {}, {}, {})
    classify = package_classifier(run, "sheet_1", "Sheet1", "sample.xlsx")
    header: list[Value] = [one.label for one in run.manifest.enabled_fields] or ["Name"]
    width = len(header)
    above = Surroundings(in_table=True, header_row=1, rows=1, width=width)
    classify(1, header, Surroundings())
    for row, values in enumerate((_TEXTS, _CELLS, ("Total", None, 5)), start=2):
        classify(row, [values[at % len(values)] for at in range(width)], above)


def _call_column(run: JobRun, one: Field) -> None:
    """Calls what a field's script defines, with a column of texts and one of all kinds of cells."""
    detectors, transform, validator = run.package.detectors(one), run.package.transform(one), run.package.validator(one)
    allowed = [value for value in one.meta.get("allowed", ()) if isinstance(value, (str, int, float))]
    names = {field.id: field.enabled for field in run.manifest.fields}
    for number, values in enumerate((_TEXTS, _CELLS), start=1):
        table = _table(run, f"table_{number}", one, [*values, *allowed[:20]])
        for rule in detectors:
            _fresh(run)
            detect(run, rule, one, table, 0, names)
        _fresh(run)
        if transform is not None:
            transform_column(run, table, one, transform, 0, Progress(run.channel, "transform"))
        _fresh(run)
        if validator is not None:
            validate_column(run, Ledger(1), table, one, validator, 0)


def _table(run: JobRun, name: str, one: Field, values: list[Value]) -> Table:
    rows: list[Value] = list(range(2, len(values) + 2))
    batch = run.raw.append([values, rows])
    stored, places = Stored(), Stored()
    stored.add(Piece(run.raw, batch, 0))
    places.add(Piece(run.raw, batch, 1))
    column = TableColumn("column_1", one.label, 1, stored, values[:SAMPLE_VALUES])
    return Table(
        id=name, sheet_id="sheet_1", sheet_name="Sheet1", source_file="sample.xlsx", header_kind="raw", header_row=1,
        first_data_row=2, last_row=len(values) + 1, row_count=len(values), columns=[column], rows=places,
    )  # fmt: skip
