"""Runs a package on inputs the way the supervisor does, in a process of its own, and compares with an expectation.

A process each, because scripts of different packages share module names (``vendor/headers.py``): two jobs never meet
in one interpreter, so two tests must not either.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
from native_support import NATIVE

RUNNER = Path(__file__).resolve().parent.parent
REPOSITORY = RUNNER.parent.parent
EXAMPLES = REPOSITORY / "docs" / "examples"
ARTIFACT_SCHEMA = REPOSITORY / "docs" / "schemas" / "artifact.v1.2.schema.json"
FIXTURES = REPOSITORY / "tests" / "fixtures"
sys.path.insert(0, str(FIXTURES))

from expectation import as_text, kinds_of  # noqa: E402

# The child of the supervisor, as far as a test needs it: one job, everything it said as one JSON document on stdout.
CHILD = """
import json, os, sys
from pathlib import Path
from ade_runner.channel import ListChannel
from ade_runner.pipeline import run_job
said = os.fdopen(os.dup(1), "w", encoding="utf-8")
root = Path(sys.argv[1])
os.chdir(root / "package")
channel = ListChannel()
options = {"batch_rows": int(sys.argv[2])} if len(sys.argv) > 2 else {}
run_job(json.loads((root / "job.json").read_text("utf-8")), root, channel, **options)
json.dump({"results": channel.results, "events": channel.events}, said, default=str)
said.close()
"""
LIMITS = {
    "memory_mb": 512,
    "scratch_mb": 256,
    "cpu_seconds": 300,
    "output_mb": 256,
    "on_job_end_ms": 10_000,
    "log_bytes": 1_048_576,
    "log_lines": 5_000,
    "issues_per_code": 100,
}


@dataclass(frozen=True)
class Outcome:
    """What one job left behind."""

    result: dict[str, Any]
    events: list[list[Any]]
    artifact: dict[str, Any]
    out: Path
    package: Path

    def tables(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """All (sheet, table) pairs in order."""
        return [(sheet, table) for sheet in self.artifact["sheets"] for table in sheet["tables"]]

    def issues(self) -> list[dict[str, Any]]:
        """All issues of all tables."""
        return [issue for _, table in self.tables() for issue in table["validation"]["issues"]]

    def sheet(self) -> tuple[str, list[str], list[list[Any]]]:
        """Name, headers and rows of the output, read by a library that did not write it."""
        import openpyxl

        book = openpyxl.load_workbook(self.out / "normalized.xlsx")
        assert len(book.sheetnames) == 1
        sheet = book[book.sheetnames[0]]
        width = sheet.max_column
        rows = [[_value(cell) for cell in row] for row in sheet.iter_rows(max_col=width)]
        return sheet.title, [str(value) for value in rows[0]], rows[1:]


def _value(cell: Any) -> Any:
    """A cell's value; openpyxl knows no days, so the number format tells a day from a midnight."""
    if isinstance(cell.value, datetime) and not re.search("[hs]", cell.number_format.lower()):
        return cell.value.date()
    return cell.value


def run(package: Path, inputs: Sequence[Path], root: Path, *, batch_rows: int | None = None) -> Outcome:
    """One job in a fresh folder laid out like ``/job``, in a fresh process; ``batch_rows`` for smaller batches.

    Whatever became of the job, its artifact is valid.
    """
    shutil.copytree(package, root / "package", ignore=shutil.ignore_patterns("__pycache__", "examples"))
    for name in ("in", "out", "tmp"):
        (root / name).mkdir(parents=True)
    listed = []
    for number, path in enumerate(inputs, start=1):
        data = path.read_bytes()
        (root / "in" / f"{number:04d}").write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        listed.append(
            {"name": path.name, "path": f"in/{number:04d}", "sha256": digest, "bytes": len(data), "document_id": None}
        )
    job = {
        "protocol": 1,
        "mode": "run",
        "job_id": "job_01TEST",
        "attempt": 1,
        "execution": 1,
        "trace_id": "trace",
        "config_version_id": None,
        "started_at": "2026-01-01T00:00:00Z",
        "inputs": listed,
        "limits": LIMITS,
        "artifact": {"runtime": {}, "network": {}, "dependencies": {"status": "none"}},
    }
    (root / "job.json").write_text(json.dumps(job), "utf-8")
    environment = {"PYTHONPATH": f"{RUNNER}:{NATIVE}", "PYTHONHASHSEED": "0", "TZ": "UTC", "LANG": "C.UTF-8", "PATH": "/usr/bin"}
    environment |= {"HOME": str(root / "tmp"), "TMPDIR": str(root / "tmp")}
    command = [sys.executable, "-B", "-c", CHILD, str(root), *([str(batch_rows)] if batch_rows else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["results"]) == 1, "a job sends exactly one completion record"
    artifact = json.loads((root / "out" / "artifact.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(json.loads(ARTIFACT_SCHEMA.read_text("utf-8"))).validate(artifact)
    return Outcome(said["results"][0], said["events"], artifact, root / "out", root / "package")


def expectation(folder: Path) -> dict[str, Any]:
    """The ``expected.json`` of an example or sample."""
    return json.loads((folder / "expected.json").read_text("utf-8"))


def expected_headers(folder: Path) -> list[str]:
    """The headers of ``normalized.csv``."""
    with (folder / "normalized.csv").open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


def expected_rows(folder: Path) -> list[list[str]]:
    """The rows of ``normalized.csv``, without its headers."""
    with (folder / "normalized.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def assert_as_expected(outcome: Outcome, folder: Path) -> None:
    """Compares everything that ``expected.json`` and ``normalized.csv`` in ``folder`` say."""
    expected = expectation(folder)
    assert outcome.result["ok"], outcome.result["error"]

    tables = [
        {
            "sheet": sheet["name"],
            "range": table["range"],
            "header": table["header"]["kind"],
            "mapping": [[column["raw"]["header"], column["target_field"]] for column in table["mapping"]],
        }
        for sheet, table in outcome.tables()
    ]
    assert tables == [{key: table[key] for key in table if key != "input"} for table in expected["tables"]]

    name, headers, rows = outcome.sheet()
    assert name == expected["sheet"]
    assert headers == expected_headers(folder)
    wanted = expected_rows(folder)
    for number, (row, wanted_row) in enumerate(zip(rows, wanted), start=1):
        assert [as_text(value) for value in row] == wanted_row, f"row {number} of the output"
    assert len(rows) == len(wanted)
    assert kinds_of(headers, rows) == expected["kinds"]

    by_field: dict[str, Counter[str]] = {}
    for issue in outcome.issues():
        by_field.setdefault(issue["target_field"], Counter())[issue["code"]] += 1
    assert by_field == expected["issues"]
    summary = outcome.artifact["summary"]
    assert summary["rows_written"] == len(wanted)
    assert summary["columns_written"] == len(expected_headers(folder))
    assert summary["issues_found"] == sum(sum(codes.values()) for codes in expected["issues"].values())

    for annotation in expected.get("annotations", []):
        of_stage = [one for one in outcome.artifact["annotations"] if one["stage"] == annotation["stage"]]
        assert [{key: one.get(key) for key in annotation} for one in of_stage] == [annotation]

    inputs = {one["name"]: one for one in outcome.artifact["inputs"]}
    for input_name, looks in expected.get("formats", {}).items():
        assert {key: inputs[input_name][key] for key in looks} == looks

    faults = [one for one in outcome.artifact["diagnostics"] if one["level"] == "error"]
    assert faults == [], "no script of an example may fail"


def assert_no_cell_value(outcome: Outcome, folder: Path) -> None:
    """No text of the output that could be somebody's data stands in the artifact or the events.

    Short texts ("Leeds", "35") may well be parts of other words, days are also times of events, and words of the
    package itself (labels, allowed values) are no secrets; everything else must not be found.
    """
    told = json.dumps(outcome.artifact, ensure_ascii=False) + json.dumps(outcome.events, ensure_ascii=False)
    manifest = (outcome.package / "manifest.json").read_text("utf-8")
    cells = {cell for row in expected_rows(folder) for cell in row if len(cell) >= 8}
    secrets = {cell for cell in cells if not re.fullmatch(r"\d{4}-\d\d-\d\d", cell) and cell not in manifest}
    assert {cell for cell in secrets if json.dumps(cell, ensure_ascii=False)[1:-1] in told} == set()


def content(path: Path) -> object:
    """A file's bytes; of a workbook its parts, without those that name the version of the library."""
    if path.suffix != ".xlsx":
        return path.read_bytes()
    with zipfile.ZipFile(path) as parts:
        return {name: parts.read(name) for name in parts.namelist() if not name.startswith("docProps/")}
