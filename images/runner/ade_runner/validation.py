"""Pass 4, validate: issues of every mapped field, with their place in the input."""

from __future__ import annotations

import re
from collections import Counter

from . import a1
from .channel import Progress
from .manifest import Field
from .run import JobRun
from .scripts import Rule, read_only
from .tables import Table
from .values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SEVERITIES = {"error": "errors", "warning": "warnings", "info": "info"}
CANONICAL = {
    "missing": "required_missing",
    "required": "required_missing",
    "blank": "required_missing",
    "pattern": "pattern_mismatch",
    "regex_mismatch": "pattern_mismatch",
    "format": "invalid_format",
    "invalid": "invalid_format",
}
"""Other spellings of the published issue codes."""

BUILTIN_REQUIRED = "builtin.validate:required"
MESSAGE_CHARS = 300
CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
MAX_CODES = 50
"""Distinct codes counted per table and field; further ones are counted as ``other``."""
MAX_ISSUES = 20_000
"""Issues kept of one job, whatever the limit per field and code."""


def run_validate(run: JobRun) -> dict[str, int]:
    """Fills ``validation`` of every table; returns the pass's numbers."""
    fields = run.manifest.enabled_fields
    steps = sum(table.row_count for table in run.tables for one in fields if table.column_of(one.id) is not None)
    progress = Progress(run.channel, "validate", run.total_rows, steps)
    ledger = Ledger(int(run.limits.get("issues_per_code", 100)))
    for table in run.tables:
        for one in fields:
            index = table.column_of(one.id)
            rule = run.scripts.validators.get(one.id)
            if index is None:
                if one.required:
                    message = "no column of this table was mapped to this required field"
                    ledger.add(table, one.id, None, None, "required_missing", "error", message, BUILTIN_REQUIRED)
            elif rule is not None or one.required:
                validate_column(run, ledger, table, one, rule, index)
                progress.advance(table.row_count)
        table.entry["validation"] = ledger.block(table)
    progress.finish()
    run.artifact.data["summary"]["issues_found"] = ledger.total
    return {
        "rows": run.total_rows,
        "errors": ledger.severities["error"],
        "warnings": ledger.severities["warning"],
        "issues": ledger.total,
    }


class Ledger:
    """Counts every issue and keeps a bounded number of them."""

    def __init__(self, per_code: int) -> None:
        self._per_code = per_code
        self._kept_by_code: Counter[tuple[str, str]] = Counter()
        self._kept = 0
        self.total = 0
        self.severities: Counter[str] = Counter()
        self._issues: dict[str, list[dict[str, Any]]] = {}
        self._summary: dict[str, dict[str, dict[str, Any]]] = {}

    def keeps(self, field: str, code: str) -> bool:
        """Whether another issue of this field and code would be kept."""
        return self._kept_by_code[field, code] < self._per_code and self._kept < MAX_ISSUES

    def add(
        self, table: Table, field: str, index: int | None, row: int | None, code: str, severity: str, message: str, rule: str
    ) -> None:
        """Records an issue; ``index`` is the 0-based column, ``row`` the sheet row, both None for the whole table."""
        kept = self.keeps(field, code)
        self.count(table, field, code, severity, 1)
        if not kept:
            return
        self._kept_by_code[field, code] += 1
        self._kept += 1
        column = None if index is None else table.columns[index]
        self._issues.setdefault(table.id, []).append(
            {
                "a1": a1.cell(row, column.sheet_column) if column and row else None,
                "row_index": row,
                "target_field": field,
                "column": column.id if column else None,
                "code": code,
                "severity": severity,
                "message": message,
                "rule": rule,
            }
        )

    def count(self, table: Table, field: str, code: str, severity: str, times: int) -> None:
        """Counts issues without keeping them."""
        empty: dict[str, Any] = {"errors": 0, "warnings": 0, "info": 0, "missing": 0, "by_code": {}}
        summary = self._summary.setdefault(table.id, {}).setdefault(field, empty)
        summary[SEVERITIES[severity]] += times
        if code == "required_missing":
            summary["missing"] += times
        by_code = summary["by_code"]
        name = code if code in by_code or len(by_code) < MAX_CODES else "other"
        by_code[name] = by_code.get(name, 0) + times
        self.total += times
        self.severities[severity] += times

    def block(self, table: Table) -> dict[str, Any]:
        return {
            "issues": self._issues.pop(table.id, []),
            "summary_by_field": self._summary.pop(table.id, {}),
        }


def validate_column(run: JobRun, ledger: Ledger, table: Table, one: Field, rule: Rule | None, index: int) -> None:
    """Collects the issues of one column (0-based); without a rule, those of the built-in check."""
    column = table.columns[index]
    known: dict[str, Any] = {}
    if rule is not None:
        known = run.column_arguments(
            table, index, field_name=one.id, field_meta=read_only(one.meta), state=run.state(rule.script, table.id)
        )
    for start, stop in table.batches(run.batch):
        values = column.values.read(start, stop)
        if rule is None:
            blank = [at for at, value in enumerate(values) if value is None or value == ""]
            _required(ledger, table, one.id, index, start, stop, blank)
            continue
        known["values"], known["row_offset"] = list(values), start
        known["values_sample"] = list(column.sample)
        place = {"table": table.id, "column": index + 1, "row_offset": start}
        issues = _call(run, rule, known, place)
        if issues:
            _record(run, ledger, table, one.id, index, rule, issues, values, start, stop, place)


def _required(
    ledger: Ledger, table: Table, field: str, index: int, start: int, stop: int, blank: list[int]
) -> None:
    """The built-in check of a required field whose script does not validate."""
    if not blank:
        return
    rows: list[Value] = table.rows.read(start, stop) if ledger.keeps(field, "required_missing") else []
    for done, at in enumerate(blank):
        if not ledger.keeps(field, "required_missing"):
            ledger.count(table, field, "required_missing", "error", len(blank) - done)
            return
        row: Any = rows[at]
        ledger.add(table, field, index, row, "required_missing", "error", "a value is required", BUILTIN_REQUIRED)


def _call(run: JobRun, rule: Rule, known: dict[str, Any], place: dict[str, Any]) -> list[Any] | tuple[Any, ...]:
    try:
        answer = rule(known)
    except BaseException as fault:  # noqa: BLE001 - scripts may raise anything
        run.diagnostics.fault("runtime.validator.exception", rule, fault, run.package.root, place)
        return []
    if answer is None:
        return []
    issues = answer.get("issues") if isinstance(answer, dict) else None
    if not isinstance(issues, (list, tuple)):
        run.diagnostics.refused("runtime.validator.invalid_result", rule, "validate must return {'issues': [...]}", place)
        return []
    return issues


def _record(
    run: JobRun,
    ledger: Ledger,
    table: Table,
    field: str,
    index: int,
    rule: Rule,
    issues: list[Any] | tuple[Any, ...],
    values: list[Value],
    start: int,
    stop: int,
    place: dict[str, Any],
) -> None:
    rows: list[Any] = []

    def refuse(message: str) -> None:
        run.diagnostics.refused("runtime.validator.invalid_issue", rule, f"{message}; the issue was left out", place)

    for issue in issues:
        if not isinstance(issue, dict):
            refuse("an issue must be a dict")
            continue
        at = issue.get("row_index")
        if not isinstance(at, int) or isinstance(at, bool) or not 1 <= at <= len(values):
            refuse("row_index must be a position in values, counted from 1")
            continue
        code, severity = issue.get("code"), issue.get("severity", "error")
        if not isinstance(code, str) or not CODE.match(code):
            refuse("code must be a string of 1 to 64 letters, digits and _ . : -")
            continue
        if not isinstance(severity, str) or severity not in SEVERITIES:
            refuse("severity must be error, warning or info")
            continue
        code = CANONICAL.get(code, str.__str__(code))
        if not ledger.keeps(field, code):
            ledger.count(table, field, code, severity, 1)
            continue
        rows = rows or table.rows.read(start, stop)
        message = issue.get("message")
        text = redacted(message, values[at - 1]) if isinstance(message, str) else code
        ledger.add(table, field, index, rows[at - 1], code, str.__str__(severity), text, rule.id)


def redacted(message: str, value: Value) -> str:
    """A message without the value it complains about, cut to :data:`MESSAGE_CHARS` characters."""
    text = "" if value is None else str(value).strip()
    if text:
        edges = (r"(?<!\w)" if text[0].isalnum() else "", r"(?!\w)" if text[-1].isalnum() else "")
        message = re.sub(edges[0] + re.escape(text) + edges[1], "…", message[:10_000])
    return message if len(message) <= MESSAGE_CHARS else message[:MESSAGE_CHARS] + "…"
