"""Building real packages and workbooks in a folder and running them through the pipeline."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

import jsonschema
import openpyxl
from ade_runner.channel import ListChannel
from ade_runner.pipeline import run_job
from ade_runner.run import BATCH_ROWS

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[3] / "docs/schemas/artifact.v1.2.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

Sheet = Sequence[Sequence[object]]


@dataclass
class Done:
    """A finished job."""

    root: Path
    channel: ListChannel
    artifact: dict[str, Any] = field(default_factory=dict)

    @property
    def result(self) -> dict[str, Any]:
        assert len(self.channel.results) == 1, self.channel.results
        return self.channel.results[0]

    @property
    def ok(self) -> bool:
        return bool(self.result["ok"])

    @property
    def error(self) -> dict[str, Any]:
        assert self.result["error"], self.result
        return dict(self.result["error"])

    @property
    def rows(self) -> list[list[object]]:
        """The output sheet, header row first."""
        book = openpyxl.load_workbook(self.root / "out/normalized.xlsx")
        assert len(book.sheetnames) == 1
        return [list(row) for row in book.active.iter_rows(values_only=True)]

    @property
    def tables(self) -> list[dict[str, Any]]:
        return [table for sheet in self.artifact["sheets"] for table in sheet["tables"]]

    def codes(self) -> list[str]:
        return [one["code"] for one in self.artifact["diagnostics"]]

    def diagnostic(self, code: str) -> dict[str, Any]:
        found = [one for one in self.artifact["diagnostics"] if one["code"] == code]
        assert len(found) == 1, self.artifact["diagnostics"]
        return found[0]

    def logs(self) -> list[str]:
        return [str(one["text"]) for one in self.channel.named("log")]


def manifest(fields: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A manifest of these fields; ``more`` holds further top-level members."""
    fields = {"member_id": {"label": "Member ID"}, "name": {"label": "Name"}} if fields is None else fields
    return {
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "Test", "version": "1.0.0"},
        "columns": {"order": list(fields), "meta": {name: dict(meta) for name, meta in fields.items()}},
        **more,
    }


def write_package(root: Path, given: Mapping[str, Any], scripts: Mapping[str, str | bytes] | None = None) -> Path:
    """Writes a package under ``root/package``, beside the other folders that a supervisor makes."""
    for name in ("package", "in", "out", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    package = root / "package"
    (package / "manifest.json").write_text(json.dumps(given), encoding="utf-8")
    for name, source in (scripts or {}).items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else dedent(source).encode())
    return package


def write_workbook(path: Path, sheets: Mapping[str, Sheet], merge: Mapping[str, Sequence[str]] | None = None) -> None:
    """Writes an xlsx whose sheets hold these rows from A1."""
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for at, row in enumerate(rows, start=1):
            for column, value in enumerate(row, start=1):
                if value is not None:
                    sheet.cell(at, column, value)  # type: ignore[arg-type]
        for one in (merge or {}).get(name, ()):
            sheet.merge_cells(one)
    book.save(path)


def job_object(inputs: Sequence[tuple[str, Path]], **limits: Any) -> dict[str, Any]:
    return {
        "protocol": 1,
        "mode": "run",
        "job_id": "job_1",
        "attempt": 1,
        "execution": 1,
        "trace_id": "trace",
        "config_version_id": None,
        "started_at": "2026-01-01T00:00:00Z",
        "inputs": [
            {"name": name, "path": f"in/{at:04d}", "sha256": "0" * 64, "bytes": path.stat().st_size, "document_id": None}
            for at, (name, path) in enumerate(inputs, start=1)
        ],
        "limits": {"issues_per_code": 100, "log_lines": 5000, "log_bytes": 1_048_576, **limits},
        "artifact": {"runtime": {}, "network": {}, "dependencies": {"status": "none"}},
    }


class Bench:
    """Runs jobs, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def root(self) -> Path:
        self._count += 1
        return self._folder / f"job{self._count}"

    def prepare(
        self,
        inputs: Mapping[str, Sheet | Mapping[str, Sheet] | bytes],
        given: Mapping[str, Any] | None = None,
        scripts: Mapping[str, str | bytes] | None = None,
        *,
        merge: Mapping[str, Sequence[str]] | None = None,
        **limits: Any,
    ) -> tuple[Path, dict[str, Any]]:
        root = self.root()
        write_package(root, manifest() if given is None else given, scripts)
        paths: list[tuple[str, Path]] = []
        for at, (name, content) in enumerate(inputs.items(), start=1):
            path = root / f"in/{at:04d}"
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                sheets = content if isinstance(content, Mapping) else {"Sheet1": content}
                temporary = root / "made.xlsx"
                write_workbook(temporary, sheets, merge)
                temporary.replace(path)
            paths.append((name, path))
        return root, job_object(paths, **limits)

    def run(self, *args: Any, batch_rows: int = BATCH_ROWS, **options: Any) -> Done:
        """Runs a job and checks its artifact against the published schema."""
        root, job = self.prepare(*args, **options)
        channel = ListChannel()
        run_job(job, root, channel, batch_rows=batch_rows)
        return finished(root, channel)

    def table(self, rows: Sheet, *args: Any, **options: Any) -> Done:
        """Runs a job over one sheet of one workbook."""
        return self.run({"book.xlsx": rows}, *args, **options)


def finished(root: Path, channel: ListChannel) -> Done:
    """Loads what a job left behind, checking the artifact against its schema."""
    artifact = json.loads((root / "out/artifact.json").read_text(encoding="utf-8"))
    VALIDATOR.validate(artifact)
    assert not list((root / "tmp").glob("columns.*"))
    return Done(root, channel, artifact)


PEOPLE: list[list[object]] = [
    ["Member ID", "Name", "Start", "Amount"],
    ["A1", "Ada", datetime.datetime(2024, 1, 2), 10],
    ["A2", "Bob", datetime.datetime(2024, 1, 3), 20],
    ["A3", None, datetime.datetime(2024, 1, 4), 30.5],
]
