//! Reading a package from a zip.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use zip::CompressionMethod;
use zip::ZipArchive;

use super::caps::PackageCaps;
use super::collector::{Collector, too_many_entries};
use super::entry::{left_out, safe_path, unsafe_entry, within_caps};
use super::error::PackageError;
use super::text::{quoted, shown};

/// How many more central headers than the cap on entries the raw bytes of a zip may seem to hold. A zip that is stored
/// inside the package, such as a workbook in `resources/`, brings the headers of its own entries.
const HEADER_SLACK: usize = 10;

/// Collects the files of the zip at `path`.
pub(super) fn read(path: &Path, caps: &PackageCaps) -> Result<Collector, PackageError> {
    let unreadable = |source| PackageError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let zip_bytes = file.metadata().map_err(unreadable)?.len();
    let mut reader = BufReader::new(file);
    require_zip(path, &mut reader)?;
    if zip_bytes > caps.zip_bytes {
        return Err(PackageError::TooLarge {
            what: "The zip".to_owned(),
            amount: format!("has {}", super::error::bytes(zip_bytes)),
            limit: super::error::bytes(caps.zip_bytes),
            way_out: "Leave out what the scripts do not read.",
        });
    }
    // The library makes a record of some 500 bytes per header before it can be asked how many there are.
    if central_headers(&mut reader).map_err(unreadable)? > caps.entries.saturating_mul(HEADER_SLACK) {
        return Err(too_many_entries(&format!("more than {}", caps.entries), caps));
    }
    let mut archive = ZipArchive::new(reader).map_err(|error| corrupt(None, &error))?;
    if archive.len() > caps.entries {
        return Err(too_many_entries(&archive.len().to_string(), caps));
    }
    if archive.has_duplicate_names() {
        let start = archive.central_directory_start();
        return Err(duplicate(archive.into_inner(), start, caps));
    }
    let mut collector = Collector::new(caps);
    for index in 0..archive.len() {
        read_entry(&mut archive, index, zip_bytes, caps, &mut collector)?;
    }
    Ok(collector)
}

/// Refuses what does not begin like a zip: a local header, or the end record of an empty one.
fn require_zip(path: &Path, reader: &mut BufReader<File>) -> Result<(), PackageError> {
    let mut magic = Vec::with_capacity(4);
    reader
        .by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(|source| PackageError::Unreadable { path: path.to_owned(), source })?;
    let found = match magic.as_slice() {
        b"PK\x03\x04" | b"PK\x05\x06" => return Ok(()),
        [] => "an empty file",
        [0x1f, 0x8b, ..] => "a gzip file",
        b"7z\xbc\xaf" => "a 7-Zip file",
        b"Rar!" => "a RAR file",
        _ if path.file_name().is_some_and(|name| name == super::MANIFEST) => "a manifest alone",
        _ => "a file of another kind",
    };
    Err(PackageError::NotAZip { path: path.to_owned(), found })
}

/// Counts the byte sequences that could begin a central header: at least as many as the zip has entries.
fn central_headers(reader: &mut BufReader<File>) -> io::Result<usize> {
    const SIGNATURE: [u8; 4] = *b"PK\x01\x02";
    reader.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut kept = 0;
    let mut count = 0;
    loop {
        let read = reader.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(count);
        }
        let filled = kept + read;
        count += buffer[..filled].windows(SIGNATURE.len()).filter(|window| *window == SIGNATURE).count();
        // A signature may straddle two reads.
        kept = filled.min(SIGNATURE.len() - 1);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

fn read_entry(
    archive: &mut ZipArchive<BufReader<File>>,
    index: usize,
    zip_bytes: u64,
    caps: &PackageCaps,
    collector: &mut Collector,
) -> Result<(), PackageError> {
    let entry = archive.by_index_data(index).map_err(|error| corrupt(None, &error))?;
    let raw = entry.name_raw().to_vec();
    let path = safe_path(&raw)?;
    if path.is_empty() || left_out(path) {
        return Ok(());
    }
    if raw.ends_with(b"/") {
        return within_caps(path, caps);
    }
    require_regular(path, entry.unix_mode())?;
    require_readable(path, entry.encrypted(), entry.compression())?;
    let (declared, packed) = (entry.size(), entry.compressed_size());
    collector.admit(path, declared)?;
    let bomb = |what| PackageError::ZipBomb { what, limit: caps.ratio };
    let is_bomb = |unpacked: u64, packed: u64| {
        unpacked > PackageCaps::RATIO_FLOOR && unpacked > packed.saturating_mul(caps.ratio)
    };
    if is_bomb(declared, packed) {
        return Err(bomb(format!("The zip's entry {}", quoted(path))));
    }
    // Entries may overlap and so be packed once but unpacked many times: the file's own length is the honest measure.
    if is_bomb(collector.unpacked_bytes().saturating_add(declared), zip_bytes) {
        return Err(bomb("The zip".to_owned()));
    }

    let file = archive.by_index(index).map_err(|error| corrupt(Some(path), &error))?;
    let mut contents = Vec::with_capacity(usize::try_from(declared).unwrap_or_default());
    // One byte past what was declared is enough to see that the declaration lied.
    file.take(declared + 1).read_to_end(&mut contents).map_err(|error| corrupt(Some(path), &error))?;
    if contents.len() as u64 != declared {
        let held = if contents.len() as u64 > declared { "more" } else { "less" };
        return Err(corrupt(Some(path), &format!("its size is given as {declared} bytes, but it holds {held}")));
    }
    collector.add(path, contents)
}

/// Refuses links, devices, pipes and sockets. A mode without a type (as some tools write) is a plain file.
fn require_regular(path: &str, mode: Option<u32>) -> Result<(), PackageError> {
    const TYPE_MASK: u32 = 0o170_000;
    const REGULAR: u32 = 0o100_000;
    const SYMLINK: u32 = 0o120_000;
    match mode.unwrap_or_default() & TYPE_MASK {
        0 | REGULAR => Ok(()),
        SYMLINK => Err(unsafe_entry(path, "is a symbolic link", "Put the file itself into the package.")),
        _ => Err(unsafe_entry(path, "is neither a file nor a folder", "Leave it out.")),
    }
}

fn require_readable(path: &str, encrypted: bool, method: CompressionMethod) -> Result<(), PackageError> {
    let problem = match method {
        _ if encrypted => "is encrypted".to_owned(),
        CompressionMethod::Stored | CompressionMethod::Deflated => return Ok(()),
        other => format!("is packed by another method ({other})"),
    };
    Err(PackageError::EntryUnsupported { entry: shown(path), problem })
}

/// The error for a name that occurs twice. The library keeps the last of the two, so the directory is walked again.
fn duplicate(mut reader: BufReader<File>, start: u64, caps: &PackageCaps) -> PackageError {
    let name = first_repeated_name(&mut reader, start, caps.entries.saturating_mul(HEADER_SLACK)).ok().flatten();
    let shown = name.map_or_else(|| "a name".to_owned(), |raw| shown(&String::from_utf8_lossy(&raw)));
    PackageError::EntryConflict { first: shown.clone(), second: shown, problem: "two entries of one name" }
}

fn first_repeated_name(reader: &mut BufReader<File>, start: u64, most: usize) -> io::Result<Option<Vec<u8>>> {
    const FIXED: usize = 46;
    let mut names = HashSet::new();
    reader.seek(SeekFrom::Start(start))?;
    for _ in 0..most {
        let mut header = [0; FIXED];
        reader.read_exact(&mut header)?;
        if !header.starts_with(b"PK\x01\x02") {
            break;
        }
        let length = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let mut name = vec![0; usize::from(length(28))];
        reader.read_exact(&mut name)?;
        if names.contains(&name) {
            return Ok(Some(name));
        }
        names.insert(name);
        reader.seek_relative(i64::from(length(30)) + i64::from(length(32)))?;
    }
    Ok(None)
}

/// The error for something that does not fit together. The library's words are shown, bounded like all that may repeat
/// the zip's own text.
fn corrupt(entry: Option<&str>, detail: &impl ToString) -> PackageError {
    PackageError::ZipCorrupt { entry: entry.map(shown), detail: shown(&detail.to_string()) }
}
