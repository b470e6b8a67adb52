"""Makes the workbooks of the examples, and what is expected of them.

Run by hand, with XlsxWriter installed, after changing an example::

    python docs/examples/make_workbooks.py

Everything starts from clean records. One copy is made messy, the way people do it, and becomes the workbook; the other
becomes what is expected of it, in the same folder (see ``tests/fixtures/expectation.py``). So the expectation never comes from the program that is
tested against it. The same source gives the same bytes: a change in a workbook is always a change in here.
"""

from __future__ import annotations

import csv
import random
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from xlsxwriter.worksheet import Worksheet

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "fixtures"))

from expectation import Cell, Expected, new_workbook, put  # noqa: E402

EXCEL_DAY_ZERO = date(1899, 12, 30)


def example_of(package: str, name: str) -> Path:
    """The folder of an example in a package, empty or as it was."""
    folder = HERE / package / "examples" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder



# --- membership -----------------------------------------------------------------------------------------------------

FIRST_NAMES = (
    "Ada Bruno Carla Dmitri Elena Farid Greta Hugo Ines Jonas Kira Liam Mona Nils Olga Pavel Quinn Rosa Samir Tilda "
    "Uma Viktor Wanda Xaver Yara Zeno Amelie Björn Chloé Dàvid"
).split()
LAST_NAMES = (
    "Abbott Becker Castillo Dupont Eriksen Fontaine Garcia Hollis Ivanova Jansen Kowalski Lindqvist Moreau Novák "
    "O'Brien Petersen Quist Rossi Schäfer Tanaka Ueland Varga Whitlock Xu Yilmaz Zimmer McAllister van-Dijk"
).split()
PLANS = ("Adult", "Adult", "Adult", "Family", "Family", "Junior", "Honorary")
REMARKS = ("pays in cash", "locker 14", "coxswain", "asked for a refund", "key returned")


def membership() -> None:
    """One sheet with a title block, a table from B6, blank rows, duplicates, gaps, a totals line and a remark."""
    rng = random.Random(20251031)
    example = example_of("membership", "roster")
    headers = ["Member ID", "Last name", "First name", "E-mail", "Phone", "Joined on", "Plan", "Newsletter"]
    expected = Expected("Members", [*headers, "raw_Remarks_office"])

    clean: list[list[Cell]] = []
    messy: list[list[Cell]] = []
    for number in range(1, 151):
        first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
        member_id = f"M-{number:04d}"
        address = plain(f"{first}.{last}{number}@example.org")
        groups = f"20 7946 {rng.randrange(10_000):04d}"
        joined = date(2009, 1, 1) + timedelta(days=rng.randrange(6000))
        plan = rng.choice(PLANS)
        newsletter: bool | None = rng.choice((True, False, None))
        remark: Cell = rng.choice(REMARKS) if rng.random() < 0.12 else None
        row: list[Cell] = [member_id, last, first, address, f"+44 {groups}", joined, plan, newsletter, remark]
        clean.append(row)
        messy.append(
            [
                rng.choice((member_id, member_id, f"m{number:04d}", f"M {number}", number)),
                rng.choice((last, last, last.upper() if last.upper().title() == last else last, f" {last} ")),
                rng.choice((first, first, f"{first} ", first.upper() if first.upper().title() == first else first)),
                rng.choice((address, address, address.upper(), f"mailto:{address}", f" {address}")),
                rng.choice(
                    (f"+44 {groups}", f"+44 (0){groups.replace(' ', '-')}", f"+44 {groups.replace(' ', '/', 1)}")
                ),
                messy_day(rng, joined),
                rng.choice((plan, plan, plan.lower(), plan.upper(), plan[0])),
                rng.choice({True: ("y", "Yes", "x"), False: ("n", "No"), None: (None,)}[newsletter]),
                remark,
            ]
        )

    def spoil(number: int, column: int, raw: Cell, left: Cell, *issues: str) -> None:
        """Puts ``raw`` into the workbook, expects ``left`` in the output, and the issues."""
        messy[number - 1][column] = raw
        clean[number - 1][column] = left
        names = ("member_id", "last_name", "first_name", "email", "phone", "joined_on", "plan", "newsletter")
        for code in issues:
            expected.issue(names[column], code)

    spoil(23, 0, None, None, "required_missing")
    spoil(77, 0, None, None, "required_missing")
    spoil(91, 0, "guest", "guest", "pattern_mismatch")
    spoil(40, 1, None, None, "required_missing")
    for number, address in ((12, "nina.example.org"), (58, "no mail"), (104, "rosa@example"), (133, "@example.org")):
        spoil(number, 3, address, address, "invalid_format")
    for number in (7, 31, 32, 99):
        spoil(number, 3, None, None)
    for number in (15, 64):
        spoil(number, 4, None, None)
    spoil(19, 5, "sometime in May", "sometime in May", "invalid_format")
    spoil(120, 5, "31.02.2019", "31.02.2019", "invalid_format")
    spoil(66, 5, None, None, "required_missing")
    spoil(111, 6, "Trial", "Trial", "not_allowed")
    spoil(112, 6, None, None)

    # Of one member only the name is known. The row stays: leaving it out would lose a member.
    messy[139] = [None, messy[139][1], *[None] * 7]
    clean[139] = [None, clean[139][1], *[None] * 7]
    expected.issue("member_id", "required_missing")
    expected.issue("joined_on", "required_missing")

    # Two people came in twice: the whole row again, further down.
    for number in (30, 85):
        messy.append(list(messy[number - 1]))
        clean.append(list(clean[number - 1]))
        expected.issue("member_id", "duplicate")

    expected.rows = clean
    raw_headers = [
        "Member No.",
        "SURNAME",
        "Given name ",
        "Contact",
        "Phone / mobile",
        "Member since",
        "Membership type",
    ]
    raw_headers += ["Newsletter (y/n)", "Remarks (office)"]

    book = new_workbook(example / "roster.xlsx")
    sheet = book.add_worksheet("Roster 2025")
    bold = book.add_format({"bold": True})
    sheet.write_string(0, 1, "Riverside Rowing Club", bold)
    sheet.write_string(1, 1, "Member roster, exported on 31 October 2025")
    sheet.write_string(3, 1, "For the office only. Please do not pass on.")
    top = 5
    for column, header in enumerate(raw_headers, start=1):
        sheet.write_string(top, column, header, bold)
    line = top
    for number, row in enumerate(messy, start=1):
        line += 2 if number in (51, 101, 151) else 1  # a blank row after every fifty, as pages were
        for column, value in enumerate(row, start=1):
            put(sheet, book, line, column, value)
    sheet.write_string(line + 2, 1, "Total members", bold)
    sheet.write_number(line + 2, 2, len(messy), bold)
    sheet.write_string(line + 4, 1, "Honorary members pay no fee.")
    sheet.set_column(1, 9, 18)
    book.close()

    fields = ["member_id", "last_name", "first_name", "email", "phone", "joined_on", "plan", "newsletter", None]
    expected.table("roster.xlsx", "Roster 2025", f"B{top + 1}:J{line + 1}", list(zip(shown(raw_headers), fields)))
    issues = sum(sum(counts.values()) for counts in expected.issues.values())
    expected.annotations.append(
        {"stage": "on_job_end", "outcome": "normalized", "members": len(clean), "issues": issues}
    )
    expected.write(example, ["roster.xlsx"])


def plain(text: str) -> str:
    """Lower case, without accents and apostrophes: what people choose for an address."""
    letters = unicodedata.normalize("NFKD", text.replace("'", "").lower())
    return letters.encode("ascii", "ignore").decode("ascii")


def messy_day(rng: random.Random, day: date) -> Cell:
    """One of the ways in which a roster holds a day: a date, text in four orders, or a bare serial number."""
    ways: tuple[Callable[[], Cell], ...] = (
        lambda: day,
        lambda: day,
        lambda: day.isoformat(),
        lambda: f"{day.day:02d}.{day.month:02d}.{day.year}",
        lambda: f"{day.day}/{day.month}/{day.year}",
        lambda: f"{day.day} {MONTHS[day.month - 1][:3]} {day.year}",
        lambda: (day - EXCEL_DAY_ZERO).days,
    )
    return rng.choice(ways)()


MONTHS = ("January February March April May June July August September October November December").split()


def shown(headers: Sequence[str]) -> list[str]:
    """Headers as the artifact shows them: without the spaces around them."""
    return [header.strip() for header in headers]


# --- invoices -------------------------------------------------------------------------------------------------------


@dataclass
class Invoice:
    """A clean invoice; ``raw_*`` holds what the list says where that is not one of the usual spellings."""

    number: str
    supplier: str
    issued: date
    due: date
    currency: str
    net: float
    tax: float

    @property
    def total(self) -> float:
        return round(self.net + self.tax, 2)

    def row(self) -> list[Cell]:
        """The invoice as it stands in the output."""
        return [self.number, self.supplier, self.issued, self.due, self.currency, self.net, self.tax, self.total]


SUPPLIERS = ("Northgate Paper Ltd", "Alder & Finch", "Bluewater Logistics", "Cobalt Cleaning", "Dune Catering")


def invoices() -> None:
    """A workbook with English amounts and a CSV file with German ones; totals lines below both."""
    rng = random.Random(417)
    example = example_of("invoices", "march")
    headers = ["Invoice no.", "Supplier", "Issued on", "Due on", "Currency", "Net", "Tax", "Total"]
    expected = Expected("Invoices", [*headers, "raw_Cost_centre"])
    lists = 0

    # suppliers.xlsx
    book = new_workbook(example / "suppliers.xlsx")
    sheet = book.add_worksheet("March")
    bold = book.add_format({"bold": True})
    money = book.add_format({"num_format": "#,##0.00"})
    sheet.write_string(0, 0, "Incoming invoices, March 2025", bold)
    raw = ["Inv #", "Vendor", "Invoice date", "Due date", "Cur.", "Net amount", "VAT", "Amount due", "Cost centre"]
    for column, header in enumerate(raw):
        sheet.write_string(2, column, header, bold)
    at, net_sum, tax_sum, total_sum = 2, 0.0, 0.0, 0.0
    for index in range(60):
        invoice = new_invoice(
            rng, f"INV-{1000 + index}", SUPPLIERS[index % len(SUPPLIERS)], rng.choice(("EUR", "EUR", "GBP", "USD"))
        )
        if index in (9, 37):  # a credit note
            invoice.net, invoice.tax = -invoice.net, -invoice.tax
        centre = f"CC {rng.randrange(100, 120)}"
        clean: list[Cell] = [*invoice.row(), centre]
        cells: list[Cell] = [
            rng.choice((invoice.number, invoice.number.lower(), f" {invoice.number}")),
            invoice.supplier,
            english_day(rng, invoice.issued),
            english_day(rng, invoice.due),
            english_currency(rng, invoice.currency),
            english_amount(rng, invoice.net, invoice.currency),
            english_amount(rng, invoice.tax, invoice.currency),
            english_amount(rng, invoice.total, invoice.currency),
            centre,
        ]
        if index == 12:
            cells[0], clean[0] = None, None
            expected.issue("invoice_no", "required_missing")
        if index == 20:
            cells[0], clean[0] = "INV-1005", "INV-1005"
            expected.issue("invoice_no", "duplicate")
        if index == 25:
            cells[7], clean[7] = round(invoice.total + 10, 2), round(invoice.total + 10, 2)
            expected.issue("total", "total_mismatch")
        if index == 28:
            cells[3], clean[3] = "30 days net", "30 days net"
            expected.issue("due_on", "invalid_format")
        if index == 33:
            cells[7], clean[7] = None, None
            expected.issue("total", "required_missing")
        if index == 44:
            cells[6], clean[6] = "see note", "see note"
            expected.issue("tax", "invalid_format")
        if index == 50:
            cells[4], clean[4] = "CHF", "CHF"
            expected.issue("currency", "not_allowed")
        expected.rows.append(clean)
        net_sum, tax_sum, total_sum = net_sum + invoice.net, tax_sum + invoice.tax, total_sum + invoice.total
        at += 1
        for column, value in enumerate(cells):
            put(sheet, book, at, column, value)
    sheet.write_string(at + 1, 0, "Total", bold)
    for column, amount in ((5, net_sum), (6, tax_sum), (7, total_sum)):
        letter = "FGH"[column - 5]
        sheet.write_formula(at + 1, column, f"=SUM({letter}4:{letter}{at + 1})", money, round(amount, 2))
    sheet.set_column(0, 8, 16)
    book.close()
    fields = ["invoice_no", "supplier", "issued_on", "due_on", "currency", "net", "tax", "total", None]
    expected.table("suppliers.xlsx", "March", f"A3:I{at + 1}", list(zip(raw, fields)))
    lists += 1

    # meyer.csv: one supplier's own list, semicolons, a byte order mark, German amounts; no cost centre
    raw = ["Document", "Company", "Issued", "Payable by", "Currency", "Net", "Tax", "Gross"]
    lines: list[list[str]] = [raw]
    net_sum = tax_sum = total_sum = 0.0
    for index in range(25):
        invoice = new_invoice(rng, f"RE-2025-{index + 1:03d}", "Meyer Bürobedarf GmbH", "EUR")
        if index == 4:
            invoice.net, invoice.tax = -invoice.net, -invoice.tax
        clean = [*invoice.row(), None]
        line = [
            invoice.number,
            invoice.supplier,
            german_day(rng, invoice.issued),
            german_day(rng, invoice.due),
            rng.choice(("EUR", "€", "")),
            german_amount(rng, invoice.net),
            german_amount(rng, invoice.tax),
            german_amount(rng, invoice.total),
        ]
        if index == 17:
            line[2], clean[2] = "", None
            expected.issue("issued_on", "required_missing")
        if index == 21:
            line[7], clean[7] = german_amount(rng, invoice.total + 1), round(invoice.total + 1, 2)
            expected.issue("total", "total_mismatch")
        lines.append(line)
        expected.rows.append(clean)
        net_sum, tax_sum, total_sum = net_sum + invoice.net, tax_sum + invoice.tax, total_sum + invoice.total
    sums = [german_amount(rng, round(amount, 2)) for amount in (net_sum, tax_sum, total_sum)]
    with (example / "meyer.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerows(lines)
        writer.writerow(["Total", "", "", "", "", *sums])
    expected.table("meyer.csv", "meyer", f"A1:H{len(lines)}", list(zip(raw, fields)))
    lists += 1

    total: Counter[str] = sum(expected.issues.values(), Counter())
    expected.annotations.append(
        {
            "stage": "on_job_end",
            "ready_to_pay": False,
            "lists": lists,
            "invoices": len(expected.rows),
            "issues": dict(sorted(total.items())),
        }
    )
    expected.write(example, ["suppliers.xlsx", "meyer.csv"])


def new_invoice(rng: random.Random, number: str, supplier: str, currency: str) -> Invoice:
    """A plausible invoice of March 2025 with 20 % tax."""
    issued = date(2025, 3, 1) + timedelta(days=rng.randrange(31))
    net = round(rng.choice((rng.uniform(15, 300), rng.uniform(300, 9000))), 2)
    if (net * 100) % 10 == 0:
        net = round(net + 0.01, 2)
    return Invoice(
        number, supplier, issued, issued + timedelta(days=rng.choice((14, 30))), currency, net, round(net * 0.2, 2)
    )


def english_day(rng: random.Random, day: date) -> Cell:
    """A real date, ISO, or the month in words."""
    month = MONTHS[day.month - 1]
    return rng.choice((day, day, day.isoformat(), f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}"))


def german_day(rng: random.Random, day: date) -> str:
    """Day first, with dots, the year long or short."""
    return rng.choice((f"{day:%d.%m.%Y}", f"{day:%d.%m.%y}", f"{day.day}.{day.month}.{day.year}"))


def english_currency(rng: random.Random, code: str) -> Cell:
    """A code or a sign; euros may be left blank, they are the default."""
    signs: dict[str, tuple[Cell, ...]] = {"EUR": ("EUR", "eur", "€", None), "USD": ("USD", "US$"), "GBP": ("GBP", "£")}
    return rng.choice(signs[code])


def english_amount(rng: random.Random, amount: float, currency: str) -> Cell:
    """A number, or text with thousands separators; a negative one in parentheses."""
    grouped = f"{abs(amount):,.2f}"
    if amount < 0:
        return rng.choice((amount, f"({grouped})", f"{grouped}-"))
    sign = {"EUR": "€", "USD": "$", "GBP": "£"}[currency]
    return rng.choice((amount, amount, amount, grouped, f"{sign}{grouped}", f"{currency} {grouped}"))


def german_amount(rng: random.Random, amount: float) -> str:
    """Decimal comma, dots or no-break spaces for thousands, sometimes a euro sign."""
    grouped = f"{abs(amount):,.2f}".translate(str.maketrans(",.", ".,"))
    sign = "-" if amount < 0 else ""
    return sign + rng.choice((grouped, f"{grouped} €", grouped.replace(".", "\u00a0")))


# --- price_list -----------------------------------------------------------------------------------------------------

PRODUCTS = {
    "Fasteners": ("FA", ("screws", "BOLTS"), ("Wood screw", "Hex bolt", "Wall anchor", "Wing nut", "Washer")),
    "Hand tools": ("HT", ("tools",), ("Claw hammer", "Spirit level", "Pipe wrench", "Hand saw", "Chisel")),
    "Power tools": ("PT", ("Machines",), ("Cordless drill", "Angle grinder", "Jigsaw", "Belt sander")),
    "Safety": ("SA", ("PPE",), ("Safety goggles", "Ear defenders", "Work gloves")),
    "Paint": ("PA", ("coatings",), ("White emulsion", "Wood varnish", "Metal primer")),
    "Electrical": ("EL", ("wiring",), ("Cable reel", "Socket outlet", "LED panel")),
}
UNITS = {"pc": ("pc", "Pcs", "each", "EA"), "box": ("box", "Boxes", "BX"), "l": ("litre", "l")}


def price_list() -> None:
    """Notes, two regions on sheets of their own, and two more one below the other on a third sheet."""
    rng = random.Random(2026)
    example = example_of("price_list", "prices")
    headers = ["SKU", "Product", "Category", "Unit", "List price", "Dealer price", "Valid from"]
    expected = Expected("Prices", headers)
    book = new_workbook(example / "prices_2026.xlsx")
    bold = book.add_format({"bold": True})

    notes = book.add_worksheet("Notes")
    for row, text in enumerate(
        (
            "Price lists 2026",
            None,
            "All prices are in pounds and without tax.",
            "Prices of articles marked as on request change weekly; please call.",
            "Questions go to the sales office.",
        )
    ):
        if text:
            notes.write_string(row, 0, text)

    def articles(count: int) -> list[list[Cell]]:
        """Clean rows in output order, each SKU once."""
        rows: list[list[Cell]] = []
        numbers = rng.sample(range(10_000, 99_999), count)
        for number in numbers:
            category = rng.choice(list(PRODUCTS))
            code, _, names = PRODUCTS[category]
            unit = "l" if category == "Paint" else rng.choice(("pc", "pc", "box"))
            price = round(rng.uniform(2, 400) // 0.05 * 0.05 + 0.04, 2)
            dealer = round(price * 0.8, 2)
            valid = date(2026, rng.choice((1, 2, 4)), 1)
            rows.append(
                [
                    f"{code}-{number}",
                    f"{rng.choice(names)} {rng.randrange(10, 99)}",
                    category,
                    unit,
                    price,
                    dealer,
                    valid,
                ]
            )
        return rows

    def messy(row: list[Cell], order: Sequence[int]) -> list[Cell]:
        """The row as a region writes it, its columns in the region's order."""
        sku, product, category, unit, price, dealer, valid = row
        code, aliases, _ = PRODUCTS[str(category)]
        text = str(sku)
        price_text = f"{price:,.2f}"
        cells: list[Cell] = [
            rng.choice((text, text, text.lower(), text.replace("-", " "), text.replace("-", ""))),
            product,
            rng.choice((category, category, code, *aliases)),
            rng.choice(UNITS[str(unit)]),
            rng.choice((price, price, price_text, f"£{price_text}", f"{price_text} / {unit}")),
            dealer,
            valid,
        ]
        return [cells[at] for at in order]

    def region(
        name: str,
        sheet: Worksheet,
        top: int,
        raw: Sequence[str],
        order: Sequence[int],
        count: int,
        spoil: Callable[[list[list[Cell]], list[list[Cell]]], None],
    ) -> int:
        """Writes one list from row ``top`` (0-based, its header); returns the last row used."""
        clean = articles(count)
        written = [messy(row, order) for row in clean]
        spoil(clean, written)
        absent = set(range(len(headers))) - set(order)
        for row in clean:
            for at in absent:
                row[at] = None
        for column, header in enumerate(raw):
            sheet.write_string(top, column, header, bold)
        for offset, cells in enumerate(written, start=1):
            for column, value in enumerate(cells):
                put(sheet, book, top + offset, column, value)
        expected.rows.extend(clean)
        fields = ["sku", "product", "category", "unit", "list_price", "dealer_price", "valid_from"]
        letter = "ABCDEFG"[len(order) - 1]
        mapping = [(header, fields[at]) for header, at in zip(raw, order)]
        expected.table("prices_2026.xlsx", name, f"A{top + 1}:{letter}{top + count + 1}", mapping)
        sheet.set_column(0, 6, 16)
        return top + count

    def spoil_north(clean: list[list[Cell]], written: list[list[Cell]]) -> None:
        clean[30][0], written[30][0] = clean[4][0], written[4][0]
        expected.issue("sku", "duplicate", 2)
        clean[11][2], written[11][2] = "Garden", "Garden"
        expected.issue("category", "unknown_category")
        clean[17][5] = written[17][5] = round(float(str(clean[17][4])) + 1, 2)
        expected.issue("dealer_price", "above_list_price")

    def spoil_south(clean: list[list[Cell]], written: list[list[Cell]]) -> None:
        clean[8][4], written[8][3] = "on request", "on request"
        expected.issue("list_price", "invalid_format")
        clean[21][0], written[21][0] = "PA-1234", "PA-1234"
        expected.issue("sku", "pattern_mismatch")

    def spoil_east(clean: list[list[Cell]], written: list[list[Cell]]) -> None:
        clean[3][4], written[3][2] = None, None
        expected.issue("list_price", "required_missing")

    def spoil_west(clean: list[list[Cell]], written: list[list[Cell]]) -> None:
        clean[6][0], written[6][0] = None, None
        expected.issue("sku", "required_missing")

    north = book.add_worksheet("North")
    raw = ["SKU", "Product", "Category", "Unit", "List price", "Dealer price", "Valid from"]
    region("North", north, 0, raw, (0, 1, 2, 3, 4, 5, 6), 48, spoil_north)

    south = book.add_worksheet("South")
    south.write_string(0, 0, "Region South, prices for 2026", bold)
    raw = ["Article no.", "Description", "Product group", "RRP", "Trade price", "UoM", "Effective"]
    region("South", south, 2, raw, (0, 1, 2, 4, 5, 3, 6), 40, spoil_south)

    both = book.add_worksheet("East & West")
    both.write_string(0, 0, "East", bold)
    raw = ["Item code", "Article name", "Price", "Per", "Group"]
    end = region("East & West", both, 1, raw, (0, 1, 4, 3, 2), 22, spoil_east)
    both.write_string(end + 2, 0, "West", bold)
    raw = ["Item code", "Article name", "Group", "Price", "Net price"]
    region("East & West", both, end + 3, raw, (0, 1, 2, 4, 5), 18, spoil_west)
    book.close()

    expected.annotations.append({"stage": "after_mapping", "price_lists": 4, "incomplete_tables": 0})
    expected.write(example, ["prices_2026.xlsx"])


# --- first_package --------------------------------------------------------------------------------------------------


def first_package() -> None:
    """One small form, and what each stage of the walk-through makes of it."""
    form: list[list[Cell]] = [
        ["e.g. Jane Doe", "jane@example.org", "35.00", "Single"],
        ["Ada Kowalski", "ada@example.org", 35, "Single"],
        ["Bruno Dupont", "bruno@example.org", "£35.00", "Double"],
        ["Carla Jansen", "carla.example.org", "35", "Double"],
        ["Dmitri Hollis", "dmitri@example.org", "£ 17.50", "Single"],
        ["Elena Rossi", None, 35, "Four"],
        ["Farid Tanaka", "farid@example.org", None, "Four"],
        ["Greta Novák", "greta@example.org", "£ 35", "Four"],
    ]
    fees: list[Cell] = [35, 35, 35, 35, 17.5, 35, None, 35]
    headers = ["Who", "Reach at", "Fee paid", "Boat"]

    stages = ("1_synonyms", "2_detector", "3_transform", "4_validator", "5_row_detector", "6_hook")
    for stage, name in enumerate(stages, start=1):
        finds_addresses, reads_fees, checks, skips_the_example = stage >= 2, stage >= 3, stage >= 4, stage >= 5
        unmapped = ["raw_Boat"] if finds_addresses else ["raw_Reach_at", "raw_Boat"]
        expected = Expected("Normalized", ["Name", "E-mail", "Fee", *unmapped])
        example = example_of(f"first_package/{name}", "signups")
        book = new_workbook(example / "signups.xlsx")
        sheet = book.add_worksheet("Sign-ups")
        bold = book.add_format({"bold": True})
        sheet.write_string(0, 0, "Summer course: sign-ups", bold)
        for column, header in enumerate(headers):
            sheet.write_string(2, column, header, bold)
        for at, row in enumerate(form, start=3):
            for column, value in enumerate(row):
                put(sheet, book, at, column, value)
        sheet.write_string(3 + len(form), 0, "Total", bold)
        sheet.write_number(3 + len(form), 2, 192.5, bold)
        sheet.set_column(0, 3, 20)
        book.close()

        for (who, reach_at, paid, boat), fee in zip(form, fees):
            if skips_the_example and str(who).startswith("e.g."):
                continue
            paid = fee if reads_fees else paid
            expected.rows.append([who, reach_at, paid, boat] if finds_addresses else [who, None, paid, reach_at, boat])
        if checks:
            expected.issue("email", "required_missing")
            expected.issue("email", "invalid_format")
        email = "email" if finds_addresses else None
        mapping = list(zip(headers, ("name", email, "fee", None)))
        first = 3
        expected.table("signups.xlsx", "Sign-ups", f"A{first}:D{first + len(form)}", mapping)
        if stage == len(stages):
            expected.annotations.append({"stage": "on_job_end", "ready": False, "sign_ups": 7, "to_check": 2})
        expected.write(example, ["signups.xlsx"])


def main() -> None:
    """Writes all of them."""
    first_package()
    membership()
    invoices()
    price_list()


if __name__ == "__main__":
    main()
