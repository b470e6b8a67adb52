"""Which column becomes which field."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import Bench, manifest


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def targets(done, table: int = 0) -> list[str | None]:
    return [one["target_field"] for one in done.tables[table]["mapping"]]


def scored(given, scripts, extra=()):
    meta = {name: {"label": name.title(), "script": f"columns/{name}.py", **more} for name, more in given.items()}
    return manifest(meta, **dict(extra)), scripts


SHEET = [["Member ID", "Name", "Amount"], ["A1", "Ada", 1], ["A2", "Bob", 2]]


def test_fields_without_detectors_are_matched_by_label_synonym_and_id(bench):
    fields = {
        "member_id": {"label": "Identifier"},
        "name": {"label": "Full name", "synonyms": ["NAME"]},
        "amount": {"label": "amount"},
    }
    done = bench.table([["MEMBER-id", "name", " Amount: "], ["A1", "Ada", 1]], manifest(fields))
    assert targets(done) == ["member_id", "name", "amount"]
    assert [one["score"] for one in done.tables[0]["mapping"]] == [0.8, 0.9, 1.0]


def test_detectors_add_up_over_scripts_and_self_means_their_own_field(bench):
    given, scripts = scored(
        {"code": {}, "label": {}},
        {
            "columns/code.py": """
                def detect_header(header, field_name):
                    return {"scores": {"self": 0.4 if header == "Member ID" else 0, "label": 0.2}}
                def detect_values(values_sample):
                    return {"scores": {"code": 0.3 if values_sample == ["A1", "A2"] else -1}}
                """,
            "columns/label.py": "def detect_it(*, column_index):\n    return {'scores': {'self': 0.5 if column_index == 2 else 0.0}}\n",
        },
    )
    done = bench.table(SHEET, given, scripts)
    assert targets(done) == ["code", "label", None]
    first = done.tables[0]["mapping"][0]
    assert first["contributors"] == [
        {"rule": "columns.code:detect_header", "delta": 0.4},
        {"rule": "columns.code:detect_values", "delta": 0.3},
    ]
    assert first["runner_up"] == {
        "field": "label",
        "score": 0.2,
        "contributors": [{"rule": "columns.code:detect_header", "delta": 0.2}],
    }
    assert done.tables[0]["mapping"][1]["score"] == 0.7


def test_a_column_below_the_threshold_stays_unmapped(bench):
    given, scripts = scored({"code": {}}, {"columns/code.py": "def detect_x(header):\n    return {'scores': {'self': 0.4 if header == 'Name' else 0}}\n"})
    done = bench.table(SHEET, given, scripts)
    assert targets(done) == [None, None, None]
    nearly = done.tables[0]["mapping"][1]
    assert (nearly["score"], nearly["contributors"]) == (0.4, [])
    assert nearly["runner_up"] == {
        "field": "code",
        "score": 0.4,
        "contributors": [{"rule": "columns.code:detect_x", "delta": 0.4}],
    }
    given["engine"] = {"defaults": {"mapping_score_threshold": 0.4}}
    assert targets(bench.table(SHEET, given, scripts)) == [None, "code", None]


def test_a_score_of_zero_never_maps_even_with_threshold_zero(bench):
    given, scripts = scored(
        {"code": {}}, {"columns/code.py": "def detect_x():\n    return {'scores': {'self': 0}}\n"}, {"engine": {"defaults": {"mapping_score_threshold": 0}}}
    )
    assert targets(bench.table(SHEET, given, scripts)) == [None, None, None]


def test_ties_go_to_the_exact_label_then_the_synonym_then_manifest_order(bench):
    both = "def detect_x():\n    return {'scores': {'self': 1}}\n"
    names = {"columns/a.py": both, "columns/b.py": both}
    given, scripts = scored({"a": {}, "b": {"label": "Name"}}, names)
    assert targets(bench.table([["Name"], [1], [2]], given, {**scripts, "row_types/h.py": FIRST_ROW})) == ["b"]
    given, scripts = scored({"a": {}, "b": {"synonyms": ["Name"]}}, names)
    assert targets(bench.table([["Name"], [1], [2]], given, {**scripts, "row_types/h.py": FIRST_ROW})) == ["b"]
    given, scripts = scored({"a": {}, "b": {}}, names)
    assert targets(bench.table([["Name"], [1], [2]], given, {**scripts, "row_types/h.py": FIRST_ROW})) == ["a"]


FIRST_ROW = "def detect_h(row_index):\n    return {'scores': {'header' if row_index == 1 else 'data': 1}}\n"


def test_the_loser_of_a_field_is_reported_and_keeps_its_data(bench):
    sheet = [["Name", "Member ID", "name"], ["Ada", "A1", "x"], ["Bob", "A2", "y"]]
    done = bench.table(sheet)
    assert targets(done) == ["name", "member_id", None]
    loser = done.tables[0]["mapping"][2]
    assert (loser["wanted_field"], loser["lost_to"]) == ("name", "sheet_1.table_1.col.1")
    assert [row[2] for row in done.rows] == ["raw_name", "x", "y"]


def test_the_higher_score_takes_the_field_wherever_it_stands(bench):
    given = manifest({"name": {"label": "Name", "synonyms": ["Alias"]}})
    assert targets(bench.table([["Alias", "Name"], ["Ada", 1], ["Bob", 2]], given)) == [None, "name"]


def test_disabled_fields_are_neither_scored_nor_written(bench):
    given = manifest({"member_id": {"label": "Member ID", "enabled": False}, "name": {"label": "Name"}})
    done = bench.table(SHEET, given)
    assert targets(done) == [None, "name", None]
    assert done.rows[0] == ["Name", "raw_Member_ID", "raw_Amount"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("raise ValueError('A1')", "runtime.column_detector.exception"),
        ("raise SystemExit(3)", "runtime.column_detector.exception"),
        ("raise KeyboardInterrupt", "runtime.column_detector.exception"),
        ("return detect_x(**kwargs)", "runtime.column_detector.exception"),
        ("return 5", "runtime.column_detector.invalid_result"),
        ("return {'scores': [1]}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {'self': float('nan')}}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {'self': float('inf')}}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {'self': True}}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {'self': '1'}}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {5: 1}}", "runtime.column_detector.invalid_result"),
        ("return {'scores': {'nobody': 1}}", "runtime.column_detector.unknown_field"),
    ],
)
def test_junk_from_a_column_detector_is_neutral_and_named(bench, source, code):
    given, scripts = scored({"code": {}}, {"columns/code.py": f"import math\n\ndef detect_x(**kwargs):\n    {source}\n"})
    done = bench.table(SHEET, given, scripts)
    assert done.ok and targets(done) == [None, None, None]
    found = done.diagnostic(code)
    assert (found["script"], found["function"], found["count"]) == ("columns/code.py", "detect_x", 3)
    assert found["line"] == (4 if code.endswith("exception") else 3)
    assert "A1" not in str(found)


def test_junk_from_a_row_detector_is_neutral_and_named(bench):
    for source, code in [
        ("raise ValueError(str(kwargs))", "runtime.row_detector.exception"),
        ("return []", "runtime.row_detector.invalid_result"),
        ("return {'scores': {'footer': 1}}", "runtime.row_detector.invalid_result"),
        ("return {'scores': {'header': float('nan')}}", "runtime.row_detector.invalid_result"),
    ]:
        done = bench.table(SHEET, None, {"row_types/x.py": f"def detect_x(**kwargs):\n    {source}\n", "row_types/y.py": FIRST_ROW})
        assert done.ok and targets(done) == ["member_id", "name", None]
        assert done.diagnostic(code)["count"] == 3


def test_scripts_see_the_documented_arguments(bench):
    given, scripts = scored(
        {"code": {"pattern": "^A"}},
        {
            "columns/code.py": """
                def detect_x(**kwargs):
                    table = kwargs["table"]
                    print(sorted(kwargs))
                    print(kwargs["job_id"], kwargs["source_file"], kwargs["sheet_name"], kwargs["field_name"],
                          kwargs["field_meta"]["pattern"], kwargs["env"]["REGION"], kwargs["manifest"]["info"]["title"],
                          kwargs["artifact"]["sheets"][0]["name"], kwargs["table_id"])
                    print(dict(table))
                """
        },
        {"env": {"REGION": "north"}},
    )
    done = bench.table(SHEET, given, scripts)
    logs = done.logs()
    assert logs[0] == str(
        sorted(
            "job_id source_file sheet_name manifest env artifact job_context header values_sample column_index table_id table"
            " field_name field_meta state".split()
        )
    )
    assert logs[1] == "job_1 book.xlsx Sheet1 code ^A north Test Sheet1 sheet_1.table_1"
    assert logs[2] == str(
        {"id": "sheet_1.table_1", "sheet_id": "sheet_1", "header_row": 1, "data_row_start": 2, "row_count": 2, "column_count": 3}
    )
