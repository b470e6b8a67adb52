"""A job from its first to its last act: load, hooks, the five passes, the completion record, ``on_job_end``."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .artifact import OUTPUT_NAME, Artifact, encode
from .channel import Channel, captured_output
from .errors import JobError
from .files import discard
from .generate import plan_output, write_output
from .hooks import load_hooks, run_hooks
from .manifest import HookRef, Manifest, load_manifest
from .mapping import run_mapping
from .run import BATCH_ROWS, JobRun
from .scripts import Diagnostics, Package, Rule, Scripts, exception_name, raise_if_fatal, script_environment
from .spill import Spill
from .structure import run_structure
from .transform import run_transform
from .validation import run_validate
from .writer import SheetWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ACTIVATION_NAME = "activation.json"
ACTIVATION_BYTES = 262_144
"""What the hooks of an activation return may have this many bytes of JSON together."""
NO_SCRIPTS = Scripts((), {}, {}, {})


def run_job(job: dict[str, Any], root: str, channel: Channel, *, batch_rows: int = BATCH_ROWS) -> None:
    """Runs a job in ``root`` (``/job``). Tenant faults never raise: they are in the completion record, which is sent
    before ``on_job_end`` runs, and in the artifact."""
    channel.phase("load")
    diagnostics = Diagnostics()
    artifact = Artifact.begin(job, f"{root}/out", diagnostics)
    try:
        manifest = load_manifest(f"{root}/package")
        artifact = Artifact.begin(job, f"{root}/out", diagnostics, manifest)
        artifact.save()
    except JobError as fault:
        # Nothing of a package whose manifest cannot be read is executed, on_job_end included.
        _fail(artifact, channel, fault.as_dict("load"))
        return
    with stage(job, root, channel, manifest, artifact, diagnostics, batch_rows) as run:
        error = _passes(run)
        _finish(run, error)


def run_job_end(job: dict[str, Any], root: str, channel: Channel, error: dict[str, Any]) -> None:
    """Runs only ``on_job_end``, in a fresh child after the first one was killed: with the artifact as last saved, and
    ``job_context`` as far as the annotations of ``on_job_start`` hold it. Sends no completion record."""
    diagnostics = Diagnostics()
    for name in ("out", "tmp"):  # whatever the first child did to them
        os.makedirs(f"{root}/{name}", exist_ok=True)
    artifact = Artifact.saved(job, f"{root}/out", diagnostics)
    artifact.finish("cancelled" if error.get("kind") == "cancelled" else "failed", error)
    try:
        manifest = load_manifest(f"{root}/package")
        with stage(job, root, channel, manifest, artifact, diagnostics) as run:
            for entry in artifact.data["annotations"]:
                if isinstance(entry, dict) and entry.get("stage") == "on_job_start":
                    run.job_context.update(
                        {k: v for k, v in entry.items() if k not in ("stage", "hook", "annotated_at", "duration_ms", "failed")}
                    )
            _job_end(run, error)
    except JobError as fault:
        diagnostics.add("runtime.job_end.failed", fault.message, level="error")
    artifact.save()


def run_activation(job: dict[str, Any], root: str, channel: Channel) -> None:
    """Runs the ``on_activate`` hooks of a package, after the import of all its scripts; any failure
    fails the activation. What the hooks returned is in ``activation.json``."""
    channel.phase("load")
    diagnostics = Diagnostics()
    artifact = Artifact.begin(job, f"{root}/out", diagnostics)
    error: dict[str, Any] | None = None
    phase = "load"
    try:
        manifest = load_manifest(f"{root}/package")
        artifact = Artifact.begin(job, f"{root}/out", diagnostics, manifest)
        with stage(job, root, channel, manifest, artifact, diagnostics) as run:
            run.scripts = run.package.load()
            run.artifact.data["rules"] = run.scripts.registry()
            phase = "on_activate"
            channel.phase(phase)
            run_hooks(run, "on_activate", run.package.hook, success=True)
    except JobError as fault:
        error = fault.as_dict(phase)
    except (OSError, EOFError, zlib.error) as fault:
        error = _storage_fault(fault).as_dict(phase)
    except MemoryError:
        error = JobError(
            "out_of_memory", "the hooks ran out of memory; raise engine.defaults.memory_mb"
        ).as_dict(phase)
    try:
        _save_activation(f"{root}/out", artifact.data["annotations"], diagnostics)
    except JobError as fault:
        error = error or fault.as_dict(phase)
    channel.result(error is None, error, None)


def _save_activation(folder: str, annotations: list[dict[str, Any]], diagnostics: Diagnostics) -> None:
    """Writes ``activation.json``: the annotations of the hooks, what they returned within a budget, and diagnostics."""
    kept: list[dict[str, Any]] = []
    left = ACTIVATION_BYTES
    for entry in annotations:
        left -= len(json.dumps(entry))
        if left < 0:
            diagnostics.add(
                "runtime.hook.annotation_dropped",
                f"all hooks together returned more than {ACTIVATION_BYTES:,} bytes as JSON; the rest is not kept",
                level="error",
                script=entry.get("hook"),
            )
            entry = {key: entry[key] for key in ("stage", "hook", "annotated_at", "duration_ms", "failed") if key in entry}
        kept.append(entry)
    record = {"annotations": kept, "diagnostics": diagnostics.entries()}
    path = f"{folder}/{ACTIVATION_NAME}"
    try:
        discard(path)
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(encode(record))
    except OSError as fault:
        raise_if_fatal(fault)
        raise JobError("script_error", "out/activation.json cannot be written: a script changed /job/out") from None


# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def stage(
    job: dict[str, Any],
    root: str,
    channel: Channel,
    manifest: Manifest,
    artifact: Artifact,
    diagnostics: Diagnostics,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[JobRun]:
    """What a job needs around it: column stores, captured output, and the scripts' environment."""
    raw, transformed = Spill(f"{root}/tmp/columns.raw"), Spill(f"{root}/tmp/columns.transformed")
    try:
        with (
            script_environment(f"{root}/package", manifest.env),
            captured_output(channel),
        ):
            yield JobRun(
                job=job,
                root=root,
                channel=channel,
                package=Package(f"{root}/package", manifest),
                scripts=NO_SCRIPTS,
                artifact=artifact,
                diagnostics=diagnostics,
                raw=raw,
                transformed=transformed,
                batch_rows=batch_rows,
            )
    finally:
        raw.close()
        transformed.close()


def _passes(run: JobRun) -> dict[str, Any] | None:
    """Everything up to the completion record; the error when there is one."""
    at = _At(run)
    try:
        run.scripts = run.package.load()
        run.artifact.data["rules"] = run.scripts.registry()
        hooks = load_hooks(run)
        at.hooks("on_job_start", hooks.__getitem__)
        at.done("structure", run_structure)
        at.done("mapping", run_mapping)
        at.hooks("after_mapping", hooks.__getitem__)
        at.done("transform", run_transform)
        at.hooks("on_after_extract", hooks.__getitem__)
        at.done("validate", run_validate)
        at.hooks("after_validate", hooks.__getitem__)
        at.done("generate", lambda _: _generate(run, at, hooks))
    except JobError as fault:
        return fault.as_dict(at.name)
    except (OSError, EOFError, zlib.error) as fault:
        return _storage_fault(fault).as_dict(at.name)
    except MemoryError:
        return JobError(
            "out_of_memory", "the job ran out of memory; raise engine.defaults.memory_mb, or split the input"
        ).as_dict(at.name)
    return None


def _storage_fault(fault: BaseException) -> JobError:
    """Files under ``/job`` that fail: the disk is full, or a script took them away."""
    try:
        raise_if_fatal(fault)
    except JobError as known:
        return known
    return JobError(
        "script_error",
        "the job's own files in /job/in, /job/out or /job/tmp became unusable; scripts must leave them alone",
        detail={"exception": exception_name(fault)},
    )


class _At:
    """Where the job is, told to the channel and remembered for the error."""

    def __init__(self, run: JobRun) -> None:
        self._run = run
        self.name = "load"

    def phase(self, name: str) -> None:
        self.name = name
        self._run.channel.phase(name)

    def hooks(self, stage: str, load: Callable[[HookRef], Rule]) -> None:
        if self._run.manifest.hooks_of(stage):
            self.phase(stage)
            # No error has happened when any hook but on_job_end runs.
            run_hooks(self._run, stage, load, success=True)

    def done(self, name: str, work: Callable[[JobRun], dict[str, int]]) -> None:
        """Runs a pass between its two events, then saves the artifact."""
        self.phase(name)
        run = self._run
        run.refresh()
        run.channel.event("pass.start", **{"pass": name})
        began = time.monotonic()
        stats: dict[str, int] | None = None
        try:
            stats = work(run)
        finally:
            spent = round((time.monotonic() - began) * 1000)
            run.channel.event(
                "pass.exit",
                "info" if stats is not None else "error",
                **{"pass": name, "ok": stats is not None, "duration_ms": spent, "stats": stats},
            )
        run.artifact.passed(name, {**stats, "duration_ms": spent})
        run.artifact.save()


def _generate(run: JobRun, at: _At, hooks: dict[HookRef, Rule]) -> dict[str, int]:
    plan = plan_output(run)
    path = f"{run.root}/out/{OUTPUT_NAME}"
    discard(path)
    with SheetWriter(path, run.manifest.writer.output_sheet, plan.headers) as writer:
        rows = write_output(run, plan, writer)
        summary = run.artifact.data["summary"]
        summary |= {"rows_written": rows, "columns_written": len(plan.headers)}
        at.hooks("before_save", hooks.__getitem__)
        at.phase("generate")
    return {"rows_written": rows, "columns_written": len(plan.headers)}


def _finish(run: JobRun, error: dict[str, Any] | None) -> None:
    """Saves, sends the completion record, and then runs ``on_job_end``, whose failure changes nothing."""
    run.artifact.finish("failed" if error else "succeeded", error)
    if error is None:
        try:
            run.artifact.save()
        except JobError as fault:
            error = fault.as_dict("generate")
    if error is not None:
        _fail(run.artifact, run.channel, error)
    else:
        run.channel.result(True, None, dict(run.artifact.data["summary"]))
    _job_end(run, error)
    try:
        run.artifact.save()
    except JobError:
        # The completion record is out and the artifact of before on_job_end is in place.
        return


def _fail(artifact: Artifact, channel: Channel, error: dict[str, Any]) -> None:
    artifact.finish("failed", error)
    try:
        artifact.save()
    except JobError:
        # The disk is full, which the error says already or outranks; the artifact of the last pass is in place.
        pass
    channel.result(False, error, None)


def _job_end(run: JobRun, error: dict[str, Any] | None) -> None:
    if not run.manifest.hooks_of("on_job_end"):
        return
    run.channel.phase("on_job_end")
    try:
        run_hooks(run, "on_job_end", run.package.hook, success=error is None, error=error, recorded_only=True)
    except (JobError, MemoryError):
        run.diagnostics.add("runtime.job_end.failed", "on_job_end could not be run to its end", level="error")
