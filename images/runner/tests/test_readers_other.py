import codecs
import datetime
import struct
from pathlib import Path

import openpyxl
import pytest
from io_support import (
    MAIN, SHEET_MAIN, binary_cell, build_zip, compound_file, ods_parts, read_rows, read_sheet, record, refusal, wide_string,
    worksheet, xlsb, xlsx_parts,
)  # fmt: skip

from ade_runner.readers import ReadLimits, open_book

DATA = Path(__file__).parent / "data"
MOMENT = datetime.datetime(2024, 2, 29, 12, 30, 15)


# Formats by content


def test_the_format_is_told_by_content_never_by_name(tmp_path):
    openpyxl.Workbook().save(tmp_path / "a.csv")
    (tmp_path / "b.xlsx").write_text("a,b\n1,2\n")
    (tmp_path / "c.csv").write_bytes((DATA / "sample.xls").read_bytes())
    (tmp_path / "d.xls").write_bytes((DATA / "sample.ods").read_bytes())
    names = ("a.csv", "b.xlsx", "c.csv", "d.xls")
    assert [open_book(tmp_path / n, n).format for n in names] == ["xlsx", "csv", "xls", "ods"]


def test_macros_make_an_xlsm(tmp_path):
    parts = xlsx_parts(worksheet(""))
    parts["[Content_Types].xml"] = str(parts["[Content_Types].xml"]).replace(
        SHEET_MAIN, "application/vnd.ms-excel.sheet.macroEnabled.main+xml"
    )
    assert open_book(build_zip(tmp_path / "a.xlsx", parts), "a").format == "xlsm"


@pytest.mark.parametrize(
    "content, what",
    [
        (b"%PDF-1.7\n...", "PDF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"<!DOCTYPE html>\n<table><tr><td>1", "HTML"),
        (b"\xef\xbb\xbf  <html xmlns:x='urn:schemas-microsoft-com:office:excel'>", "HTML"),
        (b'<?xml version="1.0"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">', "2003"),
        (b'<?xml version="1.0"?><other/>', "XML"),
        (b"\x7fELF\x02\x01\x01", "program"),
        (bytes(range(1, 32)) * 50, "binary"),
    ],
)
def test_what_is_no_workbook_is_refused_with_what_it_looks_like(tmp_path, content, what):
    (tmp_path / "a.xls").write_bytes(content)
    error = refusal(tmp_path / "a.xls")
    assert error.kind == "input_not_workbook" and what in error.message and "a.xls" in error.message


def test_archives_and_documents_of_other_kinds_are_refused(tmp_path):
    for parts, what in (
        ({"a.txt": "x"}, "zip archive"),
        ({"word/document.xml": "<x/>"}, "Word"),
        ({"manifest.json": "{}"}, "config package"),
        ({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}, "not a spreadsheet"),
    ):
        error = refusal(build_zip(tmp_path / "a.xlsx", parts))
        assert error.kind == "input_not_workbook" and what in error.message
    error = refusal(compound_file(tmp_path / "a.xls", {"WordDocument": b"x"}))
    assert error.kind == "input_not_workbook" and "Word" in error.message


def test_an_empty_file_is_empty(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"")
    assert refusal(tmp_path / "a.xlsx").kind == "input_empty"


def test_a_workbook_without_worksheets_says_so(tmp_path):
    parts = xlsx_parts(worksheet(""))
    parts["xl/workbook.xml"] = f'<workbook xmlns="{MAIN}"><sheets/></workbook>'
    assert refusal(build_zip(tmp_path / "a.xlsx", parts)).kind == "input_no_sheets"


def test_passwords_are_recognized_in_every_format(tmp_path):
    compound_file(tmp_path / "a.xlsx", {"EncryptedPackage": b"x" * 100, "EncryptionInfo": b"y"})
    begin = struct.pack("<HHHHHHLL", 0x0809, 16, 0x0600, 5, 0, 0, 0, 0)
    locked = begin + struct.pack("<HHH", 0x002F, 54, 1) + struct.pack("<HH", 1, 1) + bytes(48)
    compound_file(tmp_path / "a.xls", {"Workbook": locked})
    manifest = '<manifest:file-entry><manifest:encryption-data/></manifest:file-entry>'
    build_zip(tmp_path / "a.ods", ods_parts("", manifest))
    for name in ("a.xlsx", "a.xls", "a.ods"):
        error = refusal(tmp_path / name)
        assert (error.kind, "password" in error.message) == ("input_encrypted", True), name


def test_a_name_made_to_break_messages_does_not(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(Exception) as caught:
        open_book(tmp_path / "a", "evil\n\x1b[31m" + "x" * 5000)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


# xls, ods and xlsb


@pytest.mark.parametrize("name", ["sample.xls", "sample.ods"])
def test_converted_workbooks_have_the_values_of_the_original(name):
    opened, rows = read_sheet(DATA / name)
    assert [(s.name, s.visibility) for s in opened.sheets] == [("Data", "visible"), ("Hidden", "hidden"), ("Empty", "visible")]
    assert rows == [
        (2, [None, "Name", "When", "Num", "Flag", "Err", "Dur", "Time"]),
        (3, [None, "Ünï ☃", datetime.date(2024, 2, 29), 12, True, None, datetime.timedelta(hours=30, minutes=5), datetime.time(13, 14, 15)]),
        (5, [None, " padded ", MOMENT, 1.5, False]),
        (6, [None, "x"]),
        (7, [None, "merged"]),
    ]
    assert type(rows[1][1][3]) is int
    assert opened.merged(1) == ([(7, 2, 8, 4)] if name == "sample.xls" else [])
    assert list(opened.rows(2)) == [(1, ["h"])]
    assert list(opened.rows(3)) == []
    opened.close()


def test_an_xlsb_is_read_with_errors_and_merges(tmp_path):
    path = xlsb(
        tmp_path / "a.xlsb",
        [
            (1, [binary_cell(6, 1, wide_string("ä☃")), binary_cell(5, 2, struct.pack("<d", 1.5))]),
            (
                3,
                [
                    binary_cell(5, 0, struct.pack("<d", 45351), 1),
                    binary_cell(4, 1, b"\x01"),
                    binary_cell(3, 2, b"\x07"),
                    binary_cell(5, 3, struct.pack("<d", 7)),
                ],
            ),
        ],
        record(176, struct.pack("<4L", 4, 5, 0, 2)),
    )
    opened, rows = read_sheet(path)
    assert opened.format == "xlsb"
    assert rows == [(2, [None, "ä☃", 1.5]), (4, [datetime.date(2024, 2, 29), True, None, 7])]
    assert opened.error_cells(1) == {"#DIV/0!": 1}
    assert opened.merged(1) == [(5, 1, 6, 3)]
    opened.close()


def test_two_cells_at_the_far_corners_are_refused_before_they_are_loaded(tmp_path):
    one = struct.pack("<d", 1)
    xlsb(tmp_path / "a.xlsb", [(0, [binary_cell(5, 0, one)]), (1_048_575, [binary_cell(5, 16_383, one)])])
    cell = '<table:table-cell office:value-type="float" office:value="1"/>'
    empty = '<table:table-cell table:number-columns-repeated="16382"/>'
    far = '<table:table-row table:number-rows-repeated="1048574"><table:table-cell/></table:table-row>'
    table = f"<table:table-row>{cell}</table:table-row>{far}<table:table-row><table:table-cell/>{empty}{cell}</table:table-row>"
    build_zip(tmp_path / "a.ods", ods_parts(table))
    repeated = cell.replace("cell ", 'cell table:number-columns-repeated="16384" ')
    build_zip(
        tmp_path / "b.ods", ods_parts(f'<table:table-row table:number-rows-repeated="1048576">{repeated}</table:table-row>')
    )
    for name in ("a.xlsb", "a.ods", "b.ods"):
        error = refusal(tmp_path / name)
        assert (error.kind, "17,179,869,184" in error.message) == ("input_too_wide", True), name


def test_a_few_bytes_of_ods_cannot_stand_for_gigabytes_of_text(tmp_path):
    cell = '<table:table-cell %soffice:value-type="string"><text:p>%s</text:p></table:table-cell>'
    spaces = cell % ("", '<text:s text:c="2000000000"/>')
    build_zip(tmp_path / "a.ods", ods_parts(f"<table:table-row>{spaces}</table:table-row>"))
    assert refusal(tmp_path / "a.ods").kind == "input_cell_too_large"
    many = cell % ('table:number-columns-repeated="16000" ', "x" * 100_000)
    build_zip(tmp_path / "b.ods", ods_parts(f"<table:table-row>{many}</table:table-row>"))
    assert refusal(tmp_path / "b.ods").kind == "input_zip_bomb"


def test_damaged_binary_workbooks_are_corrupt(tmp_path):
    for name in ("sample.xls", "sample.ods"):
        content = (DATA / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        assert refusal(tmp_path / name).kind == "input_corrupt"
    compound_file(tmp_path / "a.xls", {"Workbook": b"\xff" * 4096})
    assert refusal(tmp_path / "a.xls").kind in ("input_corrupt", "input_no_sheets")
    xlsb(tmp_path / "a.xlsb", [(0, [record(5, b"\0")])])
    assert refusal(tmp_path / "a.xlsb").kind == "input_corrupt"


# csv and tsv


def csv_book(tmp_path, content, name="a.csv"):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_sheet(tmp_path / name)


@pytest.mark.parametrize(
    "encoding, codec, mark",
    [
        ("utf-8", "utf-8", b""),
        ("utf-8-sig", "utf-8", codecs.BOM_UTF8),
        ("utf-16", "utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16", "utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32", "utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32", "utf-32-be", codecs.BOM_UTF32_BE),
        ("cp1252", "cp1252", b""),
    ],
)
def test_encodings_are_found_and_recorded(tmp_path, encoding, codec, mark):
    book, rows = csv_book(tmp_path, mark + "Größe;Preis\n1;2 €\n".encode(codec))
    assert (book.encoding, book.delimiter, book.format) == (encoding, ";", "csv")
    assert rows == [(1, ["Größe", "Preis"]), (2, ["1", "2 €"])]


def test_a_late_byte_that_is_not_utf8_decides_for_the_whole_file(tmp_path):
    content = b"a,b\n" + b"x,y\n" * 100_000 + "ü,z\n".encode("cp1252")
    book, rows = csv_book(tmp_path, content)
    assert book.encoding == "cp1252" and rows[-1] == (100_002, ["ü", "z"])
    book, rows = csv_book(tmp_path, "ü,b\n".encode() + b"x,y\n" * 300_000)
    assert book.encoding == "utf-8" and rows[0] == (1, ["ü", "b"])


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,\x00\n", "a,b\n1,2\n".encode("utf-16-le"), b"a,\x81\n", codecs.BOM_UTF8 + b"a,\xff\n",
        codecs.BOM_UTF16_LE + b"a\x00\x00\xd8", codecs.BOM_UTF16_LE + "a\x00".encode("utf-16-le"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_text_are_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    error = refusal(tmp_path / "a.csv")
    assert error.kind == "input_bad_encoding" and "UTF-8" in error.message


@pytest.mark.parametrize(
    "text, delimiter, first",
    [
        ("a,b,c\n1,2,3\n", ",", ["a", "b", "c"]),
        ("a;b;c\n1,5;2,5;3\n", ";", ["a", "b", "c"]),
        ("1,5;2,5\n3,5;4,5\n", ";", ["1,5", "2,5"]),
        ("a\tb\n1,0\t2\n", "\t", ["a", "b"]),
        ("a|b\n1|2\n", "|", ["a", "b"]),
        ("name,note\nx,hello; world\ny,a;b;c\n", ",", ["name", "note"]),
        ('"a;b","c;d"\n"1;2","3;4"\n', ",", ["a;b", "c;d"]),
        ("Report\n\na;b;c\n1;2;3\n4;5;6\n", ";", ["Report"]),
        ("one column\nonly\n", ",", ["one column"]),
        ("sep=;\na;b\n", ";", ["a", "b"]),
        ('"sep=|"\r\na,x|b\r\n', "|", ["a,x", "b"]),
        ("sep=\t\na,b\tc\n", "\t", ["a,b", "c"]),
    ],
)
def test_the_delimiter_is_found(tmp_path, text, delimiter, first):
    book, rows = csv_book(tmp_path, text)
    assert book.delimiter == delimiter and rows[0] == (1, first)
    assert book.format == ("tsv" if delimiter == "\t" else "csv")


def test_sep_is_understood_after_a_byte_order_mark(tmp_path):
    assert csv_book(tmp_path, codecs.BOM_UTF8 + b"sep=;\na,b;c\n")[1] == [(1, ["a,b", "c"])]


def test_cells_are_text_and_nothing_is_guessed(tmp_path):
    text = "a,b,c,d\n0012,1e5, TRUE ,2024-01-01\n,,,\n\n=1+1,,x,\n"
    assert csv_book(tmp_path, text)[1] == [
        (1, ["a", "b", "c", "d"]),
        (2, ["0012", "1e5", " TRUE ", "2024-01-01"]),
        (5, ["=1+1", None, "x"]),
    ]


def test_quotes_hold_delimiters_quotes_and_line_ends(tmp_path):
    text = 'a,b\n"x,y","say ""hi"""\n"two\nlines","cr\r\nlf"\nragged\n1,2,3,4\n'
    assert csv_book(tmp_path, text)[1] == [
        (1, ["a", "b"]),
        (2, ["x,y", 'say "hi"']),
        (3, ["two\nlines", "cr\r\nlf"]),
        (4, ["ragged"]),
        (5, ["1", "2", "3", "4"]),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_ends_a_row_and_the_last_may_be_missing(tmp_path, end):
    assert csv_book(tmp_path, f"a,b{end}1,2{end}3,4")[1] == [(1, ["a", "b"]), (2, ["1", "2"]), (3, ["3", "4"])]


def test_other_separators_of_unicode_are_text(tmp_path):
    assert csv_book(tmp_path, "a,b\nx\u2028y\x0bz,\x851\n")[1] == [(1, ["a", "b"]), (2, ["x\u2028y\x0bz", "\x851"])]


def test_a_quote_that_never_closes_is_refused_not_swallowed(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n1,"open\n' + "x,y\n" * 600_000)
    error = refusal(tmp_path / "a.csv")
    assert error.kind == "input_cell_too_large" and "quotation" in error.message


def test_a_line_without_end_is_refused_while_it_streams(tmp_path):
    with (tmp_path / "a.csv").open("w") as file:
        for _ in range(40):
            file.write("a," * 250_000)
    assert refusal(tmp_path / "a.csv").kind in ("input_cell_too_large", "input_too_wide")
    (tmp_path / "a.csv").write_text("a" * 2_000_000)
    assert refusal(tmp_path / "a.csv").kind == "input_cell_too_large"


def test_rows_wider_than_a_worksheet_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "x," * 16_384 + "x\n")
    error = refusal(tmp_path / "a.csv")
    assert error.kind == "input_too_wide" and "16,385" in error.message
    (tmp_path / "a.csv").write_text("a,b\n" + "x," * 16_383 + "x" + "," * 100_000 + "\n")
    assert len(read_rows(tmp_path / "a.csv")[1][1]) == 16_384


def test_the_sheet_is_named_after_the_file(tmp_path):
    assert csv_book(tmp_path, "a\n", "Q1 report.csv")[0].sheets[0].name == "Q1 report"


def test_limits_can_be_set(tmp_path):
    (tmp_path / "a.csv").write_text("a," + "x" * 200 + "\n")
    assert refusal(tmp_path / "a.csv", ReadLimits(max_cell=100)).kind == "input_cell_too_large"
