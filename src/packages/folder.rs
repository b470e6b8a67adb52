//! Reading a package from a folder.

use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::path::Path;

use super::caps::PackageCaps;
use super::collector::{Collector, too_many_entries};
use super::entry::{left_out, safe_path, unsafe_entry, within_caps};
use super::error::PackageError;

/// Collects the files under `root`. Links are never followed, and special files never opened.
pub(super) fn read(root: &Path, caps: &PackageCaps) -> Result<Collector, PackageError> {
    let mut walk = Walk { root, caps, entries: 0, collector: Collector::new(caps) };
    walk.folder("")?;
    Ok(walk.collector)
}

struct Walk<'a> {
    root: &'a Path,
    caps: &'a PackageCaps,
    entries: usize,
    collector: Collector,
}

impl Walk<'_> {
    /// Reads one folder, by its path relative to the root. The depth is bounded by the cap, checked on the way down.
    fn folder(&mut self, relative: &str) -> Result<(), PackageError> {
        let mut paths = Vec::new();
        let directory = self.root.join(relative);
        let unreadable = |source| PackageError::Unreadable { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let mut raw = relative.as_bytes().to_vec();
            if !raw.is_empty() {
                raw.push(b'/');
            }
            raw.extend(name.as_encoded_bytes());
            let path = safe_path(&raw)?;
            if left_out(path) {
                continue;
            }
            self.entries += 1;
            if self.entries > self.caps.entries {
                return Err(too_many_entries(&format!("more than {}", self.caps.entries), self.caps));
            }
            paths.push(path.to_owned());
        }
        // The order that a file system lists its files in must not decide which error is reported.
        paths.sort_unstable();
        for path in paths {
            self.entry(&path)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str) -> Result<(), PackageError> {
        let location = self.root.join(path);
        let metadata = fs::symlink_metadata(&location)
            .map_err(|source| PackageError::Unreadable { path: location.clone(), source })?;
        let kind = metadata.file_type();
        if kind.is_symlink() {
            Err(unsafe_entry(path, "is a symbolic link", "Put the file itself into the package."))
        } else if kind.is_dir() {
            within_caps(path, self.caps)?;
            self.folder(path)
        } else if kind.is_file() {
            self.file(path, &location, &metadata)
        } else {
            Err(unsafe_entry(path, "is neither a file nor a folder", "Leave it out."))
        }
    }

    fn file(&mut self, path: &str, location: &Path, before: &Metadata) -> Result<(), PackageError> {
        self.collector.admit(path, before.len())?;
        let unreadable = |source| PackageError::Unreadable { path: location.to_owned(), source };
        let file = File::open(location).map_err(unreadable)?;
        let opened = file.metadata().map_err(unreadable)?;
        if !is_same_file(before, &opened) {
            return Err(unsafe_entry(
                path,
                "was replaced while it was read",
                "Try again when nothing writes to the folder.",
            ));
        }
        let mut contents = Vec::with_capacity(usize::try_from(before.len()).unwrap_or_default());
        // One byte past the cap shows that a file has grown since its size was checked.
        file.take(self.collector.room() + 1).read_to_end(&mut contents).map_err(unreadable)?;
        self.collector.add(path, contents)
    }
}

/// Whether the opened file is the one that was looked at, and not a link or another file put in its place.
#[cfg(unix)]
fn is_same_file(before: &Metadata, opened: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    opened.is_file() && before.dev() == opened.dev() && before.ino() == opened.ino()
}

/// Whether the opened file still is a plain file; this platform has no stable identity to compare.
#[cfg(not(unix))]
fn is_same_file(_before: &Metadata, opened: &Metadata) -> bool {
    opened.is_file()
}
