"""The part of ``manifest.json`` that the runner acts on, as typed values with the published defaults.

The engine validates a manifest in full when a package is uploaded. The runner still refuses what it could not act on:
it never trusts that the file it was handed is the file that was validated.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping

from .errors import JobError
from .records import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MANIFEST_BYTES = 1_048_576
FIELD_ID = re.compile(r"[a-z][a-z0-9_]{0,254}\Z")
SHEET_NAME_FORBIDDEN = frozenset("[]:*?/\\" + "".join(map(chr, range(32))))

DEFAULT_MAPPING_THRESHOLD = 0.5
"""A column is mapped from this score on, unless ``engine.defaults.mapping_score_threshold`` says otherwise. One clear
sign (a built-in header match scores 0.8 or more) is enough, one faint hint is not."""

HOOK_ALIASES = {"on_prepare": "on_activate", "after_transform": "on_after_extract"}
HOOK_STAGES = (
    "on_activate",
    "on_job_start",
    "after_mapping",
    "on_after_extract",
    "after_validate",
    "before_save",
    "on_job_end",
)


@record
class HookRef:
    """One enabled hook: its canonical stage and its script, relative to the package."""

    stage: str
    script: str


@record
class Field:
    """One target field, in manifest order. ``meta`` is its ``columns.meta`` object as written."""

    id: str
    label: str
    required: bool
    enabled: bool
    script: str | None
    synonyms: tuple[str, ...]
    meta: dict[str, Any]


@record
class Writer:
    """``engine.writer``."""

    mode: str
    append_unmapped_columns: bool
    unmapped_prefix: str
    output_sheet: str


@record
class Manifest:
    """A manifest that the runner can act on. ``raw`` is the parsed file as written."""

    raw: dict[str, Any]
    title: str | None
    version: str | None
    env: dict[str, str]
    writer: Writer
    mapping_threshold: float
    hooks: tuple[HookRef, ...]
    fields: tuple[Field, ...]

    def hooks_of(self, stage: str) -> list[HookRef]:
        """The enabled hooks of a canonical stage, in the order they run."""
        return [hook for hook in self.hooks if hook.stage == stage]

    @property
    def enabled_fields(self) -> list[Field]:
        return [one for one in self.fields if one.enabled]


def load_manifest(package: str) -> Manifest:
    """Reads ``manifest.json`` of an unpacked package; raises ``package_invalid`` with a JSON pointer in the message."""
    path = f"{package}/manifest.json"
    try:
        if os.path.getsize(path) > MAX_MANIFEST_BYTES:
            raise _invalid("", f"manifest.json is larger than {MAX_MANIFEST_BYTES:,} bytes; move bulk data to resources/")
        with open(path, encoding="utf-8-sig") as file:
            raw = json.load(file)
    except FileNotFoundError:
        raise _invalid("", "the package has no manifest.json at its root") from None
    except (ValueError, RecursionError) as fault:
        line = fault.lineno if isinstance(fault, json.JSONDecodeError) else None
        raise _invalid("", "manifest.json is not valid JSON in UTF-8", line=line) from None
    return parse_manifest(raw)


def parse_manifest(raw: object) -> Manifest:
    """Checks the members the runner acts on and fills in the defaults."""
    root = _object(raw, "")
    if root.get("config_script_api_version", "1") != "1":
        raise _invalid("/config_script_api_version", 'only version "1" is supported')
    info = _object(root.get("info", {}), "/info")
    engine = _object(root.get("engine", {}), "/engine")
    defaults = _object(engine.get("defaults", {}), "/engine/defaults")
    columns = _object(root.get("columns", {}), "/columns")
    env = _object(root.get("env", {}), "/env")
    for name, value in env.items():
        if not isinstance(value, str) or not name or "=" in name or "\0" in name + value:
            raise _invalid(f"/env/{name}", "must be a string under a name that an environment can hold")
    return Manifest(
        raw=root,
        title=_text(info.get("title"), "/info/title"),
        version=_text(info.get("version"), "/info/version"),
        env=dict(env),
        writer=_writer(_object(engine.get("writer", {}), "/engine/writer")),
        mapping_threshold=_threshold(defaults),
        hooks=_hooks(_object(root.get("hooks", {}), "/hooks")),
        fields=_fields(columns),
    )


def _writer(raw: Mapping[str, Any]) -> Writer:
    mode = raw.get("mode", "row_streaming")
    if mode not in ("row_streaming", "in_memory"):
        raise _invalid("/engine/writer/mode", 'must be "row_streaming" or "in_memory"')
    append = raw.get("append_unmapped_columns", True)
    if not isinstance(append, bool):
        raise _invalid("/engine/writer/append_unmapped_columns", "must be true or false")
    prefix = raw.get("unmapped_prefix", "raw_")
    if not isinstance(prefix, str) or len(prefix) > 64:
        raise _invalid("/engine/writer/unmapped_prefix", "must be a string of at most 64 characters")
    sheet = raw.get("output_sheet", "Normalized")
    if not isinstance(sheet, str) or not 1 <= len(sheet) <= 31 or SHEET_NAME_FORBIDDEN & set(sheet) or "'" in sheet[:1] + sheet[-1:]:
        raise _invalid("/engine/writer/output_sheet", "must have 1 to 31 characters, none of []:*?/\\, and no ' at its ends")
    return Writer(mode, append, prefix, sheet)


def _threshold(defaults: Mapping[str, Any]) -> float:
    key = "mapping_score_threshold"
    if key not in defaults and "min_mapping_confidence" in defaults:
        key = "min_mapping_confidence"
    value = defaults.get(key)
    if value is None:
        return DEFAULT_MAPPING_THRESHOLD
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise _invalid(f"/engine/defaults/{key}", "must be a number of at least 0")
    return float(value)


def _hooks(raw: Mapping[str, Any]) -> tuple[HookRef, ...]:
    found: list[HookRef] = []
    for name, entries in raw.items():
        stage = HOOK_ALIASES.get(name, name)
        if stage not in HOOK_STAGES:
            known = ", ".join((*HOOK_STAGES, *HOOK_ALIASES))
            raise _invalid(f"/hooks/{name}", f"unknown stage; the stages are {known}")
        if not isinstance(entries, list):
            raise _invalid(f"/hooks/{name}", "must be a list")
        for at, entry in enumerate(entries):
            pointer = f"/hooks/{name}/{at}"
            hook = _object({"script": entry} if isinstance(entry, str) else entry, pointer)
            enabled = hook.get("enabled", True)
            if not isinstance(enabled, bool):
                raise _invalid(f"{pointer}/enabled", "must be true or false")
            script = script_path(hook.get("script"), f"{pointer}/script")
            if "/" not in script:
                script = f"hooks/{script}"
            if enabled:
                found.append(HookRef(stage, script))
    return tuple(found)


def _fields(columns: Mapping[str, Any]) -> tuple[Field, ...]:
    meta = _object(columns.get("meta", {}), "/columns/meta")
    order = columns.get("order", list(meta))
    if not isinstance(order, list) or any(not isinstance(one, str) for one in order):
        raise _invalid("/columns/order", "must be a list of field ids")
    if len(set(order)) != len(order) or set(order) != set(meta):
        raise _invalid("/columns/order", "must name every field of /columns/meta exactly once")
    return tuple(_field(one, _object(meta[one], f"/columns/meta/{one}")) for one in order)


def _field(name: str, meta: dict[str, Any]) -> Field:
    pointer = f"/columns/meta/{name}"
    if not FIELD_ID.match(name):
        raise _invalid(pointer, "a field id is a lower-case letter followed by letters, digits and underscores")
    label = meta.get("label", name)
    if not isinstance(label, str) or len(label) > 255:
        raise _invalid(f"{pointer}/label", "must be a string of at most 255 characters")
    flags = {"required": meta.get("required", False), "enabled": meta.get("enabled", True)}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise _invalid(f"{pointer}/{key}", "must be true or false")
    synonyms = meta.get("synonyms", [])
    if not isinstance(synonyms, list) or any(not isinstance(one, str) for one in synonyms):
        raise _invalid(f"{pointer}/synonyms", "must be a list of strings")
    script = meta.get("script")
    return Field(
        id=name,
        label=label,
        required=flags["required"],
        enabled=flags["enabled"],
        script=None if script is None else script_path(script, f"{pointer}/script"),
        synonyms=tuple(synonyms),
        meta=meta,
    )


def script_path(value: object, pointer: str) -> str:
    """A path to a Python file inside the package, normalised; raises ``package_invalid`` for anything else."""
    if isinstance(value, str) and value.endswith(".py") and "\\" not in value and "\0" not in value:
        parts = [part for part in value.split("/") if part not in ("", ".")]
        if not value.startswith("/") and ".." not in parts:
            return "/".join(parts)
    raise _invalid(pointer, "must be the path of a .py file inside the package, such as columns/member_id.py")


def _object(value: object, pointer: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise _invalid(pointer, "must be an object")


def _text(value: object, pointer: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _invalid(pointer, "must be a string")


def _invalid(pointer: str, message: str, line: int | None = None) -> JobError:
    where = f"manifest.json{' at ' + pointer if pointer else ''}"
    return JobError(
        "package_invalid",
        f"{where}: {message}",
        script="manifest.json",
        line=line,
        detail={"pointer": pointer},
    )
