"""``artifact.json``: the job's record, saved after every pass. Its schema is docs/schemas/artifact.v1.2.schema.json."""

from __future__ import annotations

import json
import os

import _datetime as datetime  # see values.py

from .errors import JobError
from .files import discard
from .manifest import Manifest
from .scripts import Diagnostics, raise_if_fatal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = "ade.artifact/v1"
VERSION = "1.2"
PASSES = ("structure", "mapping", "transform", "validate", "generate")
OUTPUT_NAME = "normalized.xlsx"
ARTIFACT_NAME = "artifact.json"
_TEMPORARY = "artifact.tmp"
MAX_SAVED_BYTES = 64 * 1024 * 1024
"""A saved artifact larger than this is not read back: the runner does not write such files, so scripts did."""


encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""JSON as the runner writes it into files."""


def timestamp() -> str:
    """Now, in UTC, to the millisecond."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"


class Artifact:
    """The artifact of one job; ``data`` is JSON throughout."""

    def __init__(self, data: dict[str, Any], folder: str, diagnostics: Diagnostics) -> None:
        self.data = data
        self._folder = folder
        self._descriptor: int | None = None
        self._diagnostics = diagnostics
        self._earlier: list[Any] = []
        """Diagnostics that an artifact read back already had."""

    @classmethod
    def begin(
        cls, job: dict[str, Any], folder: str, diagnostics: Diagnostics, manifest: Manifest | None = None
    ) -> Artifact:
        """The artifact of a job that has not done anything yet."""
        inputs = job.get("inputs") or []
        engine = manifest.raw.get("engine", {}) if manifest else {}
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "artifact_version": VERSION,
            "job": {
                "job_id": job.get("job_id"),
                "config_version_id": job.get("config_version_id"),
                "trace_id": job.get("trace_id"),
                "status": "running",
                "started_at": job.get("started_at") or timestamp(),
                "completed_at": None,
                "source_file": inputs[0].get("name") if inputs else None,
                "error": None,
            },
            "config": {
                "config_version_id": job.get("config_version_id"),
                "manifest_version": manifest.version if manifest else None,
                "title": manifest.title if manifest else None,
            },
            "engine": {"writer": _writer(manifest), "defaults": dict(engine.get("defaults", {}))},
            "inputs": [
                {
                    "name": one.get("name"),
                    "sha256": one.get("sha256"),
                    "bytes": one.get("bytes"),
                    "format": None,
                    "encoding": None,
                    "delimiter": None,
                }
                for one in inputs
            ],
            "rules": {"row_types": {}, "column_detect": {}, "transform": {}, "validate": {}},
            "sheets": [],
            "output": None,
            "summary": {"rows_written": 0, "columns_written": 0, "issues_found": 0},
            "pass_history": [],
            "annotations": [],
            "diagnostics": [],
        }
        given = job.get("artifact") or {}
        data |= {name: given.get(name) or {} for name in ("runtime", "network", "dependencies")}
        return cls(data, folder, diagnostics)

    @classmethod
    def saved(cls, job: dict[str, Any], folder: str, diagnostics: Diagnostics) -> Artifact:
        """The artifact as last saved, or a new one when there is none that can be used: the file may be a script's."""
        path = f"{folder}/{ARTIFACT_NAME}"
        fresh = cls.begin(job, folder, diagnostics)
        try:
            if os.path.islink(path) or os.path.getsize(path) > MAX_SAVED_BYTES:
                return fresh
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
        except (OSError, ValueError, RecursionError):
            return fresh
        blocks = {key: type(value) for key, value in fresh.data.items() if isinstance(value, (dict, list))}
        if not isinstance(data, dict) or any(type(data.get(key)) is not kind for key, kind in blocks.items()):
            return fresh
        fresh.data = data
        fresh._earlier = list(data["diagnostics"])
        return fresh

    def note(self, entry: dict[str, Any]) -> None:
        """Appends an annotation."""
        self.data["annotations"].append(entry)

    def passed(self, name: str, stats: dict[str, Any]) -> None:
        """Records that a pass is done."""
        self.data["pass_history"].append(
            {"pass": PASSES.index(name) + 1, "name": name, "completed_at": timestamp(), "stats": stats}
        )

    def finish(self, status: str, error: dict[str, Any] | None = None) -> None:
        """Sets the status; the engine has the last word about it."""
        self.data["job"] |= {"status": status, "completed_at": timestamp(), "error": error}

    def save(self) -> None:
        """Replaces the file in one step; raises ``disk_full`` when it does not fit."""
        self.data["diagnostics"] = self._earlier + self._diagnostics.entries()
        try:
            if self._descriptor is None:
                # A path from the root is looked up by the storage driver every time, and this is done after every pass.
                self._descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            folder = self._descriptor
            discard(_TEMPORARY, folder)
            descriptor = os.open(_TEMPORARY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
            with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                between = "{"
                # A block at a time: json.dump would not use the compiled encoder, and all at once would be in memory as a whole.
                for name, block in self.data.items():
                    file.write(f"{between}{encode(name)}:{encode(block)}")
                    between = ","
                file.write("}")
            os.replace(_TEMPORARY, ARTIFACT_NAME, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as fault:
            raise_if_fatal(fault)
            raise JobError("script_error", "out/artifact.json cannot be written: a script changed /job/out") from None


def _writer(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {}
    writer = manifest.writer
    return {
        "mode": writer.mode,
        "append_unmapped_columns": writer.append_unmapped_columns,
        "unmapped_prefix": writer.unmapped_prefix,
        "output_sheet": writer.output_sheet,
    }
