//! Zip files byte by byte, as no library would write them.

/// One entry of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name, any bytes.
    pub name: Vec<u8>,
    /// Unix mode with the file type, such as `0o120777` for a symbolic link.
    pub mode: u32,
    /// The unpacked size that the headers claim.
    pub claimed_size: u32,
    /// The content as it stands in the archive.
    packed: Vec<u8>,
    /// 0 stored, 8 deflated.
    method: u16,
    crc: u32,
}

impl Entry {
    /// A regular file.
    pub fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        Self {
            name: name.as_ref().to_owned(),
            mode: 0o100_644,
            claimed_size: u32::try_from(content.len()).unwrap(),
            packed: content.to_owned(),
            method: 0,
            crc: crc32fast::hash(content),
        }
    }

    /// A symbolic link.
    pub fn symlink(name: &str, target: &str) -> Self {
        Self { mode: 0o120_777, ..Self::file(name, target) }
    }

    /// A regular file of `head`, then at least `blanks` spaces packed a thousand to one, then `tail`; made in no time,
    /// however large it is when unpacked.
    pub fn padded(name: &str, head: &[u8], blanks: usize, tail: &[u8]) -> Self {
        let matches = blanks.div_ceil(258);
        let blanks = 1 + 258 * matches;
        let mut packed = Vec::new();
        stored_blocks(&mut packed, head, false);
        packed.extend(spaces(matches));
        stored_blocks(&mut packed, tail, true);
        let mut crc = crc32fast::Hasher::new();
        crc.update(head);
        let block = vec![b' '; 1 << 20];
        let mut full = crc32fast::Hasher::new();
        full.update(&block);
        (0..blanks >> 20).for_each(|_| crc.combine(&full));
        crc.update(&block[..blanks & 0xf_ffff]);
        crc.update(tail);
        let size = u32::try_from(head.len() + blanks + tail.len()).unwrap();
        Self { packed, method: 8, crc: crc.finalize(), claimed_size: size, ..Self::file(name, "") }
    }
}

/// Stored blocks of a deflate stream (RFC 1951, 3.2.4), beginning at a whole byte; there is at least one.
fn stored_blocks(out: &mut Vec<u8>, data: &[u8], last: bool) {
    let mut pieces: Vec<&[u8]> = data.chunks(0xffff).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    for (index, piece) in pieces.iter().enumerate() {
        let length = u16::try_from(piece.len()).unwrap();
        out.push(u8::from(last && index + 1 == pieces.len()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(*piece);
    }
}

/// One block of a deflate stream (RFC 1951, 3.2.7): a space, then `matches` times 258 more of them at two bits each; then
/// an empty stored block, so that it ends at a whole byte.
fn spaces(matches: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.number(0, 1); // not the last block
    bits.number(2, 2); // own codes
    bits.number(29, 5); // 286 codes of literals and lengths
    bits.number(0, 5); // one code of a distance
    bits.number(14, 4); // 18 lengths of the codes that tell lengths: only 18, 2 and 1 are used
    for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        bits.number(length, 3);
    }
    let (skip, one, two): (&[u8], &[u8], &[u8]) = (&[0], &[1, 0], &[1, 1]);
    let zeros = |bits: &mut Bits, count: u32| {
        bits.code(skip);
        bits.number(count - 11, 7);
    };
    zeros(&mut bits, 32);
    bits.code(two); // the space
    zeros(&mut bits, 138);
    zeros(&mut bits, 85);
    bits.code(two); // the end of the block
    zeros(&mut bits, 28);
    bits.code(one); // a length of 258
    bits.code(one); // a distance of 1
    bits.code(&[1, 0]);
    for _ in 0..matches {
        bits.code(&[0, 0]);
    }
    bits.code(&[1, 1]);
    bits.number(0, 3);
    let mut bytes = bits.bytes;
    bytes.extend([0, 0, 0xff, 0xff]);
    bytes
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, bit: u8) {
        if self.used.is_multiple_of(8) {
            self.bytes.push(0);
        }
        *self.bytes.last_mut().unwrap() |= bit << (self.used % 8);
        self.used += 1;
    }

    /// A number, its lowest bit first.
    fn number(&mut self, value: u32, width: u32) {
        (0..width).for_each(|bit| self.push(u8::from(value >> bit & 1 == 1)));
    }

    /// A code, its first bit first.
    fn code(&mut self, bits: &[u8]) {
        bits.iter().for_each(|bit| self.push(*bit));
    }
}

/// A zip with these entries in this order; nothing about them is looked at.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = u32::try_from(out.len()).unwrap();
        let mut common = Vec::new();
        let utf8: u16 = if entry.name.is_ascii() { 0 } else { 1 << 11 };
        for field in [20_u16, utf8, entry.method, 0, 33] {
            common.extend(field.to_le_bytes());
        }
        for field in [entry.crc, u32::try_from(entry.packed.len()).unwrap(), entry.claimed_size] {
            common.extend(field.to_le_bytes());
        }
        common.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(&entry.name);
        out.extend(&entry.packed);
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

/// A workbook of one sheet, whose XML is `head`, at least `blanks` spaces, and `tail`.
pub fn workbook(head: &str, blanks: usize, tail: &str) -> Vec<u8> {
    const TYPES: &str = r#"<?xml version="1.0"?><Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>"#;
    const RELS: &str = r#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
    const BOOK: &str = r#"<?xml version="1.0"?><workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>"#;
    const BOOK_RELS: &str = r#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#;
    archive(&[
        Entry::file("[Content_Types].xml", TYPES),
        Entry::file("_rels/.rels", RELS),
        Entry::file("xl/workbook.xml", BOOK),
        Entry::file("xl/_rels/workbook.xml.rels", BOOK_RELS),
        Entry::padded("xl/worksheets/sheet1.xml", head.as_bytes(), blanks, tail.as_bytes()),
    ])
}
