//! Collecting the files of a package, from a folder or a zip, under the caps.

use std::collections::BTreeMap;

use super::caps::PackageCaps;
use super::entry::{PathIndex, within_caps};
use super::error::{PackageError, bytes};
use super::text::quoted;

/// Takes the files of a package one by one and holds the caps while doing so.
pub(super) struct Collector {
    caps: PackageCaps,
    pub(super) files: BTreeMap<String, Box<[u8]>>,
    paths: PathIndex,
    pub(super) unpacked_bytes: u64,
}

impl Collector {
    pub(super) fn new(caps: &PackageCaps) -> Self {
        Self { caps: caps.clone(), files: BTreeMap::new(), paths: PathIndex::default(), unpacked_bytes: 0 }
    }

    /// Checks the path, and the size that the source declares, before anything is read.
    pub(super) fn admit(&mut self, path: &str, declared: u64) -> Result<(), PackageError> {
        within_caps(path, &self.caps)?;
        self.paths.add_file(path)?;
        self.fits(path, declared)
    }

    /// The most bytes that the next file may hold.
    pub(super) fn room(&self) -> u64 {
        self.caps.file_bytes.min(self.caps.unpacked_bytes.saturating_sub(self.unpacked_bytes))
    }

    /// Adds what was read for an admitted path.
    pub(super) fn add(&mut self, path: &str, contents: Vec<u8>) -> Result<(), PackageError> {
        let length = contents.len() as u64;
        self.fits(path, length)?;
        self.unpacked_bytes += length;
        self.files.insert(path.to_owned(), contents.into_boxed_slice());
        Ok(())
    }

    /// The bytes collected so far.
    pub(super) fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    fn fits(&self, path: &str, length: u64) -> Result<(), PackageError> {
        if length > self.caps.file_bytes {
            return Err(PackageError::TooLarge {
                what: format!("The file {}", quoted(path)),
                amount: format!("has {} or more", bytes(length)),
                limit: bytes(self.caps.file_bytes),
                way_out: "Split it, or leave it out.",
            });
        }
        let total = self.unpacked_bytes.saturating_add(length);
        if total > self.caps.unpacked_bytes {
            return Err(PackageError::TooLarge {
                what: "The package, unpacked,".to_owned(),
                amount: format!("has {} or more, counted up to {}", bytes(total), quoted(path)),
                limit: bytes(self.caps.unpacked_bytes),
                way_out: "Leave out what the scripts do not read.",
            });
        }
        Ok(())
    }
}

/// The error for more files and folders than `caps` allow.
pub(super) fn too_many_entries(found: &str, caps: &PackageCaps) -> PackageError {
    PackageError::TooLarge {
        what: "The package".to_owned(),
        amount: format!("has {found} files and folders"),
        limit: caps.entries.to_string(),
        way_out: "Leave out what the scripts do not read; put data into fewer files.",
    }
}
