"""Every sample comes out as a person would want it, with packages that have no script at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("expectation_support")

from expectation_support import (  # noqa: E402
    FIXTURES,
    Outcome,
    assert_as_expected,
    assert_no_cell_value,
    content,
    expectation,
    run,
)

SAMPLES = sorted(path.parent for path in (FIXTURES / "samples").glob("*/expected.json"))
GOOD = [path for path in SAMPLES if "error" not in expectation(path)]
BAD = [path for path in SAMPLES if "error" in expectation(path)]


def job(sample: Path, root: Path) -> Outcome:
    expected = expectation(sample)
    package = FIXTURES / "packages" / expected["package"]
    return run(package, [sample / name for name in expected["inputs"]], root / "job")


@pytest.mark.parametrize("sample", GOOD, ids=lambda path: path.name)
def test_a_sample_comes_out_as_a_person_would_want_it(sample: Path, tmp_path: Path) -> None:
    outcome = job(sample, tmp_path)
    assert_as_expected(outcome, sample)
    assert_no_cell_value(outcome, sample)


@pytest.mark.parametrize("sample", BAD, ids=lambda path: path.name)
def test_a_hopeless_sample_fails_with_the_expected_kind_and_still_has_an_artifact(sample: Path, tmp_path: Path) -> None:
    outcome = job(sample, tmp_path)
    assert outcome.result["ok"] is False
    assert outcome.result["error"]["kind"] == expectation(sample)["error"]["kind"]
    assert outcome.artifact["job"]["job_id"] == "job_01TEST"
    assert not (outcome.out / "normalized.xlsx").exists()


def test_every_kind_of_mess_that_we_promise_to_handle_has_a_sample() -> None:
    assert {path.name for path in SAMPLES} == {
        "alias_headers",
        "stacked_tables",
        "preamble_stacked_headers",
        "offset_start",
        "mixed_sheets",
        "sparse_rows",
        "csv_bom",
        "csv_semicolon",
        "csv_quotes",
        "csv_latin1",
        "side_by_side",
        "merged_headers",
        "formulas_and_errors",
        "dates_1900",
        "dates_1904",
        "empty_workbook",
    }


def test_samples_are_what_their_script_makes(tmp_path: Path) -> None:
    """Nobody edited an expectation, a CSV file or a workbook by hand."""
    pytest.importorskip("xlsxwriter")
    for script in ("make_samples.py", "expectation.py"):
        (tmp_path / script).write_bytes((FIXTURES / script).read_bytes())
    subprocess.run([sys.executable, "-B", str(tmp_path / "make_samples.py")], check=True, timeout=120)
    made = {path.relative_to(tmp_path) for path in (tmp_path / "samples").rglob("*") if path.is_file()}
    assert made == {path.relative_to(FIXTURES) for path in (FIXTURES / "samples").rglob("*") if path.is_file()}
    for name in sorted(made):
        assert content(tmp_path / name) == content(FIXTURES / name), name
