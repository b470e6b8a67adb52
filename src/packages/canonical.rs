//! The canonical zip: the one byte sequence that a package's hash is taken of.
//!
//! It is written here byte by byte, and not by an archive library, because a published hash must never change: not with
//! a library's version, not with its choice of compression, not with the platform. The layout, in full:
//!
//! - Files only, sorted by the bytes of their UTF-8 path; then the central directory in the same order; no comment.
//! - Every file is *stored*. Version needed 2.0, made by Unix 2.0, flag bit 11 (UTF-8 name) set when the path is not
//!   ASCII and no other flag, no data descriptor, no extra field, time 1980-01-01 00:00:00, a regular file of mode 0644.
//! - No zip64: a package is far below 4 GiB and 65,535 entries.
//!
//! Python's `zipfile` writes the same bytes when told the same (`ZIP_STORED`, `create_system = 3`, mode 0644, the first
//! day of 1980), so that anybody can check a hash with the standard library alone.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

/// Version 2.0 of the format: folders and deflate.
const VERSION: u16 = 20;
/// Made by version 2.0 on Unix (3), so that the mode below counts.
const MADE_BY: u16 = (3 << 8) | VERSION;
/// The flag that says that a name is UTF-8; an ASCII name needs none.
const UTF8_NAME: u16 = 1 << 11;
/// 1980-01-01, the first day that a zip can say.
const DATE: u16 = (1 << 5) | 1;
/// A regular file, rw-r--r--, in the upper half as Unix tools expect.
const ATTRIBUTES: u32 = 0o100_644 << 16;

/// Writes the canonical zip of `files`, which must be sorted by path.
///
/// # Errors
/// What `out` says, and `InvalidInput` past the sizes of a zip without zip64.
pub(super) fn write_zip<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>, mut out: impl Write) -> io::Result<()> {
    let mut directory = Vec::new();
    let mut offset: u32 = 0;
    let mut entries: u16 = 0;
    for (path, bytes) in files {
        let size = u32::try_from(bytes.len()).map_err(|_| too_large())?;
        let name_length = u16::try_from(path.len()).map_err(|_| too_large())?;
        let flags = if path.is_ascii() { 0 } else { UTF8_NAME };
        // What the local header and the central one have in common.
        let mut common = Vec::with_capacity(26);
        for field in [VERSION, flags, 0, 0, DATE] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc32fast::hash(bytes), size, size] {
            common.extend(field.to_le_bytes());
        }
        common.extend(name_length.to_le_bytes());
        common.extend(0_u16.to_le_bytes()); // no extra field

        out.write_all(b"PK\x03\x04")?;
        out.write_all(&common)?;
        out.write_all(path.as_bytes())?;
        out.write_all(bytes)?;

        directory.extend(b"PK\x01\x02");
        directory.extend(MADE_BY.to_le_bytes());
        directory.extend(&common);
        directory.extend([0; 6]); // no comment, first disk, no internal attributes
        directory.extend(ATTRIBUTES.to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(path.as_bytes());

        offset = (4 + 26_u32)
            .checked_add(u32::from(name_length))
            .and_then(|length| length.checked_add(size))
            .and_then(|length| offset.checked_add(length))
            .ok_or_else(too_large)?;
        entries = entries.checked_add(1).ok_or_else(too_large)?;
    }
    let directory_length = u32::try_from(directory.len()).map_err(|_| too_large())?;
    out.write_all(&directory)?;
    out.write_all(b"PK\x05\x06\0\0\0\0")?;
    out.write_all(&entries.to_le_bytes())?;
    out.write_all(&entries.to_le_bytes())?;
    out.write_all(&directory_length.to_le_bytes())?;
    out.write_all(&offset.to_le_bytes())?;
    out.write_all(&[0, 0])?;
    out.flush()
}

/// The canonical zip of `files`, which must be sorted by path, in memory that it fills.
///
/// # Errors
/// As [`write_zip`].
pub(super) fn zip<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])> + Clone) -> io::Result<Vec<u8>> {
    // A name is in both headers.
    let bytes = files.clone().map(|(path, bytes)| 30 + 46 + 2 * path.len() + bytes.len()).sum::<usize>() + 22;
    let mut zip = Vec::with_capacity(bytes);
    write_zip(files, &mut zip)?;
    Ok(zip)
}

/// The sha256 of the canonical zip of `files`, in lower-case hexadecimal.
pub(super) fn zip_sha256<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<String> {
    let mut hasher = Sha256::new();
    write_zip(files, &mut hasher)?;
    Ok(hex(&hasher.finalize()))
}

/// The sha256 of `bytes`, in lower-case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the package is beyond what a plain zip can hold")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const FILES: [(&str, &[u8]); 3] =
        [("columns/a.py", b"x = 1\n"), ("manifest.json", b"{}"), ("resources/straße.csv", b"")];

    fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> + Clone {
        FILES.into_iter()
    }

    #[test]
    fn the_hash_of_a_package_never_changes() {
        // Frozen: this number is in artifacts and databases. It also is what Python's zipfile makes of the same rules.
        assert_eq!(zip_sha256(files()).unwrap(), "de336b0f897769ffb134c60d1ebecd94d14af5813034a5729f9c074df7b5a89d");
    }

    #[test]
    fn the_canonical_zip_is_a_zip_like_any_other() {
        let out = zip(files()).unwrap();
        assert_eq!(out.len(), out.capacity(), "the memory for it is neither more nor grows");
        let mut archive = zip::ZipArchive::new(io::Cursor::new(out)).unwrap();
        archive.validate_header_consistency().unwrap();
        assert_eq!(archive.len(), FILES.len());
        for (index, (path, bytes)) in FILES.iter().enumerate() {
            let mut entry = archive.by_index(index).unwrap();
            assert_eq!(entry.name().unwrap(), *path);
            assert_eq!(entry.unix_mode(), Some(0o100_644));
            assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            assert_eq!(&content, bytes);
        }
    }

    #[test]
    fn hexadecimal_is_lower_case_and_padded() {
        assert_eq!(hex(&[0x00, 0x0a, 0xff]), "000aff");
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
