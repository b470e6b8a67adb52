"""Transform and validate: what scripts may return, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import Bench, manifest
from ade_runner.validation import redacted


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


SHEET = [[None, None, None], [None, "Code", "Amount"], [None, " a1 ", 5], [None, "a2", 6], [None, None, 7]]
FIELDS = {"code": {"label": "Code", "script": "columns/code.py"}, "amount": {"label": "Amount"}}
UPPER = """
def transform(values):
    return {"values": [v.strip().upper() if v else v for v in values], "warnings": ["trimmed"]}
"""


def run(bench, source, fields=FIELDS, sheet=SHEET, **options):
    return bench.table(sheet, manifest(fields), {"columns/code.py": source}, **options)


def test_transform_replaces_values_and_counts_what_changed(bench):
    done = run(bench, UPPER)
    assert [row[0] for row in done.rows] == ["Code", "A1", "A2", None]
    assert done.tables[0]["transforms"] == [
        {"target_field": "code", "transform": "columns.code:transform", "changed": 2, "total": 3, "warnings": ["trimmed"]}
    ]


@pytest.mark.parametrize(
    "source",
    [
        "return None",
        "return values",
        "return {'values': 'abc'}",
        "return {'values': values[:-1]}",
        "return {'values': [[v] for v in values]}",
        "return {'values': [{} for v in values]}",
        "return {'values': (v for v in values)}",
    ],
)
def test_a_wrong_return_of_transform_leaves_the_values(bench, source):
    done = run(bench, f"def transform(values):\n    {source}\n")
    assert [row[0] for row in done.rows[1:]] == [" a1 ", "a2", None]
    assert done.diagnostic("runtime.transform.invalid_result")["script"] == "columns/code.py"


def test_a_raising_transform_leaves_the_values_even_if_it_changed_them_in_place(bench):
    done = run(bench, "def transform(values):\n    values.clear()\n    raise KeyError('a2')\n")
    assert [row[0] for row in done.rows[1:]] == [" a1 ", "a2", None]
    found = done.diagnostic("runtime.transform.exception")
    assert (found["line"], found["exception"], found["function"]) == (3, "KeyError", "transform")
    assert "a2" not in json.dumps(found)


def test_the_deepest_frame_inside_the_package_is_named(bench):
    scripts = {
        "columns/code.py": "from columns.helpers import work\n\ndef transform(values):\n    return work(values)\n",
        "columns/helpers.py": "import json\n\ndef work(values):\n    return json.loads('{')\n",
    }
    done = bench.table(SHEET, manifest(FIELDS), scripts)
    found = done.diagnostic("runtime.transform.exception")
    assert (found["script"], found["function"], found["line"]) == ("columns/helpers.py", "work", 4)
    assert found["rule"] == "columns.code:transform"


def test_foreign_scalars_become_cells(bench):
    done = run(bench, "import decimal\n\ndef transform(values):\n    return {'values': [decimal.Decimal('1.5'), 2, float('nan')]}\n")
    assert [row[0] for row in done.rows[1:]] == [1.5, 2, None]


def test_warnings_are_cut_and_counted(bench):
    done = run(bench, "def transform(values):\n    return {'values': values, 'warnings': ['w' * 500] * 30}\n")
    entry = done.tables[0]["transforms"][0]
    assert len(entry["warnings"]) == 20 and len(entry["warnings"][0]) == 201 and entry["warnings_dropped"] == 10


ISSUES = """
def validate(values):
    return {"issues": [
        {"row_index": at, "code": "regex_mismatch", "severity": "warning", "message": f"{v!r} is not a code"}
        for at, v in enumerate(values, start=1) if v and v != "a2"
    ] + [{"row_index": 3, "code": "missing", "message": "empty"}]}
"""


def test_issues_get_their_place_in_the_sheet_and_a_canonical_code(bench):
    done = run(bench, ISSUES)
    assert done.tables[0]["validation"]["issues"] == [
        {
            "a1": "B3", "row_index": 3, "target_field": "code", "column": "sheet_1.table_1.col.1",
            "code": "pattern_mismatch", "severity": "warning", "message": "' … ' is not a code", "rule": "columns.code:validate",
        },
        {
            "a1": "B5", "row_index": 5, "target_field": "code", "column": "sheet_1.table_1.col.1",
            "code": "required_missing", "severity": "error", "message": "empty", "rule": "columns.code:validate",
        },
    ]  # fmt: skip
    assert done.tables[0]["validation"]["summary_by_field"]["code"] == {
        "errors": 1, "warnings": 1, "info": 0, "missing": 1, "by_code": {"pattern_mismatch": 1, "required_missing": 1},
    }  # fmt: skip
    assert done.result["summary"]["issues_found"] == 2


def test_the_place_of_an_issue_is_right_below_blank_rows(bench):
    sheet = [["Code", "Amount"], ["a1", 1], ["a2", 2], [], ["bad", 3]]
    source = "def validate(values):\n    return {'issues': [{'row_index': values.index('bad') + 1, 'code': 'x', 'message': 'm'}]}\n"
    done = run(bench, source, sheet=sheet)
    assert done.tables[0]["validation"]["issues"][0]["a1"] == "A5"


@pytest.mark.parametrize(
    "issue",
    ["5", "{}", "{'row_index': 0, 'code': 'x'}", "{'row_index': 4, 'code': 'x'}", "{'row_index': True, 'code': 'x'}",
     "{'row_index': '1', 'code': 'x'}", "{'row_index': 1}", "{'row_index': 1, 'code': 'a b'}", "{'row_index': 1, 'code': 'x', 'severity': 'fatal'}"],
)  # fmt: skip
def test_a_malformed_issue_is_left_out_and_the_others_stay(bench, issue):
    done = run(bench, f"def validate(values):\n    return {{'issues': [{issue}, {{'row_index': 1, 'code': 'ok', 'message': 'm'}}]}}\n")
    assert [one["code"] for one in done.tables[0]["validation"]["issues"]] == ["ok"]
    assert done.diagnostic("runtime.validator.invalid_issue")["count"] == 1


@pytest.mark.parametrize(
    ("source", "code"),
    [("raise RuntimeError", "runtime.validator.exception"), ("return []", "runtime.validator.invalid_result"), ("return {'issues': 5}", "runtime.validator.invalid_result")],
)
def test_a_failing_validator_is_neutral_and_named(bench, source, code):
    done = run(bench, f"def validate(values):\n    {source}\n")
    assert done.ok and done.result["summary"]["issues_found"] == 0
    assert done.diagnostic(code)["script"] == "columns/code.py"


def test_issues_are_capped_per_field_and_code_and_counted_exactly(bench):
    rows = [["Code", "Amount"], *[[f"c{at}", at] for at in range(500)]]
    source = """
        def validate(values):
            return {"issues": [{"row_index": at, "code": "odd" if at % 2 else "even", "message": "m"} for at in range(1, len(values) + 1)]}
        """
    done = run(bench, source, sheet=rows, issues_per_code=10)
    assert len(done.tables[0]["validation"]["issues"]) == 20
    assert done.tables[0]["validation"]["summary_by_field"]["code"]["by_code"] == {"odd": 250, "even": 250}
    assert done.result["summary"]["issues_found"] == 500


def test_a_required_field_without_validator_reports_blank_cells(bench):
    fields = {"code": {"label": "Code", "required": True}, "amount": {"label": "Amount", "required": True}}
    done = bench.table(SHEET, manifest(fields))
    issues = done.tables[0]["validation"]["issues"]
    assert [(one["a1"], one["code"], one["rule"]) for one in issues] == [("B5", "required_missing", "builtin.validate:required")]


def test_a_required_field_that_no_column_was_mapped_to_is_one_issue_of_the_table(bench):
    fields = {"code": {"label": "Code"}, "town": {"label": "Town", "required": True}}
    done = bench.table(SHEET, manifest(fields))
    issues = done.tables[0]["validation"]["issues"]
    assert [(one["a1"], one["row_index"], one["target_field"]) for one in issues] == [(None, None, "town")]
    assert [row[0:2] for row in done.rows[:2]] == [["Code", "Town"], [" a1 ", None]]


def test_a_message_never_holds_the_value_it_complains_about():
    assert redacted("'Jo' is not a job", "Jo") == "'…' is not a job"
    assert redacted("got 5.5, wanted 15.5", 5.5) == "got …, wanted 15.5"
    assert redacted("nothing there", None) == "nothing there"


BATCHED = {
    "columns/code.py": """
        def transform(values, state, row_offset):
            state["seen"] = state.get("seen", 0) + len(values)
            assert state["seen"] == row_offset + len(values)
            return {"values": [str(v).upper() for v in values]}

        def validate(values, state):
            assert len(values) <= 3 or state["seen"] == len(values)
            return {"issues": [{"row_index": at, "code": "seven", "message": "m"} for at, v in enumerate(values, 1) if v.endswith("7")]}
        """
}


def without_times(artifact):
    """The artifact less times and durations."""
    if isinstance(artifact, dict):
        skip = ("completed_at", "started_at", "duration_ms", "annotated_at")
        return {key: without_times(value) for key, value in artifact.items() if key not in skip}
    return [without_times(one) for one in artifact] if isinstance(artifact, list) else artifact


def test_batches_give_the_same_as_one_call_with_the_whole_column(bench):
    rows = [["Code", "Amount"], *[[f"c{at}", at] for at in range(40)]]
    whole = bench.table(rows, manifest(FIELDS), BATCHED)
    small = bench.table(rows, manifest(FIELDS), BATCHED, batch_rows=3)
    assert whole.ok and not whole.codes(), whole.artifact["diagnostics"]
    assert whole.rows == small.rows
    left, right = without_times(whole.artifact), without_times(small.artifact)
    for one in (left, right):
        del one["inputs"]
    assert left == right
    assert [one["a1"] for one in whole.tables[0]["validation"]["issues"]] == ["A9", "A19", "A29", "A39"]


def test_in_memory_mode_always_hands_over_the_whole_column(bench):
    rows = [["Code", "Amount"], *[[f"c{at}", at] for at in range(40)]]
    given = manifest(FIELDS, engine={"writer": {"mode": "in_memory"}})
    source = "def transform(values):\n    print(len(values))\n    return {'values': values}\n"
    done = bench.table(rows, given, {"columns/code.py": source}, batch_rows=3)
    assert done.logs() == ["40"]


def test_two_runs_of_the_same_job_give_the_same_artifact_and_rows(bench):
    first, second = (run(bench, UPPER + ISSUES) for _ in range(2))
    left, right = without_times(first.artifact), without_times(second.artifact)
    for one in (left, right):
        for given in one["inputs"]:
            del given["bytes"]  # the workbook is made anew, with its creation time in it
    assert json.dumps(left) == json.dumps(right)
    assert first.rows == second.rows


def test_unmapped_columns_share_a_column_across_tables_and_stay_unique_within_one(bench):
    done = bench.run(
        {
            "a.xlsx": [["Code", "Start Date", "Start-Date", "raw"], ["a", 1, 2, 3]],
            "b.xlsx": [["START DATE", "Code"], [4, "b"]],
        },
        manifest({"code": {"label": "Code"}}),
    )
    assert done.rows == [
        ["Code", "raw_Start_Date", "raw_Start_Date_2", "raw_raw"],
        ["a", 1, 2, 3],
        ["b", 4, None, None],
    ]
    plan = done.artifact["output"]["column_plan"]["appended_unmapped"]
    assert [one["order"] for one in plan] == [2, 3, 4]
    assert plan[0]["columns"] == ["sheet_1.table_1.col.2", "sheet_2.table_1.col.1"]


def test_unmapped_columns_are_left_out_when_the_manifest_says_so(bench):
    given = manifest({"code": {"label": "Code"}}, engine={"writer": {"append_unmapped_columns": False, "output_sheet": "Out"}})
    done = bench.table(SHEET, given)
    assert done.rows[0] == ["Code"]
    assert done.artifact["output"]["sheet"] == "Out"


def test_no_cell_value_reaches_the_artifact(bench):
    secret = "Xyzzy42"
    source = """
        def detect_c(values_sample, header):
            raise ValueError(values_sample)
        def transform(values):
            raise KeyError(values[0])
        def validate(values):
            return {"issues": [{"row_index": 1, "code": "c", "message": f"bad value {values[0]}"}]}
        """
    fields = {"code": {"label": "Code", "script": "columns/code.py"}, "other": {"label": "Other", "script": "columns/other.py"}}
    scripts = {"columns/code.py": source, "columns/other.py": "def detect_o(header):\n    return {'scores': {'code': header == 'Code' and 1.0 or 0.0}}\n"}
    done = bench.table([["Code", "Amount"], [secret, 1]], manifest(fields), scripts)
    assert {"runtime.column_detector.exception", "runtime.transform.exception"} <= set(done.codes())
    assert done.tables[0]["validation"]["issues"][0]["message"] == "bad value …"
    assert secret not in (done.root / "out/artifact.json").read_text()
    assert secret not in json.dumps(done.channel.events, default=str)


def test_the_artifact_of_a_hundred_thousand_rows_stays_small(bench):
    text = "Code,Amount\n" + "".join(f"c{at},{at}\n" for at in range(100_000))
    source = "def validate(values):\n    return {'issues': [{'row_index': at, 'code': 'bad', 'message': 'm'} for at in range(1, len(values) + 1)]}\n"
    done = bench.run({"big.csv": text.encode()}, manifest(FIELDS), {"columns/code.py": source})
    assert done.result["summary"] == {"rows_written": 100_000, "columns_written": 2, "issues_found": 100_000}
    assert (done.root / "out/artifact.json").stat().st_size < 1_000_000
