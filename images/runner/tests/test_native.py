"""What the compiled module takes means what the XML parser would have made of it, and what it writes is what Python would write."""

import datetime
import hashlib
import random
import re
import zipfile
from datetime import date, time, timedelta

import pytest
from ade_native import MAX_TEXT
from io_support import MAIN

from ade_runner.a1 import column_letters
from ade_runner.errors import JobError
from ade_runner.readers import ReadLimits, number_formats, shared_strings, xlsx_sheet
from ade_runner.readers.number_formats import Shows
from ade_runner.readers.package import Package
from ade_runner.readers.xlsx_sheet import ColumnNumbers, SheetFacts, sheet_rows
from ade_runner.writer import SheetWriter

# Reading


class Parts:
    """Parts of a package that are at hand, in chunks of some size."""

    name = "in.xlsx"
    limits = ReadLimits()
    corrupt = Package.corrupt

    def __init__(self, chunk, **parts):
        self._chunk, self._parts = chunk, parts

    def chunks(self, part, limit=None):
        content = self._parts[part]
        for at in range(0, len(content), self._chunk):
            yield content[at : at + self._chunk]


def parse_all(chunks, parser, ending, parse, between, take):
    """In place of ``weave``: everything goes through the parser."""
    for chunk in chunks:
        parse(chunk)
        yield
    parser.feed(b"", final=True)
    yield


def outcome(package, monkeypatch, *, taking):
    """All that reading says: rows with the types of their values, facts, or the error without its line."""
    with monkeypatch.context() as patched:
        if not taking:
            patched.setattr(xlsx_sheet, "weave", parse_all)
            patched.setattr(shared_strings, "weave", parse_all)
        facts = SheetFacts()
        dates = {"1": number_formats.decoder(Shows.DATE, False), "2": number_formats.decoder(Shows.DATE_TIME, False)}
        try:
            strings = shared_strings.load(package, "strings")
            table = [strings.get(str(at)) for at in range(len(strings))]
            rows = list(sheet_rows(package, "sheet", strings, dates, ColumnNumbers(), facts))
        except JobError as error:
            return error.kind, re.sub(r"line \d+", "line", error.message)
        return table, repr(rows), facts


HEAD = f'<?xml version="1.0" encoding="UTF-8"?>\n<worksheet xmlns="{MAIN}"><sheetData>'
STRINGS = ["", "plain", " a &amp; b ", "ä☃𝔘", "_x0041_", "two\nlines", "&#65;&#x1F600;", "_x", "long " * 60]

ROWS = [
    '<row r="{0}" spans="1:6" x14ac:dyDescent="0.25"><c r="A{0}"><v>{0}</v></c><c r="B{0}" s="0"><v>1.5</v></c>'
    '<c r="C{0}" t="s"><v>1</v></c><c r="D{0}" s="1"><v>4500{1}</v></c><c r="F{0}" t="b"><v>1</v></c></row>',
    '<row r="{0}"><c r="A{0}" t="inlineStr"><is><t xml:space="preserve"> x &lt; y </t></is></c><c r="B{0}" s="2"><v>45000.25</v></c>'
    '<c r="C{0}"><f t="shared" ref="C1:C9" si="0">A1&amp;"x"</f><v>-3</v></c><c r="D{0}" t="str"><f>B1</f><v>text ä</v></c></row>',
    '<row r="{0}" ht="15" customHeight="1"/>\n  ',
    '<row r="{0}"><c r="A{0}" s="3"/><c r="B{0}" t="e"><v>#N/A</v></c><c r="AB{0}"><v>1E3</v></c><c r="AC{0}"><v></v></c><c r="AD{0}"><f/></c></row>',
    '<row r="{0}"><c r="B{0}" t="s"><v>2</v></c><c r="C{0}" t="n"><v>0.1</v></c><c r="XFD{0}"><v>123456789012345678</v></c></row>\n',
    '<row r="{0}"><c r="A{0}" t="d"><v>2024-02-29</v></c><c r="B{0}" t="s"><v>4</v></c><c r="C{0}" t="str"><v/></c></row>',
]  # fmt: skip
PIECES = [
    "<", ">", "/", '"', "'", " ", "&", "]]", "]]>", "&#0;", "&#13;", "&#xFFFE;", "&#xD800;", "&amp;", "&lt;x", "&nbsp;", "&#+5;", "_x0041_", "\r", "\0",
    "\x7f", "\ufffe", "\ud7ff", "0", "-", "+", ".", "e5", "1e999", "_", "nan", "00", "99999999999999999999", "\u0663", "<v>", "</v>", "<v/>", "</c>", "<c>",
    "<is>", "</is>", "<t>", "</t>", "<f>", "</row>", "<row>", '<row r="7">', '<row r="3"/>', '<c r="A1"/>', '<c r="B2"><v>7</v></c>', "<!-- </row> -->",
    "<!-- </row>", "-->", "<![CDATA[ </row>", "<![CDATA[x]]>", "]]>", "<?pi </row> ?>", "</sheetData>", "<sheetData>", "<x/>", ' r="1"', ' s="1"', ' t="s"',
    ' t="str"', ' t="b"', ' t="zz"', ' s="01"', ' spans="1"', ' x="<"', "xml:space", "A", "a", "$", "ZZZ", "1048577", "ä", "\xa0", "<si>", "</si>", "<r>", "</sst>",
]  # fmt: skip


def mutated(rng, text):
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0:
                text = text[:at] + text[at + rng.randrange(1, 4) :]
            case 1:
                text = text[:at] + rng.choice(PIECES) + text[at + rng.randrange(3) :]
            case 2:  # behind a tag, or before one: where it may go unnoticed
                at = text.find(rng.choice("<>"), at) + 1
                text = text[:at] + rng.choice(PIECES) + text[at:]
            case 3:
                other = rng.randrange(len(text) + 1)
                text = text[:at] + text[min(at, other) : max(at, other)] + text[at:]
            case _:
                text = text[:at] + rng.choice(PIECES) + text[at:]
    return text


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_are_taken_mean_what_the_parser_makes_of_them(seed, monkeypatch):
    rng = random.Random(seed)
    taken = refused = 0
    for _ in range(250):
        number, rows = 0, []
        for _ in range(rng.randrange(1, 8)):
            number = max(1, number + rng.choices((1, 2, 10, 0, -1), (40, 6, 3, 1, 1))[0])
            rows.append(rng.choice(ROWS).format(number, rng.randrange(10)))
        strings = "".join(f"<si><t>{text}</t></si>" for text in STRINGS)
        if rng.random() < 0.8:
            rows = mutated(rng, "".join(rows))
        else:
            rows, strings = "".join(rows), mutated(rng, strings)
        package = Parts(
            rng.choice((7, 64, 100_000)),
            sheet=f"{HEAD}{rows}</sheetData></worksheet>".encode(errors="replace"),
            strings=f'<sst xmlns="{MAIN}">{strings}</sst>'.encode(errors="replace"),
        )
        found = outcome(package, monkeypatch, taking=True)
        assert found == outcome(package, monkeypatch, taking=False), (rows, strings)
        refused += len(found) == 2
        taken += len(found) == 3
    assert taken > 50 and refused > 25  # it is worth something in both directions


ODD = [
    '<row r="2" r="2"><c r="A2"><v>1</v></c></row>', '<row r="2" a="1" a="2"/>', '<row r="2"><c r="A2"><f a="" a=""/><v>1</v></c></row>', '<row r="1"/>',
    '<row r="02"><c r="A2"><v>1</v></c></row>', '<row r="2"><c r="A02"><v>1</v></c></row>', '<row r="2"><c r="A3"><v>1</v></c></row>',
    '<row r="2"><c r="B2"><v>1</v></c><c r="A2"><v>2</v></c></row>', '<row r="2"><c r="A2"><v>1</v></c><c r="A2"><v>2</v></c></row>',
    '<row r="2"><c r="BM2"><v>1</v></c></row>', '<row r="2"><c r="BN2"><v>1</v></c></row>', '<row r="2"><c r="XFE2"><v>1</v></c></row>',
    '<row r="2"><c r="A2" t="s"><v>9</v></c></row>', '<row r="2"><c r="A2" t="s"><v></v></c></row>', '<row r="2"><c r="A2" t="b"><v/></c></row>',
    '<row r="2"><c r="A2" s="01"><v>45000</v></c></row>', '<row r="2"><c r="A2" s="1"><v>1e999</v></c></row>', '<row r="1048577"/>', '<row r="2"><c r="A2"/>',
    *(f'<row r="2"><c r="A2"><v>{text}</v></c></row>' for text in ("+5", "1_0", "inf", " 5", "5.", ".5", "1.e2", "-", "-0", "1e-400", "9" * 19, "\u0663")),
    *(f'<row r="2"><c r="A2" t="str"><v>{text}</v></c></row>' for text in ("]]", "]]>", "&#7;", "&#xd800;", "&#+5;", "&x;", "\r", "\x07", "\ufffe")),
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_row_between_usual_ones_means_what_the_parser_makes_of_it(odd, monkeypatch):
    rows = ROWS[0].format(1, 0) + odd + ROWS[0].format(3, 0)
    package = Parts(
        100_000, sheet=f"{HEAD}{rows}</sheetData></worksheet>".encode(), strings=f'<sst xmlns="{MAIN}"><si><t>a</t></si><si><t>b</t></si></sst>'.encode()
    )
    assert outcome(package, monkeypatch, taking=True) == outcome(package, monkeypatch, taking=False)


def test_what_is_usual_does_not_reach_the_parser(monkeypatch):
    """Otherwise the comparison above would compare the parser with itself."""
    rows = "".join(ROWS[0].format(number, 1) + ROWS[1].format(number + 1, 2) + ROWS[2].format(number + 2, 3) for number in range(1, 3000, 3))
    strings = "<si><t>x</t></si>" * 3_000
    package = Parts(
        1_000,
        sheet=f"{HEAD}{rows}</sheetData></worksheet>".encode(),
        strings=f'<sst xmlns="{MAIN}">{strings}</sst>'.encode(),
    )
    fed = []
    from ade_runner.readers.markup import BoundedParser

    feed = BoundedParser.feed
    monkeypatch.setattr(BoundedParser, "feed", lambda self, chunk, final=False: (fed.append(len(chunk)), feed(self, chunk, final))[1])
    table, rows, _ = outcome(package, monkeypatch, taking=True)
    assert len(table) == 3_000 and rows.count("datetime.date(") == 1_000
    assert sum(fed) < 1_500


# Writing

ESCAPED = re.compile("[&<>\0-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
STYLES = {date: 2, datetime.datetime: 3, time: 4, timedelta: 5}


def text_cell(reference, text):
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) > 2 * MAX_TEXT:
        text = text.encode("utf-16-le", "replace")[: 2 * MAX_TEXT].decode("utf-16-le", "ignore")
    text = "".join("\ufffd" if "\ud800" <= one <= "\udfff" else one for one in text)
    named = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    text = ESCAPED.sub(lambda found: named.get(found[0], f"_x{ord(found[0]):04X}_"), text)
    if not text:
        return ""
    space = ' xml:space="preserve"' if text != text.strip() else ""
    return f'<c r="{reference}" t="inlineStr"><is><t{space}>{text}</t></is></c>'


def cell_by_cell(reference, value):
    """What a value is in a sheet, the slow way."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return f'<c r="{reference}" t="b"><v>{value:d}</v></c>'
    if isinstance(value, str):
        return text_cell(reference, value)
    if isinstance(value, int):
        return text_cell(reference, str(value)) if abs(value) >= 10**15 else f'<c r="{reference}"><v>{value}</v></c>'
    if isinstance(value, float):
        return text_cell(reference, str(value).replace("inf", "Infinity")) if abs(value) == float("inf") else f'<c r="{reference}"><v>{value!r}</v></c>'
    day = timedelta(days=1)
    if isinstance(value, timedelta):
        number = value / day
    elif isinstance(value, time):
        number = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond) / day
    elif value.year < 1900:
        return text_cell(reference, value.isoformat())
    else:
        number = value.toordinal() - date(1899, 12, 30).toordinal()
        number -= number < 61
        if isinstance(value, datetime.datetime):
            number += (value - datetime.datetime.combine(value, time())) / day
    return f'<c r="{reference}" s="{STYLES[type(value)]}"><v>{number!r}</v></c>'


HOSTILE = [
    None, "", "plain", "=1+1", " a", "a ", "\ta", "a\n", "\r", "\x1c", "\x1fa", "\x85", "\xa0a", "a\u2003", "\u200b", "\ufeff", "&<>\"'", "]]>", "\0\x01\x08\x0b\x0c\x0e\x7f",
    "_x0041_", "_x0041_x0042_", "__x0041__", "_x004_", "_xGGGG_", "_", "_x", "\ufffe\uffff", "\ud800", "a\udfffb", "\ud83d\ude00", "𝔘", "ï¿¾", "x" * MAX_TEXT, "x" * (MAX_TEXT + 1),
    "\U0001f600" * 16_384, "x" + "\U0001f600" * 16_384, "\ud800" * (MAX_TEXT + 1), "ä" * MAX_TEXT, "&" * 40_000, " " * 40_000,
    0, -1, 999_999_999_999_999, -999_999_999_999_999, 10**15, -(10**15), 2**63, -(2**63) - 1, 10**50, True, False,
    0.0, -0.0, 1.0, -1.5, 0.1, 1e-4, 9.999e-5, 1e-5, 1e15, 1e16, 9999999999999998.0, 1e22, 5e-324, 1.7976931348623157e308, 2.2250738585072014e-308,
    float("inf"), float("-inf"), float("nan"), 123456789.123456789, 4503599627370497.5, 1 / 3,
    date(1899, 12, 31), date(1900, 1, 1), date(1900, 2, 28), date(1900, 3, 1), date(2024, 2, 29), date(9999, 12, 31), date(1, 1, 1),
    datetime.datetime(2024, 2, 29), datetime.datetime(2024, 2, 29, 23, 59, 59, 999_999), datetime.datetime(1900, 1, 1, 1), datetime.datetime(1899, 1, 1, 1),
    time(), time(12), time(0, 0, 0, 1), time(23, 59, 59, 999_999), timedelta(), timedelta(hours=30), timedelta(microseconds=-1), timedelta.max, timedelta.min,
]  # fmt: skip


def written(path, columns):
    with SheetWriter(path, "Normalized", ["h"] * len(columns)) as writer:
        writer.write_columns(columns)
    with zipfile.ZipFile(path) as package:
        return package.read("xl/worksheets/sheet1.xml").decode().partition("</row>")[2], writer


def expected(columns):
    rows = ""
    for number, values in enumerate(zip(*columns, strict=True), start=2):
        cells = "".join(cell_by_cell(f"{column_letters(at)}{number}", value) for at, value in enumerate(values, start=1))
        rows += f'<row r="{number}">{cells}</row>'
    return rows + "</sheetData></worksheet>"


def test_hostile_values_are_written_as_one_by_one(tmp_path):
    columns = [HOSTILE, HOSTILE[::-1], [1] * len(HOSTILE), HOSTILE[7:] + HOSTILE[:7]]
    found, writer = written(tmp_path / "o.xlsx", columns)
    assert found == expected(columns)
    assert writer.truncated_cells == 3 * 6


def test_random_values_are_written_as_one_by_one(tmp_path):
    rng = random.Random(5)

    def anything():
        match rng.randrange(6):
            case 0:
                return rng.randrange(-(10 ** rng.randrange(1, 25)), 10 ** rng.randrange(1, 25))
            case 1:
                return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308)
            case 2:
                return "".join(rng.choice("ab_x0041_ &<>\t\r\ud800\ufffeä𝔘") for _ in range(rng.randrange(30)))
            case 3:
                return datetime.datetime(rng.randrange(1890, 9999), 3, 7, 8, 9, rng.randrange(60), rng.randrange(10**6))
            case 4:
                return round(rng.uniform(-1e6, 1e6), rng.randrange(6))
            case _:
                return date.fromordinal(rng.randrange(1, 3_000_000))

    columns = [[anything() for _ in range(4_000)] for _ in range(5)]
    assert written(tmp_path / "o.xlsx", columns)[0] == expected(columns)


def test_the_file_is_byte_for_byte_the_one_that_it_was_before_the_module(tmp_path):
    numbers = range(30_000)
    columns = [
        list(numbers), [f"person {i % 5000} of {i % 97}" for i in numbers], [i * 1.3742 for i in numbers], [date(2020, 1, 1) + timedelta(i % 1000) for i in numbers],
        [i % 2 == 0 for i in numbers], ["n" if i % 4 == 0 else None for i in numbers], [f"<{i}> & _x0041_ " for i in numbers],
    ]  # fmt: skip
    written(tmp_path / "o.xlsx", columns)
    assert hashlib.sha256((tmp_path / "o.xlsx").read_bytes()).hexdigest() == GOLDEN


GOLDEN = "2b335e17dcbec88e59e0cbf7a3ab1c6b4fe222266b9136f47a8d9aac669bcb44"
