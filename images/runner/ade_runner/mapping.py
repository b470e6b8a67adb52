"""Pass 2, mapping: which column of a table becomes which field."""

from __future__ import annotations

import math

from .channel import Progress
from .manifest import Field
from .run import JobRun
from .scripts import Rule, read_only
from .structure import shown
from .structure.text import fold
from .tables import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BUILTIN_RULE = "builtin.columns:match_header"
LABEL_SCORE, SYNONYM_SCORE, ID_SCORE = 1.0, 0.9, 0.8
"""What the built-in matching gives for a header that equals a field's label, a synonym, or its id."""

Scores = dict[str, list[tuple[str, float]]]
"""Per field, the rules that scored it and by how much."""


def run_mapping(run: JobRun) -> dict[str, int]:
    """Sets ``target`` of every column; returns the pass's numbers."""
    progress = Progress(run.channel, "mapping", sum(len(table.columns) for table in run.tables))
    mapped = unmapped = 0
    names = {one.id: one.enabled for one in run.manifest.fields}
    for table in run.tables:
        offers: list[tuple[Scores, str | None, float]] = []
        for index in range(len(table.columns)):
            scores = _scores(run, table, index, names)
            offers.append((scores, *_best(run, table.columns[index].header, scores)))
            progress.advance(1)
        winners = _winners(offers)
        table.entry["mapping"] = []
        for index, (scores, wanted, score) in enumerate(offers):
            column = table.columns[index]
            won = wanted is not None and winners[wanted] == index
            column.target = wanted if won else None
            mapped, unmapped = mapped + won, unmapped + (not won)
            entry: dict[str, Any] = {
                "raw": {"column": column.id, "header": shown(column.header)},
                "target_field": column.target,
                "score": round(score, 6),
                "contributors": _contributors(scores, wanted),
            }
            if wanted is not None and not won:
                entry["lost_to"] = table.columns[winners[wanted]].id
                entry["wanted_field"] = wanted
            runner_up = _runner_up(scores, wanted)
            if runner_up:
                entry["runner_up"] = runner_up
            table.entry["mapping"].append(entry)
    progress.finish()
    return {"mapped": mapped, "unmapped": unmapped}


def _scores(run: JobRun, table: Table, index: int, names: dict[str, bool]) -> Scores:
    """Asks every field's detectors about one column."""
    found: Scores = {}
    for one in run.manifest.enabled_fields:
        rules = run.scripts.column_detectors.get(one.id, ())
        if not rules:
            score = match_header(one, table.columns[index].header)
            if score:
                found.setdefault(one.id, []).append((BUILTIN_RULE, score))
        for rule in rules:
            for target, score in detect(run, rule, one, table, index, names):
                found.setdefault(target, []).append((rule.id, score))
    return found


def match_header(one: Field, header: str | None) -> float:
    """How well a header names a field whose script has no detectors of its own; 0 when it does not."""
    text = fold(header) if header else ""
    if not text:
        return 0.0
    if text == fold(one.label):
        return LABEL_SCORE
    if any(text == fold(synonym) for synonym in one.synonyms):
        return SYNONYM_SCORE
    return ID_SCORE if text == fold(one.id) else 0.0


def detect(
    run: JobRun, rule: Rule, one: Field, table: Table, index: int, names: dict[str, bool]
) -> list[tuple[str, float]]:
    """What one detector says about one column (0-based): fields and their scores. ``names`` tells of every field whether it is
    enabled. Faults become diagnostics."""
    place = {"table": table.id, "column": index + 1}
    known = run.column_arguments(
        table, index, field_name=one.id, field_meta=read_only(one.meta), state=run.state(rule.script, table.id)
    )
    try:
        answer = rule(known)
    except BaseException as fault:  # noqa: BLE001 - scripts may raise anything
        run.diagnostics.fault("runtime.column_detector.exception", rule, fault, run.package.root, place)
        return []
    if answer is None:
        return []
    code = "runtime.column_detector.invalid_result"
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, dict):
        run.diagnostics.refused(code, rule, f"{rule.function} must return {{'scores': {{field: number}}}}", place)
        return []
    found: list[tuple[str, float]] = []
    for name, score in scores.items():
        if not isinstance(name, str):
            run.diagnostics.refused(code, rule, f"{rule.function} scored a field whose name is not a string", place)
            continue
        target = one.id if name == "self" else name
        if target not in names:
            code_unknown = "runtime.column_detector.unknown_field"
            run.diagnostics.refused(code_unknown, rule, f"{rule.function} scored a field that is not in the manifest", place)
        elif type(score) not in (int, float) and not isinstance(score, float) or not math.isfinite(score):
            run.diagnostics.refused(code, rule, f"{rule.function} returned a score that is not a finite number", place)
        elif score and names[target]:
            found.append((target, float(score)))
    return found


def _best(run: JobRun, header: str | None, scores: Scores) -> tuple[str | None, float]:
    """The field a column goes to: best score, then exact label, then synonym, then manifest order. Below the threshold,
    or without a positive score, None and the best score seen."""
    ranked: list[tuple[float, float, int, str]] = []
    for at, one in enumerate(run.manifest.enabled_fields):
        if one.id in scores:
            total = round(math.fsum(score for _, score in scores[one.id]), 9)
            match = match_header(one, header)
            ranked.append((total, match if match > ID_SCORE else 0.0, -at, one.id))
    if not ranked:
        return None, 0.0
    total, _, _, name = max(ranked)
    return (name if total > 0 and total >= run.manifest.mapping_threshold else None), total


def _winners(offers: list[tuple[Scores, str | None, float]]) -> dict[str, int]:
    """For every field the column that takes it: the highest score, then the leftmost."""
    winners: dict[str, int] = {}
    for index, (_, wanted, score) in enumerate(offers):
        if wanted is not None and (wanted not in winners or score > offers[winners[wanted]][2]):
            winners[wanted] = index
    return winners


def _contributors(scores: Scores, name: str | None) -> list[dict[str, Any]]:
    return [{"rule": rule, "delta": round(delta, 6)} for rule, delta in scores.get(name or "", [])]


def _runner_up(scores: Scores, name: str | None) -> dict[str, Any] | None:
    """The next best field with a positive score, and what scored it: of a column without a field, what it nearly was."""
    others = [(math.fsum(delta for _, delta in found), field) for field, found in scores.items() if field != name]
    positive = sorted(((total, field) for total, field in others if total > 0), key=lambda one: (-one[0], one[1]))
    if not positive:
        return None
    total, field = positive[0]
    return {"field": field, "score": round(total, 6), "contributors": _contributors(scores, field)}
