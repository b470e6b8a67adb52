//! Inputs as people have them: the wrong file, the broken file, the file that is not what its name says. What cannot be
//! read fails with a stable kind and exit code 2, names the file, and leaves no workbook; what can be read is read.

use crate::records::{artifact, diagnostic, package_at, project, runner_fixture, uploads};
use crate::support::zips::{Entry, archive, workbook};
use crate::support::{Package, Run, Running, Upload, World, run};
use crate::workbook;
use std::fmt::Write as _;
use std::time::Duration;

/// A worksheet around its rows.
const BEFORE: &str =
    r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>"#;
const AFTER: &str = "</sheetData></worksheet>";

fn roster() -> Vec<u8> {
    std::fs::read(project().join("docs/examples/membership/examples/roster/roster.xlsx")).unwrap()
}

/// A workbook with the rows of this XML.
fn rows(xml: &str) -> Vec<u8> {
    workbook(&format!("{BEFORE}{xml}{AFTER}"), 0, "")
}

/// A workbook with these rows of texts.
fn table(lines: &[&[&str]]) -> Vec<u8> {
    let mut xml = String::new();
    for row in lines {
        xml.push_str("<row>");
        for cell in *row {
            write!(xml, r#"<c t="inlineStr"><is><t>{cell}</t></is></c>"#).unwrap();
        }
        xml.push_str("</row>");
    }
    rows(&xml)
}

/// An OLE2 compound file that has nothing but a directory with these streams ([MS-CFB]): what a program sees that asks
/// what kind of document it is.
fn compound_file(streams: &[&str]) -> Vec<u8> {
    const FREE: u32 = 0xFFFF_FFFF;
    const END: u32 = 0xFFFF_FFFE;
    const TABLE: u32 = 0xFFFF_FFFD;
    let mut file = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec();
    file.resize(24, 0);
    for field in [0x3E_u16, 3, 0xFFFE, 9, 6] {
        file.extend(field.to_le_bytes());
    }
    file.resize(44, 0);
    // One sector of the allocation table, the directory in sector 1, streams from 4,096 bytes on in sectors of their own.
    for field in [1_u32, 1, 0, 4096, END, 0, END, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    file.resize(512, 0xFF);
    let allocation = [TABLE, END].into_iter().chain(std::iter::repeat(FREE)).take(128);
    file.extend(allocation.flat_map(u32::to_le_bytes));
    for (name, kind) in [("Root Entry", 5)].into_iter().chain(streams.iter().map(|name| (*name, 2_u8))) {
        let mut entry: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(entry.len() + 2).unwrap();
        entry.resize(64, 0);
        entry.extend(length.to_le_bytes());
        entry.extend([kind, 1]);
        entry.extend([FREE; 3].map(u32::to_le_bytes).concat());
        entry.resize(116, 0);
        entry.extend(END.to_le_bytes());
        entry.resize(128, 0);
        file.extend(entry);
    }
    file.resize(512 * 3, 0);
    file
}

/// A workbook whose list of sheets is empty.
fn without_sheets() -> Vec<u8> {
    const TYPES: &str = r#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/></Types>"#;
    const RELATIONS: &str = r#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
    const BOOK: &str = r#"<?xml version="1.0"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheets/></workbook>"#;
    archive(&[
        Entry::file("[Content_Types].xml", TYPES),
        Entry::file("_rels/.rels", RELATIONS),
        Entry::file("xl/workbook.xml", BOOK),
    ])
}

/// Asserts that a job failed over an input, said which, and left its record but no workbook.
#[track_caller]
fn assert_refused(run: &Run, kind: &str, name: &str) {
    run.assert_failed(kind, &[name]);
    assert_eq!((run.status(), run.code), ("failed", Some(2)), "{name}");
    assert!(artifact(run)["job"]["completed_at"].is_string(), "{name}");
    assert!(!run.out.join("normalized.xlsx").exists(), "{name}");
    let mut left: Vec<_> = std::fs::read_dir(&run.out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["artifact.json", "events.ndjson", "run-request.json"], "{name}");
}

#[test]
fn a_file_that_is_no_workbook_is_called_what_it_is() {
    let noise: Vec<u8> = (1..4000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    for (name, content, looks) in [
        ("statement.xlsx", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n".to_vec(), "PDF"),
        ("scan.xlsx", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "PNG"),
        ("noise.xlsx", noise, "binary data"),
        ("export.xls", b"<html><body><table><tr><td>Name</td></tr></table></body></html>".to_vec(), "HTML"),
        ("letter.xls", compound_file(&["WordDocument"]), "Word document"),
        ("files.xlsx", archive(&[Entry::file("readme.txt", "hello")]), "zip archive without a workbook"),
    ] {
        let run = run(&Package::new(), &[Upload::new(name, content)], &[]);
        assert_refused(&run, "input_not_workbook", name);
        assert!(run.message().contains(looks), "{name}: {}", run.message());
    }
}

#[test]
fn a_protected_a_truncated_and_an_empty_workbook_are_told_apart() {
    let roster = roster();
    let mut damaged = runner_fixture("sample.ods");
    damaged[4200..4400].fill(0x5a); // in the middle of content.xml
    for (name, content, kind) in [
        ("secret.xlsx", compound_file(&["EncryptionInfo", "EncryptedPackage"]), "input_encrypted"),
        ("half.xlsx", roster[..roster.len() / 2].to_vec(), "input_corrupt"),
        ("head.xlsx", roster[..100].to_vec(), "input_corrupt"),
        ("half.xls", runner_fixture("sample.xls")[..3000].to_vec(), "input_corrupt"),
        ("damaged.ods", damaged, "input_corrupt"),
        ("no sheets.xlsx", without_sheets(), "input_no_sheets"),
    ] {
        assert_refused(&run(&Package::new(), &[Upload::new(name, content)], &[]), kind, name);
    }
    // No cell in any input: there is no single one to name.
    for content in [table(&[]), rows(r#"<row r="5"><c r="B5"/></row>"#), b"\n\n,,\n".to_vec()] {
        let run = run(&Package::new(), &[Upload::new("blank", content)], &[]);
        assert_refused(&run, "input_no_data", "no cell of any input holds a value");
    }
}

#[test]
fn a_text_file_in_no_encoding_is_refused_with_the_reason() {
    for (name, content, reason) in [
        ("mixed.csv", b"Name\nJos\xe9\n\x81\x8d\n".as_slice(), "neither valid UTF-8 nor Windows-1252"),
        ("nul.csv", b"Name\nAda\0Lovelace\n", "NUL"),
        ("wide.csv", b"N\0a\0m\0e\0\n\0A\0d\0a\0\n\0", "UTF-16 without a byte order mark"),
        ("cut.csv", b"\xff\xfeN\0a\0m\0e\0\n\0A", "utf-16"),
    ] {
        let run = run(&Package::new(), &[Upload::new(name, content)], &[]);
        assert_refused(&run, "input_bad_encoding", name);
        assert!(run.message().contains(reason), "{name}: {}", run.message());
    }
}

#[test]
fn what_is_too_wide_or_too_long_names_the_limit() {
    let header = |columns: usize| (1..=columns).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let text = |columns: usize| format!("{0}\n{0}\n", header(columns).join(","));
    let names = header(16_384);
    let row: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, content) in [
        ("widest.xlsx", table(&[&row, &row])),
        ("widest.csv", text(16_384).into_bytes()),
        ("wider than a sheet.csv", text(16_385).into_bytes()),
    ] {
        assert_refused(&run(&Package::new(), &[Upload::new(name, content)], &[]), "input_too_wide", name);
    }
    let run = run(&Package::new(), &[Upload::csv(&text(2048))], &["--memory-mb", "1024"]);
    run.assert_succeeded();
    assert_eq!(run.json["summary"]["columns_written"], 2049, "2,048 columns as they are, and an empty field");
}

#[test]
fn a_huge_cell_in_a_small_file_is_refused_in_little_time_and_memory() {
    let head = format!(r#"{BEFORE}<row r="1"><c r="A1" t="inlineStr"><is><t>x"#);
    let tail = format!("</t></is></c></row>{AFTER}");
    // Above 100 MiB, what unpacks to more than 1,000 times its size is a bomb; below, the cell itself is too large.
    for (name, blanks, kind) in
        [("long.xlsx", 90 << 20, "input_cell_too_large"), ("endless.xlsx", 1 << 30, "input_zip_bomb")]
    {
        let content = workbook(&head, blanks, &tail);
        assert!(content.len() < 2 << 20, "{} bytes", content.len());
        let run = run(&Package::new(), &[Upload::new(name, content)], &["--memory-mb", "64"]);
        assert_refused(&run, kind, name);
        assert!(run.elapsed < Duration::from_secs(20), "{:?}", run.elapsed);
    }
    let text = format!("Name\n\"{}\n", "x".repeat(3 << 20));
    let open = run(&Package::new(), &[Upload::new("open quote.csv", text)], &[]);
    assert_refused(&open, "input_cell_too_large", "open quote.csv");
}

#[test]
fn a_missing_an_empty_and_a_folder_input_stop_the_job_before_any_container() {
    for (kind, prepare) in [
        ("input_missing", (|path| std::fs::remove_file(path).unwrap()) as fn(&std::path::Path)),
        ("input_missing", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("input_empty", |path| std::fs::write(path, "").unwrap()),
    ] {
        let world = World::new(&Package::new(), &[Upload::names(), Upload::new("other.csv", "Name\nAda\n")]);
        prepare(&world.inputs[1]);
        // Docker is not even asked: a wrong address does not matter.
        let run = Running::start(world, &["--docker-host", "unix:///nonexistent/docker.sock"], |_| {}).wait_unchecked();
        run.assert_failed(kind, &["other.csv"]);
        assert_eq!((run.code, run.job_id()), (Some(2), None), "{kind}");
        assert!(!run.out.exists(), "{kind}: nothing was written");
    }
}

#[test]
fn one_bad_input_among_good_ones_fails_the_job_and_is_named() {
    let good = Upload::new("good.csv", "Name\nAda\n");
    let bad = Upload::new("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    for inputs in [[good.clone(), bad.clone()], [bad, good]] {
        let run = run(&Package::new(), &inputs, &[]);
        assert_refused(&run, "input_not_workbook", "picture.csv");
        assert!(!run.message().contains("good.csv"), "{}", run.message());
    }
}

#[test]
fn contents_decide_and_endings_do_not() {
    let membership = package_at(&project().join("docs/examples/membership"));
    for name in ["roster.csv", "roster.pdf", "roster"] {
        let run = run(&membership, &[Upload::new(name, roster())], &[]);
        run.assert_succeeded();
        assert_eq!(artifact(&run)["inputs"][0]["format"], "xlsx", "{name}");
        assert_eq!(run.json["summary"]["rows_written"], 152, "{name}");
    }
    let text = run(&Package::new(), &[Upload::new("table.xlsx", "Name\tCity\nAda\tLondon\n")], &[]);
    text.assert_succeeded();
    let input = &artifact(&text)["inputs"][0];
    assert_eq!(
        (&input["format"], &input["delimiter"], &input["encoding"]),
        (&"tsv".into(), &"\t".into(), &"utf-8".into())
    );
    assert_eq!(workbook::read(&text).column("Name"), ["Ada"]);
}

#[test]
fn older_and_open_formats_give_the_same_rows() {
    let mut outputs = Vec::new();
    for name in ["sample.xls", "sample.ods"] {
        let run = run(&Package::new(), &[Upload::new(name, runner_fixture(name))], &[]);
        run.assert_succeeded();
        assert_eq!(artifact(&run)["inputs"][0]["format"], name.rsplit_once('.').unwrap().1);
        assert_eq!(artifact(&run)["sheets"][1]["visibility"], "hidden", "{name}");
        let sheet = workbook::read(&run);
        assert!(sheet.rows.len() > 1, "{name}: {} rows", sheet.rows.len());
        // The converter wrote booleans of formulas as numbers into the one and as booleans into the other.
        let columns = sheet.headers.iter().filter(|header| *header != "raw_Flag");
        outputs.push(columns.map(|header| (header.clone(), sheet.column(header))).collect::<Vec<_>>());
    }
    assert_eq!(outputs[0], outputs[1]);
}

#[test]
fn names_of_files_may_hold_spaces_quotes_and_any_script() {
    for name in ["my roster (final).csv", "mitgliederliste übersicht — 名簿.csv", "it's \"quoted\".csv"] {
        let run = run(&Package::new(), &[Upload::new(name, "Name\nAda\n")], &[]);
        run.assert_succeeded();
        assert_eq!(artifact(&run)["inputs"][0]["name"], name);
        assert_eq!(artifact(&run)["job"]["source_file"], name);
        assert_eq!(workbook::read(&run).column("Name"), ["Ada"]);
    }
}

#[test]
fn little_is_still_a_result_with_a_remark() {
    let only_header = run(&Package::new(), &[Upload::new("header.xlsx", table(&[&["Name", "City"]]))], &[]);
    only_header.assert_succeeded();
    assert_eq!(only_header.json["summary"]["rows_written"], 0);
    assert_eq!(diagnostic(&only_header, "structure.no_rows")["count"], 1);
    assert_eq!(workbook::read(&only_header).headers[0], "Name");

    let no_header = "1,2.5,3\n4,5.5,6\n7,8.5,9\n";
    let run = run(&Package::new(), &[Upload::csv(no_header)], &[]);
    run.assert_succeeded();
    assert_eq!(run.json["summary"]["rows_written"], 3);
    assert_eq!(diagnostic(&run, "structure.no_header")["count"], 1);
    let sheet = workbook::read(&run);
    assert_eq!(sheet.headers, ["Name", "raw_column_1", "raw_column_2", "raw_column_3"]);
    assert_eq!(sheet.column("raw_column_3"), ["3", "6", "9"]);
}

#[test]
fn several_inputs_become_one_output_in_the_order_they_were_given() {
    let package = package_at(&project().join("tests/fixtures/packages/contacts"));
    let samples = project().join("tests/fixtures/samples");
    let both = uploads(&[samples.join("csv_bom/people.csv"), samples.join("sparse_rows/gaps.xlsx")]);
    let rows = |inputs: &[Upload]| {
        let run = run(&package, inputs, &[]);
        run.assert_succeeded();
        workbook::read(&run).column("Name")
    };
    let (first, second) = (rows(&both[..1]), rows(&both[1..]));
    assert_eq!(rows(&both), [first.clone(), second.clone()].concat());
    assert_eq!(rows(&[both[1].clone(), both[0].clone()]), [second, first].concat());
}
