//! Files that are to become a package, put together one by one, under the rules that zips and folders have.

use super::canonical;
use super::caps::PackageCaps;
use super::collector::{Collector, too_many_entries};
use super::entry::{left_out, safe_path, unsafe_entry, within_caps};
use super::error::PackageError;
use super::package::{Package, contents};
use std::io::{self, Write};

/// Files that are to become a package.
pub struct Files(Collector);

impl Files {
    /// No files yet, and caps for those that come.
    #[must_use]
    pub fn new(caps: &PackageCaps) -> Self {
        Self(Collector::new(caps))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// As [`file_path`], `package_entry_conflict` and `package_too_large`.
    pub fn add(&mut self, path: &str, contents: Vec<u8>) -> Result<(), PackageError> {
        self.0.admit(file_path(path)?, contents.len() as u64)?;
        self.0.add(path, contents)
    }

    /// Writes them as a canonical zip, whether or not they are a package.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_canonical_zip(&self, out: impl Write) -> io::Result<()> {
        canonical::write_zip(contents(&self.0.files), out)
    }

    /// The package that they are.
    ///
    /// # Errors
    /// `package_no_manifest`.
    pub fn into_package(self) -> Result<Package, PackageError> {
        Package::from_files(self.0)
    }
}

/// Checks the path of a file as it stands in a package: safe, written in the one way, and not one that is left out.
///
/// # Errors
/// `package_entry_unsafe`.
pub fn file_path(path: &str) -> Result<&str, PackageError> {
    let safe = safe_path(path.as_bytes())?;
    if safe.is_empty() || safe != path {
        return Err(unsafe_entry(path, "is not written like the path of a file", "Write it like columns/email.py."));
    }
    if left_out(path) {
        let problem = "would be left out of the package, as dotfiles and __pycache__ are";
        return Err(unsafe_entry(path, problem, "Give it another name."));
    }
    Ok(path)
}

/// Checks whether files of these paths and sizes can be together in a package, without their contents.
///
/// # Errors
/// As [`Files::add`].
pub fn fit_together<'a>(
    files: impl IntoIterator<Item = (&'a str, u64)>,
    caps: &PackageCaps,
) -> Result<(), PackageError> {
    let mut collector = Collector::new(caps);
    for (count, (path, bytes)) in files.into_iter().enumerate() {
        if count >= caps.entries {
            return Err(too_many_entries(&format!("more than {}", caps.entries), caps));
        }
        within_caps(file_path(path)?, caps)?;
        collector.admit(path, bytes)?;
        collector.unpacked_bytes += bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "manifest.json";

    #[test]
    fn a04_only_paths_that_a_package_can_have_are_taken() {
        for path in ["manifest.json", "columns/email.py", "resources/straße ü.csv"] {
            assert_eq!(file_path(path).unwrap(), path);
        }
        for path in [
            "", "/", ".", "..", "../x", "a/../x", "/etc/passwd", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb", "C:/x",
            ".env", "columns/.x.py", "columns/__pycache__/a.pyc",
        ] {
            assert_eq!(file_path(path).unwrap_err().code(), "package_entry_unsafe", "{path:?}");
        }
    }

    #[test]
    fn files_that_cannot_be_together_are_refused_before_they_are_read() {
        let caps = PackageCaps { entries: 3, unpacked_bytes: 10, file_bytes: 8, ..PackageCaps::default() };
        let fit = |files: &[(&str, u64)]| fit_together(files.iter().copied(), &caps).map_err(|error| error.code());
        assert_eq!(fit(&[(MANIFEST, 5), ("a/b", 5)]), Ok(()));
        assert_eq!(fit(&[(MANIFEST, 5), ("a/b", 6)]), Err("package_too_large"));
        assert_eq!(fit(&[("a", 9)]), Err("package_too_large"));
        assert_eq!(fit(&[("a", 1), ("b", 1), ("c", 1), ("d", 1)]), Err("package_too_large"));
        assert_eq!(fit(&[("a", 1), ("A", 1)]), Err("package_entry_conflict"));
        assert_eq!(fit(&[("a", 1), ("a/b", 1)]), Err("package_entry_conflict"));
        assert_eq!(fit(&[("../a", 1)]), Err("package_entry_unsafe"));
    }

    #[test]
    fn files_become_the_package_that_a_zip_of_them_is() {
        let mut files = Files::new(&PackageCaps::default());
        files.add("columns/a.py", b"x = 1\n".to_vec()).unwrap();
        let mut zip = Vec::new();
        files.write_canonical_zip(&mut zip).unwrap();
        assert!(zip.starts_with(b"PK"), "a zip without a manifest is one too");
        files.add(MANIFEST, b"{}".to_vec()).unwrap();
        let mut zip = tempfile::NamedTempFile::new().unwrap();
        files.write_canonical_zip(&mut zip).unwrap();
        let read = Package::open(zip.path(), &PackageCaps::default()).unwrap();
        assert_eq!(files.into_package().unwrap().package_sha256(), read.package_sha256());
        assert_eq!(Files::new(&PackageCaps::default()).into_package().unwrap_err().code(), "package_no_manifest");
    }
}
