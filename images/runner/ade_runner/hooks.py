"""Running hooks: what they are told, what becomes of what they return, and what happens when they fail."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable

from .artifact import timestamp
from .errors import JobError
from .manifest import HookRef
from .run import JobRun
from .scripts import Rule, exception_name, exception_text, locate, raise_if_fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ANNOTATION_BYTES = 65_536
"""The JSON of what a hook returns may be this large in the artifact."""
ERROR_TEXT_CHARS = 500
_RESERVED = ("stage", "hook", "annotated_at", "duration_ms")


def load_hooks(run: JobRun) -> dict[HookRef, Rule]:
    """Loads the enabled hooks of a job. One of ``on_job_end`` that cannot be loaded is left for its own stage."""
    return {ref: run.package.hook(ref) for ref in run.manifest.hooks if ref.stage not in ("on_activate", "on_job_end")}


def run_hooks(
    run: JobRun,
    stage: str,
    load: Callable[[HookRef], Rule],
    *,
    success: bool | None = None,
    error: dict[str, Any] | None = None,
    recorded_only: bool = False,
) -> None:
    """Runs the hooks of one stage in order; the first failure raises ``hook_failed``. With ``recorded_only`` (for
    ``on_job_end``) failures become diagnostics and the other hooks still run."""
    refs = run.manifest.hooks_of(stage)
    if not refs:
        return
    run.refresh()
    for ref in refs:
        try:
            _one(run, ref, load, success, error)
        except JobError as fault:
            if not recorded_only:
                raise
            run.diagnostics.add(
                "runtime.hook.failed",
                fault.message,
                level="error",
                script=fault.script or ref.script,
                function=fault.function,
                line=fault.line,
            )


def _one(
    run: JobRun, ref: HookRef, load: Callable[[HookRef], Rule], success: bool | None, error: dict[str, Any] | None
) -> None:
    run.channel.event("hook.start", stage=ref.stage, hook=ref.script)
    began = time.monotonic()
    entry: dict[str, Any] = {"stage": ref.stage, "hook": ref.script, "annotated_at": timestamp(), "duration_ms": 0}
    ok = False
    try:
        rule = load(ref)
        answer = _call(run, rule, ref, success, error)
        ok = True
        if answer is not None:
            _keep(run, rule, ref, answer, entry)
    finally:
        entry["duration_ms"] = round((time.monotonic() - began) * 1000)
        if not ok:
            entry["failed"] = True
        run.artifact.note(entry)
        run.channel.event(
            "hook.exit", "info" if ok else "error", stage=ref.stage, hook=ref.script, duration_ms=entry["duration_ms"], ok=ok
        )


def _call(run: JobRun, rule: Rule, ref: HookRef, success: bool | None, error: dict[str, Any] | None) -> Any:
    job = run.artifact.data["job"]
    known = run.common(
        stage=ref.stage,
        success=success,
        error=error,
        mapping=_mapping(run.artifact.data["sheets"]),
        warnings=list(run.warnings),
        job={**job, "inputs": [one["name"] for one in run.artifact.data["inputs"]]},
        output=run.artifact.data["output"],
    )
    try:
        return rule(known)
    except BaseException as fault:  # noqa: BLE001 - scripts may raise anything
        raise_if_fatal(fault)
        script, function, line = locate(fault, run.package.root)
        name = exception_name(fault)
        run.channel.event(
            "log",
            "error",
            stream="hook",
            hook=ref.script,
            text=f"{name} at {script or ref.script}:{line or rule.line}: {exception_text(fault, ERROR_TEXT_CHARS)}",
        )
        raise JobError(
            "hook_failed",
            f"hook {ref.script} ({ref.stage}) raised {name} at {script or ref.script}:{line or rule.line}",
            script=script or ref.script,
            function=function or rule.function,
            line=line or rule.line,
            detail={"stage": ref.stage, "exception": name},
        ) from None


def _keep(run: JobRun, rule: Rule, ref: HookRef, answer: object, entry: dict[str, Any]) -> None:
    """Takes what a hook returned: into ``job_context`` from ``on_job_start``, and into its annotation."""
    if not isinstance(answer, dict) or any(not isinstance(key, str) for key in answer):
        run.diagnostics.refused(
            "runtime.hook.invalid_result", rule, "a hook returns nothing or a dict with string keys", {"stage": ref.stage}
        )
        return
    if ref.stage == "on_job_start":
        run.job_context.update(answer)
    try:
        text = json.dumps(answer, allow_nan=False)
    except BaseException as fault:  # noqa: BLE001 - a returned object may run code when it is walked
        raise_if_fatal(fault)
        _too_much(run, rule, ref, "is not JSON")
        return
    if len(text) > ANNOTATION_BYTES:
        _too_much(run, rule, ref, f"has {len(text):,} bytes as JSON; at most {ANNOTATION_BYTES:,} are kept")
        return
    entry |= {key: value for key, value in json.loads(text).items() if key not in _RESERVED}


def _too_much(run: JobRun, rule: Rule, ref: HookRef, why: str) -> None:
    run.diagnostics.refused(
        "runtime.hook.annotation_dropped", rule, f"what the hook returned {why}; it is not in annotations", {"stage": ref.stage}
    )


def _mapping(sheets: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Per table id, a copy of its mapping entries."""
    return {table["id"]: [dict(one) for one in table["mapping"]] for sheet in sheets for table in sheet["tables"]}
