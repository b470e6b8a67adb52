"""What the structure pass finds in messy sheets, with the built-in detectors and with a package's own."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from ade_runner.spill import Spill
from ade_runner.structure import scan
from jobs import PEOPLE, Bench, manifest


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


DAY = datetime.datetime(2024, 5, 6)
HEADER = ["Member ID", "Name", "Amount"]
ROWS: list[list[object]] = [["A1", "Ada Long", 1], ["A2", "Bob Short", 2], ["A3", "Cyd Tall", 3]]


def headers(done) -> list[list[object]]:
    return [table["header"]["source_header"] for table in done.tables]


def ranges(done) -> list[str]:
    return [table["range"] for table in done.tables]


def test_a_preamble_above_the_header_is_left_out_and_reported(bench):
    done = bench.table([["Monthly report"], ["Created", DAY], ["Prepared by", "Someone Else"], [], HEADER, *ROWS])
    assert ranges(done) == ["A5:C8"]
    assert done.rows[1:] == [["A1", "Ada Long", 1], ["A2", "Bob Short", 2], ["A3", "Cyd Tall", 3]]
    assert done.diagnostic("structure.skipped_block")["place"]["reason"] == "preamble"


def test_a_preamble_directly_above_the_header_is_left_out(bench):
    done = bench.table([["Monthly report"], ["Created", DAY], HEADER, *ROWS])
    assert ranges(done) == ["A3:C6"]
    assert len(done.rows) == 4


def test_the_best_of_stacked_headers_wins_and_blank_cells_take_the_text_above(bench):
    sheet = [["Person", None, "Money", "Note"], ["Member ID", "Name", "Amount"], ["A1", "Ada", 1, "x"], ["A2", "Bob", 2, "y"]]
    done = bench.table(sheet)
    assert headers(done) == [["Member ID", "Name", "Amount", "Note"]]
    assert done.tables[0]["header"]["row_index"] == 2


def test_merged_header_cells_name_every_column_they_cover(bench):
    sheet = [["Member ID", "Person", None], [None, "Name", "Town"], ["A1", "Ada", 1], ["A2", "Bob", 2]]
    given = manifest({"member_id": {"label": "Member ID"}, "name": {"label": "Name"}, "town": {"label": "Town"}})
    done = bench.table(sheet, given, merge={"Sheet1": ["A1:A2", "B1:C1"]})
    assert headers(done) == [["Member ID", "Name", "Town"]]
    assert [row[:3] for row in done.rows[1:]] == [["A1", "Ada", 1], ["A2", "Bob", 2]]


def test_two_tables_stacked_with_blank_rows_are_two_tables(bench):
    done = bench.table([HEADER, *ROWS, [], [], ["Name", "Member ID", "Amount"], ["Dot Last", "A4", 4]])
    assert ranges(done) == ["A1:C4", "A7:C8"]
    assert done.rows[-1][:2] == ["A4", "Dot Last"]


def test_two_tables_stacked_without_a_blank_row_are_two_tables(bench):
    done = bench.table([HEADER, *ROWS, ["Name", "Member ID", "Amount"], ["Dot Last", "A4", 4]])
    assert ranges(done) == ["A1:C4", "A5:C6"]


def test_rows_below_blank_rows_continue_the_table_above(bench):
    done = bench.table([HEADER, *ROWS[:2], [], [], *ROWS[2:]])
    assert ranges(done) == ["A1:C6"]
    assert done.tables[0]["row_count"] == 3


def test_side_by_side_tables_are_told_apart(bench):
    sheet = [
        ["Member ID", "Name", None, "Plan", "Price"],
        ["A1", "Ada", None, "basic", 5],
        ["A2", "Bob", None, "plus", 7],
        ["A3", "Cyd"],
    ]
    done = bench.table(sheet)
    assert ranges(done) == ["A1:B4", "D1:E3"]
    assert [table["row_count"] for table in done.tables] == [3, 2]
    assert len(done.rows) == 1 + 3 + 2


def test_an_empty_column_inside_one_record_is_decoration(bench):
    given = manifest({name: {"label": name.title()} for name in ("member", "name", "town", "street")})
    sheet = [["Member", "Name", None, "Town", "Street"], ["A1", "Ada", None, "Ulm", "High"], ["A2", "Bob", None, "Rom", "Low"]]
    done = bench.table(sheet, given)
    assert ranges(done) == ["A1:E3"]
    assert done.rows[1] == ["A1", "Ada", "Ulm", "High"]


def test_a_table_may_start_anywhere(bench):
    sheet = [[], [], [], [None, *HEADER], *[[None, *row] for row in ROWS]]
    done = bench.table(sheet)
    assert ranges(done) == ["B4:D7"]
    assert done.tables[0]["columns"][0]["column"] == "B"


def test_duplicate_and_blank_headers_are_kept(bench):
    done = bench.table([["Member ID", "Name", "Name", None], ["A1", "Ada", 1, "p"], ["A2", "Bob", 2, "q"]])
    assert headers(done) == [["Member ID", "Name", "Name", None]]
    assert done.rows[0] == ["Member ID", "Name", "raw_Name", "raw_column_4"]
    assert done.rows[1] == ["A1", "Ada", 1, "p"]


def test_totals_and_notes_under_a_table_are_not_data(bench):
    done = bench.table([HEADER, *ROWS, ["Total", None, 6], [], ["All amounts in euro"]])
    assert done.tables[0]["data_range"] == "A2:C4"
    labels = [one["label"] for one in done.artifact["sheets"][0]["row_classification"] if "first_row" in one]
    assert labels == ["header", "data", "separator", "separator"]


def test_a_record_that_is_only_an_identifier_is_data(bench):
    done = bench.table([HEADER, *ROWS, ["A4"]])
    assert done.tables[0]["row_count"] == 4


def test_a_full_row_that_begins_with_total_is_data(bench):
    done = bench.table([["Name", "Member ID", "Amount"], ["Total Energies", "A1", 5], ["Total", "A2", 6]])
    assert done.tables[0]["row_count"] == 2


def test_a_sheet_of_notes_is_no_table_and_is_reported(bench):
    notes = [["About this file"], ["It was exported by the payroll system on Monday."], ["Ask the office."]]
    done = bench.run({"book.xlsx": {"Notes": notes, "People": [HEADER, *ROWS]}})
    assert [len(sheet["tables"]) for sheet in done.artifact["sheets"]] == [0, 1]
    assert done.diagnostic("structure.skipped_block")["place"] == {
        "sheet": "sheet_1", "reason": "notes", "first_row": 1, "last_row": 3, "rows": 3,
    }  # fmt: skip


def test_every_sheet_of_every_input_is_read_in_order(bench):
    done = bench.run(
        {
            "one.xlsx": {"A": [HEADER, ["A1", "Ada", 1]], "B": [HEADER, ["A2", "Bob", 2]]},
            "two.csv": b"Member ID;Name;Amount\nA3;Cyd;3\n",
        }
    )
    assert [row[0] for row in done.rows[1:]] == ["A1", "A2", "A3"]
    assert [sheet["input"] for sheet in done.artifact["sheets"]] == [1, 1, 2]
    assert [one["format"] for one in done.artifact["inputs"]] == ["xlsx", "csv"]
    assert done.artifact["inputs"][1]["delimiter"] == ";"
    assert [table["id"] for table in done.tables] == ["sheet_1.table_1", "sheet_2.table_1", "sheet_3.table_1"]


def test_without_a_header_row_columns_get_synthetic_names(bench):
    done = bench.table([["A1", 5, DAY], ["A2", 6, DAY], ["A3", 7, DAY]])
    assert done.tables[0]["header"] == {"kind": "synthetic", "row_index": None, "source_header": [None, None, None]}
    assert done.rows[0][-3:] == ["raw_column_1", "raw_column_2", "raw_column_3"]
    assert len(done.rows) == 4
    assert "structure.no_header" in done.codes()


ALL_DATA = {"row_types/data.py": "def detect_data(**_):\n    return {'scores': {'data': 1}}\n"}


def test_a_first_row_of_texts_over_other_types_is_promoted_when_no_row_was_labelled_header(bench):
    done = bench.table([HEADER, *ROWS], None, ALL_DATA)
    assert done.tables[0]["header"]["kind"] == "promoted"
    assert done.tables[0]["range"] == "A1:C4"
    assert [row[:2] for row in done.rows[1:]] == [["A1", "Ada Long"], ["A2", "Bob Short"], ["A3", "Cyd Tall"]]


def test_a_header_without_rows_is_a_table_without_rows(bench):
    done = bench.table([HEADER])
    assert done.tables[0]["data_range"] is None
    assert done.tables[0]["row_count"] == 0
    assert "structure.no_rows" in done.codes()
    assert done.ok and len(done.rows) == 1


def test_inputs_without_any_cell_fail_with_input_no_data(bench):
    done = bench.run({"a.xlsx": {"Empty": []}})
    assert done.error["kind"] in ("input_no_data", "input_empty")
    assert done.error["pass"] == "structure"


def test_a_table_that_is_too_wide_fails_with_the_limit(bench):
    wide = [f"h{at}" for at in range(2049)]
    done = bench.run({"wide.csv": (",".join(wide) + "\n" + ",".join("1" for _ in wide) + "\n").encode()})
    assert done.error["kind"] == "input_too_wide"
    assert "2,048" in done.error["message"]


def test_a_file_that_is_no_workbook_fails_and_is_named(bench):
    done = bench.run({"broken.xlsx": b"PK\x03\x04 this is no archive"})
    assert done.error["kind"].startswith("input_")
    assert "broken.xlsx" in done.error["message"]


def test_package_detectors_decide_alone_and_get_what_they_ask_for(bench):
    scripts = {
        "row_types/header.py": """
            SEEN = []
            def detect_first(row_index, row_values_sample, table_hint, sheet_name, *, state):
                state["n"] = state.get("n", 0) + 1
                if row_index == 1:
                    assert table_hint == {"in_table": False, "header_row": None, "rows_since_header": 0}, table_hint
                if row_index == 3:
                    assert table_hint == {"in_table": True, "header_row": 2, "rows_since_header": 0}, table_hint
                    assert row_values_sample == ["A1", "Ada"] and state["n"] == 3
                return {"scores": {"header": 1.0 if row_index == 2 else -1.0}}
            """,
        "row_types/other.py": """
            def detect_other(row_values_sample):
                return {"scores": {"separator": 2.0 if row_values_sample[0] == "stop" else 0.0, "data": 0.5}}
            """,
    }
    done = bench.table([["Amount", "Member ID"], ["Member ID", "Name"], ["A1", "Ada"], ["stop", "here"], ["A2", "Bob"]], None, scripts)
    assert not [one for one in done.codes() if one.startswith("runtime")], done.artifact["diagnostics"]
    assert [row[:2] for row in done.rows[1:]] == [["A1", "Ada"], ["A2", "Bob"]]
    header = next(one for one in done.artifact["sheets"][0]["row_classification"] if one.get("row_index") == 2)
    assert header["rule_traces"] == [
        {"rule": "row_types.header:detect_first", "delta": 1.0},
        {"rule": "row_types.other:detect_other", "delta": 0.5},
    ]


def test_a_detector_that_sees_headers_in_every_row_of_texts_does_not_eat_the_data(bench):
    scripts = {
        "row_types/header.py": """
            def detect_text(row_values_sample):
                cells = [v for v in row_values_sample if v is not None]
                return {"scores": {"header": sum(isinstance(v, str) for v in cells) / len(cells)}}
            """
    }
    rows = [[f"A{at}", f"Person {at}"] for at in range(40)]
    done = bench.table([["Member ID", "Name"], *rows], None, scripts)
    assert len(done.tables) == 1
    assert done.rows[1:] == rows


def test_neutral_detectors_leave_rows_as_data(bench):
    done = bench.table([["A1", 5], ["A2", 6]], None, {"row_types/none.py": "def detect_none(**_):\n    return None\n"})
    assert done.tables[0]["row_count"] == 2


def test_csv_with_all_texts_finds_header_and_total(bench):
    done = bench.run({"x.csv": b"Member ID,Name,Amount\nA1,Ada,5\nA2,Bob,6\nTotal,,11\n"})
    assert done.tables[0]["row_count"] == 2


def test_a_text_only_table_keeps_all_its_rows(bench):
    rows = [["A1", "Ada", "Ulm"], ["A2", "Bob", "Rome"], ["A3", "Cyd", "Paris"]]
    done = bench.table([["Member ID", "Name", "Town"], *rows])
    assert done.rows[1:] == rows


def test_row_classification_stays_small_whatever_the_rows_do(bench):
    text = "".join("A,B,1\n\n" for _ in range(20_000))
    done = bench.run({"gaps.csv": text.encode()})
    assert len(done.artifact["sheets"][0]["row_classification"]) < 1_100
    assert (done.root / "out/artifact.json").stat().st_size < 200_000


def test_more_header_rows_than_tables_allowed_are_read_as_data(bench):
    text = "".join(f"Member ID,Name\nA{at},x{at}\n" for at in range(400))
    done = bench.run({"many.csv": text.encode()})
    assert len(done.tables) == 256
    assert "structure.too_many_tables" in done.codes()
    assert done.result["summary"]["rows_written"] == 400 + (400 - 256)


def test_people_come_out_as_they_went_in(bench):
    done = bench.table(PEOPLE)
    assert done.rows[1:] == PEOPLE[1:]


def test_side_by_side_tables_may_have_their_headers_in_different_rows(bench):
    sheet = [
        ["Member ID", "Name"],
        ["A1", "Ada Long"],
        ["A2", "Bob Short", None, "Plan", "Price"],
        ["A3", "Cyd Tall", None, "basic", 5],
        ["A4", "Dot Wide", None, "plus", 7],
    ]
    done = bench.table(sheet)
    assert ranges(done) == ["A1:B5", "D3:E5"]
    assert [table["header"]["kind"] for table in done.tables] == ["raw", "promoted"]
    assert [table["row_count"] for table in done.tables] == [4, 2]


def test_a_record_of_one_text_is_data_and_a_note_after_a_blank_row_is_excluded_and_reported(bench):
    done = bench.table([HEADER, *ROWS, ["A4"], ["Dee"], ["A5", "Eve", 5], [], ["All figures were checked."]])
    assert [row[0] for row in done.rows[1:]] == ["A1", "A2", "A3", "A4", "Dee", "A5"]
    place = done.diagnostic("structure.excluded_rows")["place"]
    assert (place["rows"], place["first_row"], place["last_row"]) == (1, 9, 9)


def test_a_header_cell_merged_downwards_does_not_turn_a_record_into_a_header(bench):
    done = bench.table([HEADER, [None, "Ada Long", 1], *ROWS[1:]], merge={"Sheet1": ["A1:A2"]})
    assert done.tables[0]["row_count"] == 3
    assert done.rows[1][1:] == ["Ada Long", 1]


def test_a_table_that_is_too_wide_is_refused_while_scanning_before_its_rows_are_stored(bench, monkeypatch):
    monkeypatch.setattr(scan, "MAX_TABLE_COLUMNS", 6)
    monkeypatch.setattr(scan, "CHUNK_CELLS", 40)
    stored: list[int] = []
    monkeypatch.setattr(Spill, "append", lambda self, columns: stored.append(len(columns)))
    done = bench.table([[at * 10 + row for at in range(8)] for row in range(50)])
    assert done.error["kind"] == "input_too_wide"
    assert not stored


def test_chunks_end_at_so_many_cells_without_losing_a_row(bench, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_CELLS", 12)
    heights: list[int] = []
    append = Spill.append
    monkeypatch.setattr(Spill, "append", lambda self, columns: heights.append(len(columns[0])) or append(self, columns))
    done = bench.table([HEADER, *[[f"A{at}", "Ada Long", at] for at in range(20)]])
    assert [row[2] for row in done.rows[1:]] == list(range(20))
    assert max(heights) == 4
