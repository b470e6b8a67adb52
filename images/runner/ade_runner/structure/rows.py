"""Classifying rows as ``header``, ``data`` or ``separator``: with the package's detectors, or with the built-in ones."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..records import fresh, record
from ..run import JobRun
from ..scripts import Rule
from ..values import Value
from .text import fold, is_header_text, is_total, is_total_only, kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LABELS = ("data", "header", "separator")
"""In the order in which ties are decided."""

ROW_CELLS = 64
"""Cells of a row that a row detector sees (``row_values_sample``)."""


@record
class Verdict:
    """A row's label, the sums per label, and which rules they came from."""

    label: str
    scores: dict[str, float]
    traces: list[tuple[str, float]]


DATA = Verdict("data", {}, [])


@record
class Surroundings:
    """What is known about the rows above, as the row detectors may see it."""

    in_table: bool = False
    """A header or data row stands above without a break in between."""
    gap: bool = False
    """Blank or separator rows stand directly above."""
    header_row: int | None = None
    rows: int = 0
    """Data rows since the header."""
    width: int = 0
    """Columns of the table above, 0 when there is none."""
    last: list[Value] = fresh(list)
    """The last data row above."""

    def hint(self) -> dict[str, Any]:
        return {"in_table": self.in_table, "header_row": self.header_row, "rows_since_header": self.rows}


Classifier = Callable[[int, list[Value], Surroundings], Verdict]


def package_classifier(run: JobRun, sheet_id: str, sheet_name: str, source_file: str) -> Classifier:
    """Sums the scores of every ``detect_*`` of ``row_types/*.py``."""
    calls: list[tuple[Rule, dict[str, Any], bool, bool, bool]] = []
    for rule in run.scripts.row_detectors:
        known = run.common(
            sheet_name=sheet_name,
            source_file=source_file,
            state=run.state(rule.script, sheet_id),
            row_index=0,
            row_values_sample=[],
            table_hint={},
        )
        chosen = {name: known[name] for name in (*rule.positional, *rule.names)}
        calls.append((rule, chosen, "row_index" in chosen, "row_values_sample" in chosen, "table_hint" in chosen))
    diagnostics, package = run.diagnostics, run.package.root

    def classify(row: int, values: list[Value], around: Surroundings) -> Verdict:
        sums: dict[str, float] = {}
        traces: list[tuple[str, float]] = []
        hint = around.hint()
        for rule, arguments, wants_row, wants_values, wants_hint in calls:
            if wants_row:
                arguments["row_index"] = row
            if wants_values:
                arguments["row_values_sample"] = values[:ROW_CELLS]
            if wants_hint:
                arguments["table_hint"] = hint
            try:
                answer = rule(arguments) if rule.positional else rule.target(**arguments)
            except BaseException as fault:  # noqa: BLE001 - scripts may raise anything
                place = {"sheet": sheet_id, "row": row}
                diagnostics.fault("runtime.row_detector.exception", rule, fault, package, place)
                continue
            if answer is None:
                continue
            scores = answer.get("scores") if isinstance(answer, dict) else None
            if not isinstance(scores, dict):
                _refuse(run, rule, "must return {'scores': {label: number}}", sheet_id, row)
                continue
            for label, score in scores.items():
                if label not in LABELS:
                    _refuse(run, rule, "scored something other than header, data and separator", sheet_id, row)
                elif type(score) not in (int, float) or not math.isfinite(score):
                    _refuse(run, rule, "returned a score that is not a finite number", sheet_id, row)
                elif score:
                    sums[label] = sums.get(label, 0.0) + score
                    traces.append((rule.id, float(score)))
        best, top = "data", 0.0
        for label in LABELS:
            if sums.get(label, 0.0) > top:
                best, top = label, sums[label]
        return Verdict(best, sums, traces)

    return classify


def _refuse(run: JobRun, rule: Rule, message: str, sheet_id: str, row: int) -> None:
    run.diagnostics.refused(
        "runtime.row_detector.invalid_result", rule, f"{rule.function} {message}", {"sheet": sheet_id, "row": row}
    )


def builtin_classifier(words: frozenset[str]) -> Classifier:
    """The rules for packages without row detectors; described in docs/developers/pipeline.md."""

    initials = frozenset(word[0] for word in words)
    longest = 2 * max(map(len, words), default=0)

    def opens_header(first: str) -> bool:
        """Whether a text is a word of the manifest; decided by its looks where that is enough, for most rows are data."""
        if len(first) > longest or (first[:1].isalnum() and first[0].casefold() not in initials):
            return False
        return fold(first) in words

    def classify(row: int, values: list[Value], around: Surroundings) -> Verdict:
        count = len(values) - values.count(None)
        first = values[0]
        if first is None:
            first = next((value for value in values if value is not None), None)
        if around.width and isinstance(first, str):
            rule = _separator(first, count, around)
            if rule:
                return Verdict("separator", {"separator": 1.0}, [(rule, 1.0)])
        if around.in_table and around.rows and not (isinstance(first, str) and opens_header(first)):
            return DATA
        cells = [value for value in values if value is not None]
        headers = [value for value in cells if is_header_text(value)]
        known = len({fold(value) for value in headers if isinstance(value, str)} & words)
        texts = sum(1 for value in headers if isinstance(value, str))
        if around.rows and not _starts_again(values, known, count, around):
            return DATA
        if known * 2 < count:
            # Without the manifest's words a header is known by its looks alone.
            distinct = len({fold(value) if isinstance(value, str) else value for value in headers})
            digits = sum(1 for value in headers if isinstance(value, str) and any(map(str.isdigit, value)))
            if count < 2 or len(headers) < count or not texts or distinct < max(2, 0.6 * count) or digits * 2 > count:
                return DATA
        traces = [("builtin.row_types:detect_text", 0.4 + 0.1 * min(5, round(math.log2(max(1, count)))))]
        if known:
            traces.append(("builtin.row_types:detect_vocabulary", round(known / count, 6)))
        return Verdict("header", {"header": sum(delta for _, delta in traces)}, traces)

    return classify


def _separator(first: str, count: int, around: Surroundings) -> str | None:
    """The rule by which a row under a table is a total or a note."""
    if count < around.width and is_total(first) and around.rows and (count * 2 <= around.width or (count < around.width and is_total_only(first))):
        return "builtin.row_types:detect_total"
    # Without a gap a lone text is a record of which only the name is known; a note stands apart.
    if count == 1 and around.gap and around.rows and around.width >= 3 and kind(first) == "text":
        if " " in first.strip() or not any(map(str.isdigit, first)):
            return "builtin.row_types:detect_note"
    return None


def _starts_again(values: list[Value], known: int, count: int, around: Surroundings) -> bool:
    """Whether a header-like row below data begins another table."""
    if known >= 2 and known * 2 >= count:
        return True
    if not around.gap or count < 2:
        return False
    below = zip(values, around.last, strict=False)
    return any(kind(above) in ("number", "date") and isinstance(value, str) for value, above in below)
