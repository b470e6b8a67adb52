import datetime
import decimal
import math
import random
import re
import struct
import zipfile
from datetime import date, time, timedelta
from fractions import Fraction

import openpyxl
import pytest
import python_calamine
from ade_native import MAX_TEXT
from io_support import read_rows

from ade_runner.errors import JobError
from ade_runner.writer import SheetWriter
from ade_runner.zip_writer import ZipWriter


def write(path, columns, headers=None, name="Normalized"):
    headers = headers or [f"h{i}" for i in range(len(columns))]
    with SheetWriter(path, name, headers) as writer:
        writer.write_columns(columns)
    return writer


def column_of(path, column=0):
    """The values below the header, by our reader, gaps as None."""
    rows = dict(read_rows(path))
    last = max(rows)
    return [(rows.get(i, []) + [None] * 50)[column] for i in range(2, last + 1)]


def round_trip(tmp_path, values):
    """The values as our reader gives them back; a second column keeps rows of None alive."""
    write(tmp_path / "o.xlsx", [list(values), [1] * len(values)])
    return column_of(tmp_path / "o.xlsx")


TEXTS = [
    "plain", "=1+1", "+1", "-1", "@x", "0012", "1e5", "TRUE", "2024-01-01", "#N/A", "'quoted", " leading", "trailing ",
    "\tin\ttabs\t", "two\nlines", "return\r\nand feed", "lone\rreturn", "a & b < c > d \"q\" 'a'", "]]>", "<![CDATA[x]]>",
    "_x0041_", "_x005F_", "__x0041__", "_x00", "_xZZZZ_", "x_x000D_y", "nul\x00", "\x01\x1f\x7f\x85", "\ufffe\uffff",
    "ä☃𝔘", "\u2028", "|", "||", "a| b", "\xa0", "&amp;", "\u200b",
]  # fmt: skip


def test_every_text_comes_back_as_the_same_text(tmp_path):
    assert round_trip(tmp_path, TEXTS) == TEXTS
    for i, text in enumerate(TEXTS):  # alone, a column is written by the path for uniform columns
        assert round_trip(tmp_path, [text]) == [text], i


def test_text_is_never_a_formula_or_a_number_for_other_readers(tmp_path):
    texts = ["=1+1", "0012", "1e5", "TRUE", "#N/A", " padded "]
    write(tmp_path / "o.xlsx", [texts])
    sheet = openpyxl.load_workbook(tmp_path / "o.xlsx").active
    cells = [sheet.cell(i + 2, 1) for i in range(len(texts))]
    assert [(cell.value, cell.data_type) for cell in cells] == [(text, "s") for text in texts]
    calamine = python_calamine.CalamineWorkbook.from_path(tmp_path / "o.xlsx").get_sheet_by_index(0)
    assert [row[0] for row in calamine.to_python()][1:] == texts


def test_a_lone_surrogate_becomes_the_replacement_character(tmp_path):
    assert round_trip(tmp_path, ["a\ud800b", "\udfff"]) == ["a\ufffdb", "\ufffd"]


def test_empty_text_is_an_empty_cell(tmp_path):
    assert round_trip(tmp_path, ["", "x", None, ""]) == [None, "x", None, None]


NUMBERS = [0, 1, -1, 10**15 - 1, -(10**15) + 1, 0.1, 1 / 3, 1e-300, 1.7976931348623157e308, 5e-324, -2.5, 1e22, 12345.678]


def test_numbers_keep_every_bit(tmp_path):
    assert round_trip(tmp_path, NUMBERS) == NUMBERS
    for number in NUMBERS:
        assert round_trip(tmp_path, [number]) == [number]


def test_integers_beyond_15_digits_are_text_so_that_no_digit_is_lost(tmp_path):
    big = [10**15, -(10**15), 2**63, 10**400]
    assert round_trip(tmp_path, big) == [str(n) for n in big]
    assert round_trip(tmp_path, [*big, 1.5]) == [*(str(n) for n in big), 1.5]
    assert round_trip(tmp_path, [10**5000]) == [hex(10**5000)]


def test_nan_is_empty_and_infinity_is_text(tmp_path):
    assert round_trip(tmp_path, [math.nan, math.inf, -math.inf, 1.0]) == [None, "Infinity", "-Infinity", 1]
    assert round_trip(tmp_path, [1e308, 1e308]) == [1e308, 1e308]  # finite values with an infinite sum


def test_booleans_stay_booleans(tmp_path):
    back = round_trip(tmp_path, [True, False, 1, 0])
    assert list(map(type, back)) == [bool, bool, int, int]


def test_dates_and_times_come_back_with_their_types(tmp_path):
    values = [
        date(1900, 1, 1), date(1900, 2, 28), date(1900, 3, 1), date(2024, 2, 29), date(9999, 12, 31),
        datetime.datetime(2024, 2, 29, 12, 30, 15), datetime.datetime(1999, 12, 31, 23, 59, 59, 999_000),
        time(0, 0), time(13, 14, 15), time(23, 59, 59, 999_000), timedelta(hours=30, minutes=5), timedelta(days=-1, seconds=1),
        datetime.datetime(1900, 1, 1, 0, 0, 1), timedelta(0),
    ]  # fmt: skip
    back = round_trip(tmp_path, values)
    assert back == values
    assert list(map(type, back)) == list(map(type, values))


def test_midnight_of_a_datetime_is_a_datetime_of_midnight(tmp_path):
    values = [datetime.datetime(2024, 1, 1)]
    back = round_trip(tmp_path, values)
    assert back == values and type(back[0]) is datetime.datetime


def test_dates_are_the_same_for_other_readers(tmp_path):
    values = [date(1900, 2, 28), date(1900, 3, 1), date(2024, 2, 29)]
    write(tmp_path / "o.xlsx", [values, [time(1, 2, 3)] * 3, [timedelta(hours=30)] * 3])
    sheet = openpyxl.load_workbook(tmp_path / "o.xlsx").active
    assert [sheet.cell(i + 2, 1).value.date() for i in range(3)] == values
    assert sheet["B2"].value == time(1, 2, 3)
    assert sheet["C2"].value == timedelta(hours=30)
    calamine = python_calamine.CalamineWorkbook.from_path(tmp_path / "o.xlsx").get_sheet_by_index(0).to_python()
    assert [row[0] for row in calamine[2:]] == values[1:]


def test_dates_a_workbook_cannot_hold_are_iso_text(tmp_path):
    zone = datetime.timezone.utc
    values = [date(1899, 12, 31), datetime.datetime(1, 1, 1), datetime.datetime(2024, 1, 1, tzinfo=zone), time(1, tzinfo=zone)]
    assert round_trip(tmp_path, values) == [value.isoformat() for value in values]


class Text(str):
    pass


class Number(int):
    pass


class Scalar:
    """Behaves like a numpy scalar."""

    def __init__(self, value):
        self.value = value

    def item(self):
        return self.value


class Missing:
    def __ne__(self, other):
        return True

    def __str__(self):
        raise AssertionError("a missing value has no text")


class Hostile:
    def __str__(self):
        raise RuntimeError("no text for you")


def test_foreign_types_become_the_value_they_stand_for(tmp_path):
    values = [
        Text("=x"), Number(5), Scalar(7), Scalar("t"), Missing(), decimal.Decimal("12.50"), decimal.Decimal("1E3"),
        decimal.Decimal("1.2345678901234567890"), decimal.Decimal("NaN"), Fraction(1, 2), b"x", [1],
    ]  # fmt: skip
    expected = ["=x", 5, 7, "t", None, 12.5, 1000, "1.2345678901234567890", None, "1/2", "b'x'", "[1]"]
    assert round_trip(tmp_path, values) == expected


def test_an_object_without_text_is_the_scripts_error(tmp_path):
    with pytest.raises(JobError) as caught:
        write(tmp_path / "o.xlsx", [[Hostile()]])
    assert caught.value.kind == "script_error" and "Hostile" in caught.value.message
    assert "no text for you" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_texts_past_the_limit_of_excel_are_cut_and_counted(tmp_path):
    wide = "𝔘" * MAX_TEXT  # two code units each
    writer = write(tmp_path / "o.xlsx", [["x" * MAX_TEXT, "x" * (MAX_TEXT + 1), wide, "y"]])
    assert writer.truncated_cells == 2
    back = column_of(tmp_path / "o.xlsx")
    assert back == ["x" * MAX_TEXT, "x" * MAX_TEXT, "𝔘" * (MAX_TEXT // 2), "y"]


def test_the_sheet_is_limited_like_excels(tmp_path):
    with pytest.raises(JobError) as caught:
        SheetWriter(tmp_path / "o.xlsx", "S", ["h"] * 16_385)
    assert caught.value.kind == "output_too_large"
    with SheetWriter(tmp_path / "o.xlsx", "S", ["h"]) as writer:
        writer.write_columns([[None] * 1_048_575])
        with pytest.raises(JobError) as caught:
            writer.write_columns([[1]])
    assert caught.value.kind == "output_too_large" and "1,048,575" in caught.value.message
    assert writer.rows_written == 1_048_575


def test_the_header_is_bold_and_frozen_and_the_sheet_is_named(tmp_path):
    write(tmp_path / "o.xlsx", [[1], [2]], ["First & <last>", "B"], name='A&B "x"')
    sheet = openpyxl.load_workbook(tmp_path / "o.xlsx").active
    assert (sheet.title, sheet["A1"].value, sheet["A1"].font.b, sheet["A2"].font.b) == ('A&B "x"', "First & <last>", True, False)
    assert sheet.freeze_panes == "A2"


@pytest.mark.parametrize("name", ["", "x" * 32, "a/b", "a[b", "'a", "a'", "a\x00"])
def test_a_sheet_name_excel_would_refuse_is_refused(tmp_path, name):
    with pytest.raises(ValueError):
        SheetWriter(tmp_path / "o.xlsx", name, ["h"])
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_give_the_same_bytes_however_they_arrive(tmp_path):
    columns = [list(range(1000)), [f"t{i}" for i in range(1000)]]
    write(tmp_path / "a.xlsx", columns)
    with SheetWriter(tmp_path / "b.xlsx", "Normalized", ["h0", "h1"]) as writer:
        for start in range(0, 1000, 7):
            writer.write_columns([column[start : start + 7] for column in columns])
    write(tmp_path / "c.xlsx", columns)
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "c.xlsx").read_bytes()
    unpacked = [zipfile.ZipFile(tmp_path / f).read("xl/worksheets/sheet1.xml") for f in ("a.xlsx", "b.xlsx")]
    assert unpacked[0] == unpacked[1]
    assert {entry.date_time for entry in zipfile.ZipFile(tmp_path / "a.xlsx").infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_file_appears_only_when_it_is_complete(tmp_path):
    path = tmp_path / "o.xlsx"
    with SheetWriter(path, "S", ["h"]) as writer:
        writer.write_columns([[1]])
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["o.xlsx"]
    writer.close()
    with pytest.raises(KeyError), SheetWriter(tmp_path / "p.xlsx", "S", ["h"]):
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["o.xlsx"]


def test_wrong_shapes_are_refused(tmp_path):
    with SheetWriter(tmp_path / "o.xlsx", "S", ["a", "b"]) as writer:
        with pytest.raises(ValueError):
            writer.write_columns([[1]])
        with pytest.raises(ValueError):
            writer.write_columns([[1], [1, 2]])


def test_a_sheet_without_columns_is_a_workbook(tmp_path):
    write(tmp_path / "o.xlsx", [])
    assert openpyxl.load_workbook(tmp_path / "o.xlsx").active.max_row == 1


def test_random_tables_survive_a_round_trip(tmp_path):
    rng = random.Random(20260101)
    alphabet = "ab_x0041&<> \t\n\r\x00\x1fä☃𝔘|;\ufffe"

    def text():
        return "".join(rng.choice(alphabet) for _ in range(rng.randrange(12))) or None

    def moment():
        return datetime.datetime(1900, 3, 1) + timedelta(milliseconds=rng.randrange(255_000_000_000_000))

    makers = [
        lambda: None,
        text,
        lambda: rng.randrange(-(10**15) + 1, 10**15),
        lambda: struct.unpack("<d", rng.randbytes(8))[0],
        lambda: rng.random() < 0.5,
        moment,
        lambda: moment().date(),
        lambda: moment().time(),
        lambda: timedelta(milliseconds=rng.randrange(-(10**12), 10**12)),
    ]
    for round_ in range(30):
        width, height = rng.randrange(1, 12), rng.randrange(1, 80)
        mixed = rng.random() < 0.5
        columns = []
        for _ in range(width):
            maker = rng.choice(makers)
            columns.append([(rng.choice(makers) if mixed else maker)() for _ in range(height)])
        columns = [[None if v != v or v in (math.inf, -math.inf) else v for v in column] for column in columns]
        path = tmp_path / f"{round_}.xlsx"
        write(path, columns)
        back = dict(read_rows(path))
        for i, row in enumerate(zip(*columns, strict=True), 2):
            got = back.get(i, []) + [None] * width
            assert got[:width] == list(row), (round_, i)


def test_a_part_past_4_gib_is_marked_zip64_and_a_smaller_one_is_not(tmp_path):
    path = tmp_path / "z.zip"
    with path.open("w+b") as file:
        archive = ZipWriter(file, 1)
        archive.add("small.xml", b"small")
        write_piece, finish = archive.stream("large.xml")
        piece = bytes(64 * 1024 * 1024)
        for _ in range(65):
            write_piece(piece)
        finish()
        archive.close()
    with zipfile.ZipFile(path) as opened:
        small, large = opened.infolist()
        assert (small.extract_version, large.extract_version) == (20, 45)
        assert (small.file_size, large.file_size) == (5, 65 * len(piece))
        assert opened.read("small.xml") == b"small"
        with opened.open("large.xml") as stream:
            assert stream.read(10) == bytes(10)


def test_sheet_xml_refers_to_every_cell(tmp_path):
    write(tmp_path / "o.xlsx", [[1, None], ["a", "b"]])
    xml = zipfile.ZipFile(tmp_path / "o.xlsx").read("xl/worksheets/sheet1.xml").decode()
    assert re.findall(r'<c r="(\w+)"', xml) == ["A1", "B1", "A2", "B2", "B3"]
