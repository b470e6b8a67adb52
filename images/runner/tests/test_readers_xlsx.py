import datetime
import random
import struct
import zipfile
import zlib
from datetime import date, time, timedelta

import openpyxl
import pytest
import xlsxwriter
from io_support import (
    MAIN, OFFICE, PACKAGE_RELS, build_zip, read_rows, read_sheet, refusal, styles, worksheet, xlsx_parts,
)  # fmt: skip

from ade_runner.readers import ReadLimits, open_book
from ade_runner.readers.number_formats import Shows, classify


def sheet_of(tmp_path, rows, after="", **options):
    return build_zip(tmp_path / "in.xlsx", xlsx_parts(worksheet(rows, after), **options))


def values_of(tmp_path, rows, **options):
    return read_rows(sheet_of(tmp_path, rows, **options))


def through_the_parser(rows: str) -> str:
    """The same rows in a spelling that is not recognized, so that every event goes through the XML parser."""
    return rows.replace("<row r=", "<row  r=")


BOTH = pytest.mark.parametrize("spell", [str, through_the_parser], ids=["recognized", "parsed"])


# What programs write


def test_a_workbook_of_openpyxl_is_read_with_all_its_types(tmp_path):
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Data"
    sheet["B2"], sheet["C2"], sheet["E2"] = " text ", 5, 1.5
    sheet["B4"], sheet["C4"], sheet["D4"] = date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3), time(4, 5, 6)
    sheet["E4"], sheet["F4"], sheet["G4"] = timedelta(hours=30), True, "#DIV/0!"
    sheet.merge_cells("B6:D7")
    book.create_sheet("H").sheet_state = "hidden"
    book.create_sheet("V").sheet_state = "veryHidden"
    book.create_chartsheet("Chart")
    book.save(tmp_path / "a.xlsx")
    opened, rows = read_sheet(tmp_path / "a.xlsx")
    assert (opened.format, opened.encoding, opened.delimiter) == ("xlsx", None, None)
    assert [(s.index, s.name, s.visibility) for s in opened.sheets] == [
        (1, "Data", "visible"), (2, "H", "hidden"), (3, "V", "very_hidden"),
    ]  # fmt: skip
    assert rows == [
        (2, [None, " text ", 5, None, 1.5]),
        (4, [None, date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3), time(4, 5, 6), timedelta(hours=30), True, "#DIV/0!"]),
    ]
    assert type(rows[1][1][1]) is date
    assert opened.merged(1) == [(6, 2, 7, 4)]
    assert opened.error_cells(1) == {"#DIV/0!": 1}
    assert list(opened.rows(2)) == []
    assert list(opened.rows(1)) == rows  # a sheet can be read again


@pytest.mark.parametrize("in_memory", [True, False])
def test_shared_and_inline_strings_read_the_same(tmp_path, in_memory):
    book = xlsxwriter.Workbook(tmp_path / "a.xlsx", {"constant_memory": not in_memory})
    sheet = book.add_worksheet()
    bold = book.add_format({"bold": True})
    sheet.write_string(0, 0, "a & b <c>")
    sheet.write_string(0, 1, " _x0041_ \x01\n")
    sheet.write_rich_string(1, 0, "plain ", bold, "bold ", "plain again")
    sheet.write_formula(1, 1, '="x"&"y"', None, "xy")
    sheet.write_formula(1, 2, "=1/0", None, "#DIV/0!")
    sheet.write_boolean(1, 3, False)
    sheet.write_blank(1, 4, None, bold)
    book.close()
    opened, rows = read_sheet(tmp_path / "a.xlsx")
    assert rows == [(1, ["a & b <c>", " _x0041_ \x01\n"]), (2, ["plain bold plain again", "xy", "#DIV/0!", False])]
    assert opened.error_cells(1) == {"#DIV/0!": 1}


def test_many_rows_stream_in_order_and_alike_on_both_ways(tmp_path):
    rng = random.Random(3)
    rows, expected = [], []
    for number in range(1, 12_000):
        cells, values = [], []
        for column, letters in enumerate(("A", "B", "C", "AA")):
            kind = rng.randrange(5)
            ref = f'r="{letters}{number}"'
            if kind == 0:
                continue
            values += [None] * ((26 if letters == "AA" else column) - len(values))
            if kind == 1:
                value = rng.randrange(10**9)
                cells.append(f"<c {ref}><v>{value}</v></c>")
            elif kind == 2:
                value = rng.random()
                cells.append(f'<c {ref} s="0"><f>A1&amp;"x"</f><v>{value!r}</v></c>')
            elif kind == 3:
                value = f"t{rng.randrange(99)}<ä"
                cells.append(f'<c {ref} t="inlineStr"><is><t>{value.replace("<", "&lt;")}</t></is></c>')
            else:
                value = date(2020, 1, 1) + timedelta(rng.randrange(2000))
                cells.append(f'<c {ref} s="1"><v>{(value - date(1899, 12, 30)).days}</v></c>')
            values.append(value)
        if values:
            expected.append((number, values))
        rows.append(f'<row r="{number}">{"".join(cells)}</row>')
    text = "".join(rows)
    sheet = styles("General", "yyyy-mm-dd")
    assert values_of(tmp_path, text, style_sheet=sheet) == expected
    assert values_of(tmp_path, through_the_parser(text), style_sheet=sheet) == expected
    # One unusual row among usual ones, and a mark inside of a comment that looks like the end of a row.
    mixed = text.replace('<row r="500"', '<!-- </row><row r="7"><c r="A7"><v>1</v></c></row> --><row r="500"')
    assert values_of(tmp_path, mixed, style_sheet=sheet) == expected
    mixed = text.replace('<row r="500"', '<row  r="500"')
    assert values_of(tmp_path, mixed, style_sheet=sheet) == expected


# Dialects of the format


def test_prefixes_strict_namespaces_odd_part_names_and_targets_are_understood(tmp_path):
    strict = "http://purl.oclc.org/ooxml/spreadsheetml/main"
    rels = "http://purl.oclc.org/ooxml/officeDocument/relationships"
    parts = {
        "[Content_Types].xml": "<Types/>",
        "_RELS/.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
        f'<Relationship Id="a" Type="{rels}/officeDocument" Target="/content/Book.xml"/></Relationships>',
        "content/book.xml": f'<y:workbook xmlns:y="{strict}" xmlns:q="{rels}"><y:sheets>'
        '<y:sheet name="S" sheetId="9" q:id="z"/></y:sheets></y:workbook>',
        "content/_rels/Book.xml.rels": f'<Relationships xmlns="{PACKAGE_RELS}">'
        f'<Relationship Target="../other%20place/one.data" Type="{rels}/worksheet" Id="z"/></Relationships>',
        "other place/one.data": f'<x:worksheet xmlns:x="{strict}">\n <x:sheetData>\n  <x:row>\n'
        "   <x:c>\n    <x:v>1</x:v>\n   </x:c><x:c t='inlineStr'><x:is><x:t> a </x:t></x:is></x:c>\n  </x:row>\n"
        " <x:row r='5'><x:c t='b' r='C5'><x:v>1</x:v></x:c></x:row></x:sheetData></x:worksheet>",
    }
    assert read_rows(build_zip(tmp_path / "a.bin", parts)) == [(1, [1, " a "]), (5, [None, None, True])]


def test_utf16_parts_are_read(tmp_path):
    xml = worksheet('<row r="1"><c r="A1" t="inlineStr"><is><t>ä☃</t></is></c></row>').replace("UTF-8", "UTF-16")
    assert read_rows(build_zip(tmp_path / "a.xlsx", xlsx_parts(xml.encode("utf-16")))) == [(1, ["ä☃"])]


def test_rich_text_is_joined_and_phonetic_runs_are_left_out(tmp_path):
    rich = "<r><t>東</t></r><r><rPr><b/></rPr><t>京</t></r><rPh sb=\"0\" eb=\"2\"><t>トウキョウ</t></rPh>"
    strings = f'<sst xmlns="{MAIN}">\n<si>{rich}</si>\n<si><t/></si><si><t xml:space="preserve"> s </t></si></sst>'
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s"><v>2</v></c>'
        f'<c r="D1" t="inlineStr"><is>{rich}</is></c></row>'
    )
    assert values_of(tmp_path, rows, strings=strings) == [(1, ["東京", None, " s ", "東京"])]


@BOTH
def test_escaped_characters_are_decoded_once(tmp_path, spell):
    rows = (
        '<row r="1"><c r="A1" t="inlineStr"><is><t>_x000D_|_x005F_x0041_|_xD83D__xDE00_|_xD800_|_x41_</t></is></c>'
        '<c r="B1" t="str"><v>_x0009_&amp;#x41;&#x41;&#66;&lt;</v></c></row>'
    )
    assert values_of(tmp_path, spell(rows)) == [(1, ["\r|_x0041_|😀|\ufffd|_x41_", "\t&#x41;AB<"])]


@BOTH
def test_numbers_keep_their_kind_and_precision(tmp_path, spell):
    texts = ["7", "-7", "5.0", "1E3", "123456789012345678901234567890", "-123456789012345678", "0.1", "1e22", "1e-7", "-0", "1e999"]
    cells = "".join(f'<c r="{letter}1"><v>{text}</v></c>' for letter, text in zip("ABCDEFGHIJK", texts))
    opened, rows = read_sheet(sheet_of(tmp_path, spell(f'<row r="1">{cells}</row>')))
    expected = [7, -7, 5, 1000, 123456789012345678901234567890, -123456789012345678, 0.1, 1e22, 1e-7, 0, "#NUM!"]
    assert rows == [(1, expected)]
    assert [type(v) for v in rows[0][1]] == [type(v) for v in expected]
    assert opened.error_cells(1) == {"#NUM!": 1}


@BOTH
def test_only_known_error_texts_are_named_in_the_count(tmp_path, spell):
    rows = spell('<row r="1"><c r="A1" t="e"><v>#N/A</v></c><c r="B1" t="e"><v>secret</v></c><c r="C1" t="e"><v>#N/A</v></c></row>')
    opened, read = read_sheet(sheet_of(tmp_path, rows))
    assert read == [(1, ["#N/A", "secret", "#N/A"])]
    assert opened.error_cells(1) == {"#N/A": 2, "#OTHER!": 1}


@BOTH
def test_iso_dates_are_dates(tmp_path, spell):
    texts = ["2024-02-29", "2024-02-29T12:30:00", "2024-02-29T12:30:00Z", "12:30:00", "soon"]
    cells = "".join(f'<c r="{c}1" t="d"><v>{text}</v></c>' for c, text in zip("ABCDE", texts))
    moment = datetime.datetime(2024, 2, 29, 12, 30)
    assert values_of(tmp_path, spell(f'<row r="1">{cells}</row>')) == [
        (1, [date(2024, 2, 29), moment, moment, time(12, 30), "soon"])
    ]


@BOTH
def test_cells_may_come_without_references_out_of_order_and_far_apart(tmp_path, spell):
    rows = spell(
        '<row r="2"><c><v>1</v></c><c r="D2"><v>4</v></c><c><v>5</v></c><c r="B2"><v>2</v></c></row>'
        '<row r="3"><c r="A3"><v>1</v></c><c r="XFD3"><v>2</v></c><c r="B3"><v>3</v></c></row>'
    )
    read = values_of(tmp_path, rows)
    assert read[0] == (2, [1, 2, None, 4, 5])
    assert len(read[1][1]) == 16_384 and read[1][1][:3] == [1, 3, None] and read[1][1][-1] == 2


# Dates


@pytest.mark.parametrize(
    "code, shows",
    [
        ("General", None), ("0.00", None), ("#,##0 [$€-407]", None), ("0.00E+00", None), ("@", None), ('0 "days"', None),
        ("[Red]0", None), (r"0\d", None), ("[>100]0;0", None), ("yyyy-mm-dd", Shows.DATE), ("[$-409]d-mmm-yy;@", Shows.DATE),
        ("mmm", Shows.DATE), ("dddd", Shows.DATE), ('"Q"q yyyy', Shows.DATE), ("yyyy-mm-dd hh:mm", Shows.DATE_TIME),
        ("m/d/yy h:mm", Shows.DATE_TIME), ("hh:mm", Shows.TIME), ("mm:ss", Shows.TIME), ("h:mm AM/PM", Shows.TIME),
        ("mm:ss.000", Shows.TIME), ("[h]:mm", Shows.ELAPSED), ("[mm]:ss", Shows.ELAPSED), ("[ss]", Shows.ELAPSED),
        ("[$-411]ge.m.d", Shows.DATE), ('yyyy"年"m"月"', Shows.DATE), ("_-* #,##0_-", None), ("0;yyyy", None),
    ],
)  # fmt: skip
def test_number_formats_tell_dates_from_numbers(code, shows):
    assert classify(code) is shows


DATE_CELLS = [
    ("yyyy-mm-dd", "1", date(1900, 1, 1)),
    ("yyyy-mm-dd", "59", date(1900, 2, 28)),
    ("yyyy-mm-dd", "60", "1900-02-29"),
    ("yyyy-mm-dd", "61", date(1900, 3, 1)),
    ("yyyy-mm-dd", "45351", date(2024, 2, 29)),
    ("yyyy-mm-dd", "45351.5", datetime.datetime(2024, 2, 29, 12)),
    ("yyyy-mm-dd", "0", 0),
    ("yyyy-mm-dd", "-1", -1),
    ("yyyy-mm-dd", "2958465", date(9999, 12, 31)),
    ("yyyy-mm-dd", "2958466", 2958466),
    ("yyyy-mm-dd hh:mm", "45351", datetime.datetime(2024, 2, 29)),
    ("yyyy-mm-dd hh:mm", "45351.5210069444", datetime.datetime(2024, 2, 29, 12, 30, 15)),
    ("yyyy-mm-dd hh:mm", "45350.9999999999", datetime.datetime(2024, 2, 29)),
    ("yyyy-mm-dd hh:mm", "2958465.9999999999", 2958466),
    ("hh:mm:ss", "0.5", time(12)),
    ("hh:mm:ss", "0", time(0)),
    ("hh:mm:ss", "0.99999999999", time(23, 59, 59, 999_000)),
    ("hh:mm:ss", "1.5", datetime.datetime(1900, 1, 1, 12)),
    ("[h]:mm", "1.25", timedelta(hours=30)),
    ("[h]:mm", "-0.5", timedelta(hours=-12)),
    ("[h]:mm", "1e300", 1e300),
    (14, "45351", date(2024, 2, 29)),
    (22, "45351", datetime.datetime(2024, 2, 29)),
    (46, "1.25", timedelta(hours=30)),
    (2, "45351", 45351),
]


@BOTH
@pytest.mark.parametrize("code, text, expected", DATE_CELLS)
def test_serials_become_what_their_format_shows(tmp_path, code, text, expected, spell):
    rows = spell(f'<row r="1"><c r="A1" s="0"><v>{text}</v></c><c r="B1"><v>{text}</v></c></row>')
    read = values_of(tmp_path, rows, style_sheet=styles(code))
    assert read == [(1, [expected, expected])]  # a cell without a style has style 0
    assert type(read[0][1][0]) is type(expected)


@pytest.mark.parametrize(
    "code, text, expected",
    [
        ("yyyy-mm-dd", "0", date(1904, 1, 1)),
        ("yyyy-mm-dd", "59", date(1904, 2, 29)),
        ("yyyy-mm-dd hh:mm", "0.5", datetime.datetime(1904, 1, 1, 12)),
        ("hh:mm", "0.5", time(12)),
        ("yyyy-mm-dd", "43889", date(2024, 2, 29)),
        ("yyyy-mm-dd", "2957003", date(9999, 12, 31)),
        ("yyyy-mm-dd", "2957004", 2957004),
    ],
)
def test_the_1904_system_counts_from_another_day(tmp_path, code, text, expected):
    rows = f'<row r="1"><c r="A1"><v>{text}</v></c></row>'
    assert values_of(tmp_path, rows, style_sheet=styles(code), date1904=True) == [(1, [expected])]


# Damage and abuse


def kind_of(tmp_path, rows, after="", limits=ReadLimits(), **options):
    return refusal(sheet_of(tmp_path, rows, after, **options), limits).kind


@BOTH
@pytest.mark.parametrize(
    "rows",
    [
        '<row r="2"></row><row r="1"></row>',
        '<row r="2"></row><row r="2"></row>',
        '<row r="1048577"></row>',
        '<row r="0"></row>',
        '<row r="x"></row>',
        '<row r="1"><c r="XFE1"><v>1</v></c></row>',
        '<row r="1"><c r="A2"><v>1</v></c></row>',
        '<row r="1"><c r="1A"><v>1</v></c></row>',
        '<row r="1"><c r="A1" t="s"><v>0</v></c></row>',
        '<row r="1"><c r="A1" t="s"><v>-1</v></c></row>',
        '<row r="1"><c r="A1"><v>abc</v></c></row>',
        '<row r="1"><c r="A1"><v>1_0²</v></c></row>',
        f'<row r="1"><c r="A1"><v>{"9" * 5000}</v></c></row>',
        '<row r="1"><c r="A1" t="zz"><v>1</v></c></row>',
        '<row r="1"><c r="A1" t="date"><v>1</v></c></row>',
        '<row r="1"><c r="A1" t="str"><v>&nope;</v></c></row>',
        '<row r="1"><c r="A1" t="str"><v>&#0;</v></c></row>',
        '<row r="1"><c r="A1" t="str"><v>&#xD800;</v></c></row>',
        '<row r="1"><c r="A1" t="str"><v>\x01</v></c></row>',
        '<row r="1"><c r="A1" t="str"><v>]]></v></c></row>',
        '<row r="1"><c r="A1"><v>1</c></row>',
        '<row r="1"><row r="2"></row></row>',
        '<row r="1"><c r="A1"><c r="B1"></c></c></row>',
        '<row r="1"><c r="A1"><v><v>1</v></v></c></row>',
        "<row r=\"1\">" + "<x>" * 100 + "</x>" * 100 + "</row>",
    ],
)  # fmt: skip
def test_a_damaged_sheet_is_named_as_such(tmp_path, rows, spell):
    error = refusal(sheet_of(tmp_path, spell(rows)))
    assert error.kind == "input_corrupt"
    assert "in.xlsx" in error.message and "sheet1.xml" in error.message
    assert "abc" not in error.message


def test_a_doctype_is_refused_wherever_it_stands(tmp_path):
    bomb = '<!DOCTYPE w [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    for part in ("xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/sharedStrings.xml", "xl/styles.xml", "_rels/.rels"):
        parts = xlsx_parts(
            worksheet('<row r="1"><c r="A1"><v>1</v></c></row>'), strings=f'<sst xmlns="{MAIN}"/>', style_sheet=styles(0)
        )
        text = str(parts[part])
        start = text.index("?>") + 2 if text.startswith("<?xml") else 0
        parts[part] = text[:start] + bomb + text[start:]
        error = refusal(build_zip(tmp_path / "in.xlsx", parts))
        assert (error.kind, "DOCTYPE" in error.message) == ("input_corrupt", True), part


def test_a_cut_off_file_and_a_flipped_bit_are_corrupt(tmp_path):
    rows = "".join(f'<row r="{i}"><c r="A{i}"><v>{i * 7919}</v></c></row>' for i in range(1, 5000))
    whole = sheet_of(tmp_path, rows).read_bytes()
    for size in (10, 500, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.xlsx").write_bytes(whole[:size])
        assert refusal(tmp_path / "cut.xlsx").kind == "input_corrupt"
    with zipfile.ZipFile(tmp_path / "in.xlsx") as archive:
        entry = archive.getinfo("xl/worksheets/sheet1.xml")
        middle = entry.header_offset + 100 + entry.compress_size // 2
    flipped = bytearray(whole)
    flipped[middle] ^= 0xFF
    (tmp_path / "flip.xlsx").write_bytes(flipped)
    assert refusal(tmp_path / "flip.xlsx").kind == "input_corrupt"


def test_a_missing_part_is_corrupt(tmp_path):
    parts = xlsx_parts(worksheet(""))
    del parts["xl/worksheets/sheet1.xml"]
    error = refusal(build_zip(tmp_path / "in.xlsx", parts))
    assert error.kind == "input_corrupt" and "sheet1.xml" in error.message


@pytest.mark.parametrize("size, accepted", [(1024 * 1024, True), (1024 * 1024 + 1, False), (30 * 1024 * 1024, False)])
@pytest.mark.parametrize(
    "cell", ['<c r="A1" t="str"><v>%s</v></c>', '<c r="A1" t="inlineStr"><is><t>%s</t></is></c>', '<c t="str" r="A1"><v>%s</v></c>']
)
def test_a_cell_of_more_than_1_mib_is_refused_while_it_streams(tmp_path, cell, size, accepted):
    path = sheet_of(tmp_path, f'<row r="1">{cell % ("x" * size)}</row>')
    if accepted:
        assert read_rows(path) == [(1, ["x" * size])]
    else:
        error = refusal(path)
        assert error.kind == "input_cell_too_large" and "A1" in error.message


def test_a_cell_of_many_runs_and_a_large_shared_string_are_refused(tmp_path):
    runs = "<r><t>xxxxxxxxxxxxxxxxxxxx</t></r>" * 60_000
    assert kind_of(tmp_path, f'<row r="1"><c r="A1" t="inlineStr"><is>{runs}</is></c></row>') == "input_cell_too_large"
    one = '<row r="1"><c r="A1" t="s"><v>0</v></c></row>'
    for text in (f"<si>{runs}</si>", f"<si><t>{'x' * 3_000_000}</t></si>"):
        assert kind_of(tmp_path, one, strings=f'<sst xmlns="{MAIN}">{text}</sst>') == "input_cell_too_large"


def test_a_tag_or_comment_without_end_is_refused(tmp_path):
    for rows in ("<!--" + "x" * 9_000_000 + "-->", f'<row r="1"><c r="{"A" * 9_000_000}"/></row>'):
        assert kind_of(tmp_path, rows) == "input_corrupt"


def test_a_flood_of_different_tags_is_refused(tmp_path):
    assert kind_of(tmp_path, "".join(f"<a{i}/>" for i in range(60_000))) == "input_corrupt"


def test_a_part_that_unpacks_a_thousandfold_is_a_bomb(tmp_path):
    limits = ReadLimits(ratio_applies_from=1024 * 1024, max_ratio=500)
    rows = '<row r="1"><c r="A1"><v>1</v></c></row>' + " " * 20_000_000
    assert kind_of(tmp_path, rows, limits=limits) == "input_zip_bomb"


def test_sizes_that_lie_are_counted_anyway(tmp_path):
    path = sheet_of(tmp_path, '<row r="1"><c r="A1"><v>1</v></c></row>' + " " * 20_000_000)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("xl/worksheets/sheet1.xml")
    real = struct.pack("<L", entry.file_size)
    while (at := content.find(real)) >= 0:
        content[at : at + 4] = struct.pack("<L", 100)
    path.write_bytes(content)
    assert refusal(path).kind == "input_corrupt"


@pytest.mark.parametrize(
    "limits", [ReadLimits(max_parts=5), ReadLimits(max_unpacked=1000), ReadLimits(max_small_part=100), ReadLimits(max_shared_strings=50)]
)
def test_every_bound_of_an_archive_holds(tmp_path, limits):
    strings = f'<sst xmlns="{MAIN}"><si><t>a</t></si></sst>'
    error = refusal(sheet_of(tmp_path, '<row r="1"><c r="A1" t="s"><v>0</v></c></row>', strings=strings), limits)
    assert error.kind == "input_zip_bomb" and "in.xlsx" in error.message


def test_a_directory_of_a_million_entries_is_refused_before_it_is_listed(tmp_path):
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * 200_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65535, 65535, len(directory), 4, 0)
    (tmp_path / "in.xlsx").write_bytes(b"PK\x03\x04" + directory + end)
    assert refusal(tmp_path / "in.xlsx").kind == "input_zip_bomb"


def test_sparse_rows_do_not_multiply_memory(tmp_path):
    import tracemalloc

    rows = "".join(f'<row r="{i}"><c r="XFD{i}"><v>1</v></c></row>' for i in range(1, 8001))
    path = sheet_of(tmp_path, rows)
    tracemalloc.start()
    book = open_book(path, "in.xlsx")
    count = sum(1 for _ in book.rows(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 8000
    assert peak < 30_000_000  # all rows of one chunk at once would take a gigabyte


def test_merges_are_bounded_and_checked(tmp_path):
    merges = '<mergeCells><mergeCell ref="A1:B2"/><mergeCell ref="C3"/><mergeCell ref="D4:D9"/></mergeCells>'
    opened, _ = read_sheet(sheet_of(tmp_path, "", merges))
    assert opened.merged(1) == [(1, 1, 2, 2), (4, 4, 9, 4)]
    assert kind_of(tmp_path, "", merges, limits=ReadLimits(max_merges=1)) == "input_corrupt"
    assert kind_of(tmp_path, "", '<mergeCell ref="A1:XFE2"/>') == "input_corrupt"


def test_unusual_zip_features_are_refused_with_their_kind(tmp_path):
    content = bytearray(sheet_of(tmp_path, "").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + offset] |= 1
    (tmp_path / "locked.xlsx").write_bytes(content)
    assert refusal(tmp_path / "locked.xlsx").kind == "input_encrypted"


def test_random_damage_never_ends_in_anything_but_our_own_error(tmp_path):
    from ade_runner.errors import JobError

    rng = random.Random(99)
    rows = "".join(f'<row r="{i}"><c r="A{i}" t="s"><v>0</v></c><c r="B{i}" s="0"><v>{i}.5</v></c></row>' for i in range(1, 50))
    parts = xlsx_parts(worksheet(rows), strings=f'<sst xmlns="{MAIN}"><si><t>a</t></si></sst>', style_sheet=styles("yyyy"))
    for _ in range(400):
        damaged = dict(parts)
        name = rng.choice(list(parts))
        content = bytearray(str(parts[name]).encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(content))
            content[at : at + rng.randrange(3)] = rng.choice([b"", b"<", b">", b"\xff", b"&", b'"', b"9", b"\x00", b"</row>"])
        damaged[name] = bytes(content)
        try:
            read_rows(build_zip(tmp_path / "in.xlsx", damaged))
        except JobError as error:
            assert error.kind.startswith("input_")


def test_the_checksum_is_verified_to_the_last_byte(tmp_path):
    path = sheet_of(tmp_path, '<row r="1"><c r="A1"><v>1</v></c></row>')
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        checksum = struct.pack("<L", archive.getinfo("xl/worksheets/sheet1.xml").CRC)
    wrong = struct.pack("<L", zlib.crc32(b"other"))
    while (at := content.find(checksum)) >= 0:
        content[at : at + 4] = wrong
    path.write_bytes(content)
    assert refusal(path).kind == "input_corrupt"
