//! A config package in memory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::caps::{MAX_MANIFEST_BYTES, PackageCaps};
use super::collector::Collector;
use super::error::{PackageError, bytes};
use super::text::quoted;
use super::{archive, canonical, folder, json};

/// The one file that every package has, at its root.
pub const MANIFEST: &str = "manifest.json";

/// The folder of a package's examples: inputs and the results that are expected of them. Part of the package, but no job gets it.
pub const EXAMPLES: &str = "examples";

/// A config package, read whole: safe paths, bounded contents, and the hash that identifies it. Never changes.
pub struct Package {
    files: BTreeMap<String, Box<[u8]>>,
    unpacked_bytes: u64,
    sha256: String,
}

impl Package {
    /// Reads the package at `path`, a folder or a zip (told apart by content). Blocks on the file system; writes nothing.
    ///
    /// Dotfiles, dot-directories and `__pycache__` are left out, so that a folder and a zip of it are the same package.
    ///
    /// # Errors
    /// A [`PackageError`] when nothing is there, it is not a package, or it is unsafe or past `caps`.
    pub fn open(path: &Path, caps: &PackageCaps) -> Result<Self, PackageError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => PackageError::NotFound { path: path.to_owned() },
            _ => PackageError::Unreadable { path: path.to_owned(), source },
        })?;
        let files = if metadata.is_dir() {
            folder::read(path, caps)?
        } else if metadata.is_file() {
            archive::read(path, caps)?
        } else {
            return Err(PackageError::NotAZip { path: path.to_owned(), found: "a device, pipe or socket" });
        };
        Self::from_files(files)
    }

    /// The package of files that were collected within the caps.
    pub(super) fn from_files(collected: Collector) -> Result<Self, PackageError> {
        let Collector { files, unpacked_bytes, .. } = collected;
        if !files.contains_key(MANIFEST) {
            return Err(PackageError::NoManifest { hint: where_is_the_manifest(&files) });
        }
        let sha256 = canonical::zip_sha256(contents(&files)).map_err(|_| PackageError::TooLarge {
            what: "The package".to_owned(),
            amount: format!("has {} files of {} in all", files.len(), bytes(unpacked_bytes)),
            limit: "65535 files and 4096 MiB".to_owned(),
            way_out: "Leave out what the scripts do not read.",
        })?;
        Ok(Self { files, unpacked_bytes, sha256 })
    }

    /// Every file's path and contents, sorted by the bytes of the path.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
        contents(&self.files)
    }

    /// Every file that a job gets, sorted: all but the examples.
    pub fn job_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files().filter(|(path, _)| !is_example(path))
    }

    /// Every file below `examples/`, sorted.
    pub fn example_files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files().filter(|(path, _)| is_example(path))
    }

    /// The contents of one file.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|contents| &**contents)
    }

    /// The sum of all files' sizes, in bytes.
    #[must_use]
    pub fn unpacked_bytes(&self) -> u64 {
        self.unpacked_bytes
    }

    /// The sha256 of the canonical zip, in lower-case hexadecimal: the same for a folder and any zip of it.
    #[must_use]
    pub fn package_sha256(&self) -> &str {
        &self.sha256
    }

    /// The sha256 of `manifest.json` as canonical JSON, in lower-case hexadecimal; `None` when it is not valid JSON, or too large.
    /// Spacing and the order of keys do not count; spelling does: an alias is another manifest.
    #[must_use]
    pub fn manifest_sha256(&self) -> Option<String> {
        let bytes = self.manifest();
        if bytes.len() > MAX_MANIFEST_BYTES {
            return None;
        }
        let document = json::parse(bytes).ok()?;
        Some(canonical::sha256(json::canonical(&document.value).as_bytes()))
    }

    /// `manifest.json` as it is.
    #[must_use]
    pub fn manifest(&self) -> &[u8] {
        self.file(MANIFEST).unwrap_or_default()
    }

    /// The canonical zip, the bytes that [`package_sha256`](Self::package_sha256) is the hash of.
    ///
    /// # Errors
    /// `InvalidInput` past the sizes of a plain zip, far beyond what a package may have.
    pub fn canonical_zip(&self) -> io::Result<Vec<u8>> {
        canonical::zip(self.files())
    }
}

impl std::fmt::Debug for Package {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Package")
            .field("sha256", &self.sha256)
            .field("files", &self.files.len())
            .field("unpacked_bytes", &self.unpacked_bytes)
            .finish()
    }
}

fn is_example(path: &str) -> bool {
    path.strip_prefix(EXAMPLES).is_some_and(|rest| rest.starts_with('/'))
}

pub(super) fn contents(files: &BTreeMap<String, Box<[u8]>>) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
    files.iter().map(|(path, contents)| (path.as_str(), &**contents))
}

/// What to tell somebody whose package has no manifest at its root.
fn where_is_the_manifest(files: &BTreeMap<String, Box<[u8]>>) -> String {
    if let Some(other) = files.keys().find(|path| path.eq_ignore_ascii_case(MANIFEST)) {
        return format!("Rename {other:?} to manifest.json.");
    }
    let inner = files.keys().filter_map(|path| path.strip_suffix("/manifest.json")).min_by_key(|folder| folder.len());
    match inner {
        Some(folder) => format!(
            "There is one in {}: give that folder, or zip its contents rather than the folder itself.",
            quoted(folder)
        ),
        None if files.is_empty() => "The package is empty.".to_owned(),
        None => "See docs/developers/manifest.md for what goes into it.".to_owned(),
    }
}
