"""Every example runs, gives what its ``expected/`` folder says, and is what the documentation shows."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ade_runner.channel import ListChannel
from ade_runner.dry_run import dry_run
from expectation_support import (
    EXAMPLES,
    FIXTURES,
    REPOSITORY,
    assert_as_expected,
    assert_no_cell_value,
    content,
    expectation,
    run,
)

PACKAGES = sorted(path.parent for path in EXAMPLES.rglob("manifest.json"))
COMPLETE = [path for path in PACKAGES if path.parent == EXAMPLES]
GUIDE = REPOSITORY / "docs" / "users" / "first-package.md"
SNIPPET = re.compile(r"<!-- file: (?P<file>\S+) -->\n+```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(EXAMPLES).as_posix()


def inputs_of(package: Path) -> list[Path]:
    return [example_of(package) / name for name in expectation(example_of(package))["inputs"]]


def example_of(package: Path) -> Path:
    """The folder of the one example that a package has."""
    (folder,) = (package / "examples").iterdir()
    return folder


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_an_example_comes_out_as_expected(package: Path, tmp_path: Path) -> None:
    outcome = run(package, inputs_of(package), tmp_path / "job")
    assert_as_expected(outcome, example_of(package))
    assert_no_cell_value(outcome, example_of(package))


@pytest.mark.parametrize("package", COMPLETE, ids=name_of)
def test_an_example_comes_out_the_same_in_batches(package: Path, tmp_path: Path) -> None:
    """Checks across rows and columns hold when a table is handed over a few rows at a time."""
    outcome = run(package, inputs_of(package), tmp_path / "job", batch_rows=7)
    assert_as_expected(outcome, example_of(package))


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_an_example_is_tried_out_without_a_remark(package: Path, tmp_path: Path) -> None:
    shutil.copytree(package, tmp_path / "package")
    for name in ("in", "out", "tmp"):
        (tmp_path / name).mkdir()
    channel = ListChannel()
    dry_run({"limits": {"timeout_ms": 60_000}}, tmp_path, channel)
    assert channel.results[0]["ok"] and channel.results[0]["diagnostics"] == []


@pytest.mark.parametrize("package", COMPLETE, ids=name_of)
def test_every_issue_of_an_example_points_to_a_cell_of_its_column(package: Path, tmp_path: Path) -> None:
    from openpyxl.utils import coordinate_to_tuple, range_boundaries

    outcome = run(package, inputs_of(package), tmp_path / "job")
    for _, table in outcome.tables():
        left, top, _, bottom = range_boundaries(table["range"])
        fields = [column["target_field"] for column in table["mapping"]]
        for issue in table["validation"]["issues"]:
            row, column = coordinate_to_tuple(issue["a1"])
            assert top < row <= bottom
            assert fields[column - left] == issue["target_field"]


def test_a_bad_setting_fails_the_membership_job_before_any_row_is_read(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(EXAMPLES / "membership", package)
    manifest = json.loads((package / "manifest.json").read_text("utf-8"))
    manifest["env"]["DATE_ORDER"] = "YMD"
    (package / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    outcome = run(package, [example_of(package) / "roster.xlsx"], tmp_path / "job")
    assert outcome.result["error"]["kind"] == "hook_failed"
    assert outcome.result["error"]["script"] == "hooks/on_job_start.py"
    assert outcome.artifact["sheets"] == []
    ends = [one for one in outcome.artifact["annotations"] if one["stage"] == "on_job_end"]
    assert [one["outcome"] for one in ends] == ["hook_failed"]


def test_the_wrong_workbook_fails_the_price_list_job_after_mapping(tmp_path: Path) -> None:
    outcome = run(EXAMPLES / "price_list", inputs_of(EXAMPLES / "membership"), tmp_path / "job")
    assert outcome.result["error"]["kind"] == "hook_failed"
    assert outcome.result["error"]["script"] == "hooks/after_mapping.py"


def test_invoices_come_out_in_the_order_of_the_inputs(tmp_path: Path) -> None:
    package = EXAMPLES / "invoices"
    outcome = run(package, inputs_of(package)[::-1], tmp_path / "job")
    assert outcome.result["ok"], outcome.result["error"]
    inputs = [(one["name"], one["format"]) for one in outcome.artifact["inputs"]]
    assert inputs == [("meyer.csv", "csv"), ("suppliers.xlsx", "xlsx")]
    _, _, rows = outcome.sheet()
    assert (rows[0][0], rows[25][0]) == ("RE-2025-001", "INV-1000")


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.py")), ids=name_of)
def test_every_script_of_an_example_is_typed_and_explains_itself(script: Path) -> None:
    """Examples are copied: they teach by what they do."""
    tree = ast.parse(script.read_text("utf-8"))
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert node.returns is not None, node.name
            assert all(one.annotation for one in arguments if one.arg != "self"), node.name
            called_by_the_runner = node.name.startswith("detect_") or node.name in ("transform", "validate", "run")
            assert ast.get_docstring(node) or not called_by_the_runner, node.name


def test_every_workbook_of_an_example_is_small() -> None:
    workbooks = list(EXAMPLES.rglob("*.xlsx"))
    assert len(workbooks) >= 4
    for path in workbooks:
        assert path.stat().st_size < 200_000, path


def test_every_example_is_in_the_index() -> None:
    index = (EXAMPLES / "README.md").read_text("utf-8")
    for package in PACKAGES:
        assert f"({name_of(package)}/" in index, f"docs/examples/README.md does not link to {name_of(package)}"


def test_examples_are_what_their_script_makes(tmp_path: Path) -> None:
    """Nobody edited an expectation, a CSV file or a workbook by hand."""
    pytest.importorskip("xlsxwriter")
    examples = tmp_path / "docs" / "examples"
    (tmp_path / "tests" / "fixtures").mkdir(parents=True)
    (tmp_path / "tests" / "fixtures" / "expectation.py").write_bytes((FIXTURES / "expectation.py").read_bytes())
    for package in PACKAGES:
        (examples / package.relative_to(EXAMPLES)).mkdir(parents=True)
    (examples / "make_workbooks.py").write_bytes((EXAMPLES / "make_workbooks.py").read_bytes())
    subprocess.run([sys.executable, "-B", str(examples / "make_workbooks.py")], check=True, timeout=120)
    made = {path.relative_to(examples) for path in examples.rglob("*") if path.is_file() and path.suffix != ".py"}
    committed = set(EXAMPLES.glob("**/examples/*/*"))
    assert {path.relative_to(EXAMPLES) for path in committed} <= made
    for name in sorted(made):
        assert content(examples / name) == content(EXAMPLES / name), name


def test_every_snippet_of_the_guide_is_taken_from_a_tested_stage() -> None:
    """A snippet is a whole file, or consecutive lines of one."""
    text = GUIDE.read_text("utf-8")
    snippets = list(SNIPPET.finditer(text))
    assert len(snippets) >= 8
    for snippet in snippets:
        file = EXAMPLES / "first_package" / snippet["file"]
        assert snippet["text"] in file.read_text("utf-8"), f"{snippet['file']} does not hold the snippet"
    # Nothing but console sessions may stand in the guide untested.
    assert len(re.findall(r"^```\w+$", text, re.MULTILINE)) == len(snippets) + text.count("```console")


def test_the_guide_shows_every_script_of_its_last_stage() -> None:
    shown = {snippet["file"].split("/", 1)[1] for snippet in SNIPPET.finditer(GUIDE.read_text("utf-8"))}
    last = EXAMPLES / "first_package" / "6_hook"
    assert {path.relative_to(last).as_posix() for path in last.rglob("*.py")} <= shown
