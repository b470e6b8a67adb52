//! The benchmark's workbook: the rows of `benches/workbook.py`, ten columns of numbers, dates, texts and flags, six of which the
//! package of the benchmark maps.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const HEADERS: [&str; 10] = ["ID", "Name", "Email", "Joined", "Amount", "Qty", "City", "Code", "Flag", "Note"];
const CITIES: [&str; 3] = ["Oslo", "Paris", "Rome"];
/// Codes that there are.
const CODES: u64 = 997;
/// Names that there are: the least common multiple of what they are made of.
const NAMES: u64 = 5000 * 97;
/// 2020-01-01 as Excel counts days.
const FIRST_DAY: u64 = 43_831;

const CONTENT_TYPES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/><Override PartName="/xl/styles.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml"/><Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>"#;
const RELATIONS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
const WORKBOOK: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Data" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
const WORKBOOK_RELATIONS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles" Target="styles.xml"/><Relationship Id="rId3" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/sharedStrings" Target="sharedStrings.xml"/></Relationships>"#;
const STYLES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="1"><numFmt numFmtId="164" formatCode="yyyy\-mm\-dd"/></numFmts><fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border/></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="2"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs></styleSheet>"#;

/// Writes a workbook with so many rows below its header, texts as shared strings, as Excel writes them. Nothing of it is held in
/// memory: which text has which number can be calculated.
///
/// # Errors
/// What the disk says.
pub fn write(path: &Path, rows: u64) -> io::Result<()> {
    let mut zip = ZipWriter::new(BufWriter::new(File::create(path)?));
    // As fast as it compresses: its size is not what is measured.
    let options =
        SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).compression_level(Some(1));
    for (name, text) in [
        ("[Content_Types].xml", CONTENT_TYPES),
        ("_rels/.rels", RELATIONS),
        ("xl/workbook.xml", WORKBOOK),
        ("xl/_rels/workbook.xml.rels", WORKBOOK_RELATIONS),
        ("xl/styles.xml", STYLES),
    ] {
        zip.start_file(name, options).map_err(io::Error::from)?;
        zip.write_all(text.as_bytes())?;
    }
    zip.start_file("xl/worksheets/sheet1.xml", options.large_file(true)).map_err(io::Error::from)?;
    sheet(BufWriter::with_capacity(256 * 1024, &mut zip), rows)?;
    zip.start_file("xl/sharedStrings.xml", options.large_file(true)).map_err(io::Error::from)?;
    strings(BufWriter::with_capacity(256 * 1024, &mut zip), rows)?;
    zip.finish().map_err(io::Error::from)?.flush()
}

/// Where each kind of text begins in the shared strings.
struct Places {
    cities: u64,
    codes: u64,
    note: u64,
    names: u64,
    emails: u64,
    end: u64,
}

impl Places {
    fn of(rows: u64) -> Self {
        let cities = HEADERS.len() as u64;
        let codes = cities + CITIES.len() as u64;
        let note = codes + CODES;
        let names = note + 1;
        let emails = names + rows.min(NAMES);
        Self { cities, codes, note, names, emails, end: emails + rows }
    }
}

fn sheet(mut out: impl Write, rows: u64) -> io::Result<()> {
    let places = Places::of(rows);
    write!(
        out,
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:J{}"/><sheetData><row r="1">"#,
        rows + 1
    )?;
    for (at, column) in ('A'..='J').enumerate() {
        write!(out, r#"<c r="{column}1" t="s"><v>{at}</v></c>"#)?;
    }
    write!(out, "</row>")?;
    for i in 1..=rows {
        let row = i + 1;
        let (name, email) = (places.names + (i - 1) % NAMES, places.emails + i - 1);
        let (day, quantity, flag) = (FIRST_DAY + i % 1000, i % 17, u8::from(i.is_multiple_of(2)));
        let (city, code) = (places.cities + i % 3, places.codes + i % CODES);
        // 1.3742 times the number, without the tail of a binary fraction.
        let (whole, fraction) = (i * 13_742 / 10_000, i * 13_742 % 10_000);
        write!(
            out,
            r#"<row r="{row}"><c r="A{row}"><v>{i}</v></c><c r="B{row}" t="s"><v>{name}</v></c><c r="C{row}" t="s"><v>{email}</v></c><c r="D{row}" s="1"><v>{day}</v></c><c r="E{row}"><v>{whole}.{fraction:04}</v></c><c r="F{row}"><v>{quantity}</v></c><c r="G{row}" t="s"><v>{city}</v></c><c r="H{row}" t="s"><v>{code}</v></c><c r="I{row}" t="b"><v>{flag}</v></c>"#
        )?;
        if i.is_multiple_of(4) {
            write!(out, r#"<c r="J{row}" t="s"><v>{}</v></c>"#, places.note)?;
        }
        write!(out, "</row>")?;
    }
    write!(out, "</sheetData></worksheet>")?;
    out.flush()
}

fn strings(mut out: impl Write, rows: u64) -> io::Result<()> {
    let unique = Places::of(rows).end;
    let used = HEADERS.len() as u64 + 4 * rows + rows / 4;
    write!(
        out,
        r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" count="{used}" uniqueCount="{unique}">"#
    )?;
    for text in HEADERS.iter().chain(&CITIES) {
        write!(out, "<si><t>{text}</t></si>")?;
    }
    for code in 0..CODES {
        write!(out, "<si><t>C{code:05}</t></si>")?;
    }
    write!(out, "<si><t>n</t></si>")?;
    for i in 1..=rows.min(NAMES) {
        write!(out, "<si><t>person {} of {}</t></si>", i % 5000, i % 97)?;
    }
    for i in 1..=rows {
        write!(out, "<si><t>P{i}@example.com</t></si>")?;
    }
    write!(out, "</sst>")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use calamine::{Data, Reader, Xlsx, open_workbook};

    #[test]
    fn the_rows_are_those_of_the_script() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("book.xlsx");
        write(&path, 5_001).unwrap();
        let mut book: Xlsx<_> = open_workbook(&path).unwrap();
        let range = book.worksheet_range("Data").unwrap();
        assert_eq!(range.get_size(), (5_002, 10));
        let text = |row: u32, column: u32| range.get_value((row, column)).unwrap().to_string();
        let line = |row: u32| (0..10).map(|column| text(row, column)).collect::<Vec<_>>();
        assert_eq!(line(0), HEADERS);
        for (row, amount) in [(1_u32, "1.3742"), (4, "5.4968"), (5_000, "6871"), (5_001, "6872.3742")] {
            let mut cells = line(row);
            assert!(matches!(range.get_value((row, 3)).unwrap(), Data::DateTime(_)), "{cells:?}");
            cells.remove(3);
            let note = if row % 4 == 0 { "n" } else { "" };
            let expected = [
                row.to_string(),
                format!("person {} of {}", row % 5000, row % 97),
                format!("P{row}@example.com"),
                amount.to_owned(),
                (row % 17).to_string(),
                CITIES[row as usize % 3].to_owned(),
                format!("C{:05}", row % 997),
                (row % 2 == 0).to_string(),
                note.to_owned(),
            ];
            assert_eq!(cells, expected);
        }
    }
}
