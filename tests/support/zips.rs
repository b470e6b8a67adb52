//! Zip files byte by byte, as no library would write them.

use std::io::Write;

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name, any bytes.
    pub name: Vec<u8>,
    /// The content.
    pub content: Vec<u8>,
    /// Unix mode with the file type, such as `0o120777` for a symbolic link.
    pub mode: u32,
    /// The unpacked size that the headers claim, when it is a lie.
    pub claimed_size: Option<u32>,
}

impl Entry {
    /// A regular file.
    pub fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            content: content.as_ref().to_owned(),
            mode: 0o100_644,
            claimed_size: None,
        }
    }

    /// A symbolic link.
    pub fn symlink(name: &str, target: &str) -> Self {
        Self { mode: 0o120_777, ..Self::file(name, target) }
    }
}

/// A zip with these entries in this order, stored, names not looked at.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(out.len()).unwrap();
        let size = u32::try_from(entry.content.len()).unwrap();
        let mut common = Vec::new();
        let utf8: u16 = if entry.name.is_ascii() { 0 } else { 1 << 11 };
        for field in [20_u16, utf8, 0, 0, 33] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc32fast::hash(&entry.content), size, entry.claimed_size.unwrap_or(size)] {
            common.extend(field.to_le_bytes());
        }
        common.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(&entry.name);
        out.extend(&entry.content);
        directory.extend(b"PK\x01\x02");
        directory.extend(((3_u16 << 8) | 20).to_le_bytes());
        directory.extend(&common);
        for field in [0_u16, 0, 0] {
            directory.extend(field.to_le_bytes());
        }
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&entry.name);
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let start = u32::try_from(out.len()).unwrap().to_le_bytes();
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend([length, start].concat());
    out.extend([0, 0]);
    out
}

/// A zip whose entries are deflated; each is a name, a piece, and how often the piece is repeated.
pub fn deflated(entries: &[(&str, &[u8], usize)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(9));
    for (name, piece, times) in entries {
        zip.start_file(*name, options).unwrap();
        for _ in 0..*times {
            zip.write_all(piece).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

/// A workbook of one sheet, whose XML is `sheet` with `piece` repeated where it says `@`.
pub fn workbook(sheet: &str, piece: &[u8], times: usize) -> Vec<u8> {
    const TYPES: &[u8] = br#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>"#;
    const RELS: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
    const BOOK: &[u8] = br#"<?xml version="1.0"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
    const BOOK_RELS: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(9));
    for (name, content) in [
        ("[Content_Types].xml", TYPES),
        ("_rels/.rels", RELS),
        ("xl/workbook.xml", BOOK),
        ("xl/_rels/workbook.xml.rels", BOOK_RELS),
    ] {
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.start_file("xl/worksheets/sheet1.xml", options).unwrap();
    let (head, tail) = sheet.split_once('@').unwrap_or((sheet, ""));
    zip.write_all(head.as_bytes()).unwrap();
    for _ in 0..times {
        zip.write_all(piece).unwrap();
    }
    zip.write_all(tail.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner()
}
