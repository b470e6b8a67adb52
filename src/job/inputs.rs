//! The inputs of a job: found, measured and hashed before anything is started.

use crate::packages::Package;
use crate::sandbox::{Failure, FailureKind, InputFile, Limits, Source};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Inputs that one job may have.
pub const MAX_INPUTS: usize = 100;
/// Characters of a file name.
const MAX_NAME: usize = 255;

/// One input of a job.
#[derive(Debug, Clone, Serialize)]
pub struct Input {
    /// The document it came from; none when it is a file of the caller's.
    pub document_id: Option<String>,
    /// The user's file name; data, never a path.
    #[serde(rename = "filename")]
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Hash, lower-case hex.
    pub sha256: String,
    #[serde(skip)]
    path: PathBuf,
}

impl Input {
    /// Opens, measures and hashes a file. Blocking.
    ///
    /// # Errors
    /// `input_missing` when it is no readable regular file; `input_empty` when it has no bytes.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let missing = |what: &str| Failure::new(FailureKind::InputMissing, format!("input {}: {what}", path.display()));
        let metadata = std::fs::metadata(path).map_err(|error| missing(&error.to_string()))?;
        if !metadata.is_file() {
            return Err(missing("it is not a regular file; name the workbooks one by one"));
        }
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| missing("its name is not valid UTF-8; rename it"))?;
        if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(missing("its name is longer than 255 characters or has control characters; rename it"));
        }
        let mut file = File::open(path).map_err(|error| missing(&error.to_string()))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer).map_err(|error| missing(&error.to_string()))?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hash.update(&buffer[..read]);
        }
        if bytes == 0 {
            return Err(Failure::new(
                FailureKind::InputEmpty,
                format!("input {name} is empty (0 bytes); was it copied whole?"),
            ));
        }
        Ok(Self {
            document_id: None,
            name: name.to_owned(),
            bytes,
            sha256: format!("{:x}", hash.finalize()),
            path: path.to_owned(),
        })
    }

    /// An input that was measured and hashed when it was stored, at `path`. It is read when the job starts, and must still be
    /// what it was.
    #[must_use]
    pub const fn stored(document_id: String, name: String, bytes: u64, sha256: String, path: PathBuf) -> Self {
        Self { document_id: Some(document_id), name, bytes, sha256, path }
    }

    /// Its place in the container, for the input number `index` from 0.
    #[must_use]
    pub fn place(index: usize) -> String {
        format!("in/{:04}", index + 1)
    }

    /// The input as an entry of the input archive.
    #[must_use]
    pub fn file(&self, index: usize) -> InputFile {
        InputFile {
            name: Self::place(index),
            source: Source::File { path: self.path.clone(), size: self.bytes, sha256: self.sha256.clone() },
        }
    }
}

/// Whether inputs of these sizes fit into the scratch space beside the package and, where the job has network, the certificate
/// authorities that come with it.
///
/// # Errors
/// `input_too_large`, with both numbers and the memory that would do.
pub fn inputs_fit(
    sizes: impl IntoIterator<Item = u64>,
    package: &Package,
    limits: &Limits,
    ca_bundle: Option<&Bytes>,
) -> Result<(), Failure> {
    const MIB: u64 = 1024 * 1024;
    let beside = package.job_files().map(|(_, bytes)| bytes.len()).chain(ca_bundle.map(Bytes::len));
    let beside: u64 = beside.map(|bytes| space(bytes as u64)).sum();
    let budget = (limits.scratch_mb * MIB).saturating_sub(beside);
    let total = sizes.into_iter().map(space).fold(0_u64, u64::saturating_add);
    if total <= budget {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::InputTooLarge,
        format!(
            "the inputs have {} MB together, the job's scratch space holds {} MB (half of memory_mb): raise engine.defaults.memory_mb in the manifest or --memory-mb to at least {}",
            total.div_ceil(MIB),
            budget / MIB,
            total.saturating_mul(4).div_ceil(MIB).max(64)
        ),
    ))
}

/// Bytes of the scratch space that a file takes: a tmpfs has whole pages.
const fn space(bytes: u64) -> u64 {
    const PAGE: u64 = 4096;
    bytes.div_ceil(PAGE).saturating_mul(PAGE)
}

/// Opens all inputs of a job. Blocking.
///
/// # Errors
/// The first input's failure, or `input_too_large` when there are too many or they do not fit.
pub fn open_all(
    paths: &[PathBuf],
    package: &Package,
    limits: &Limits,
    ca_bundle: Option<&Bytes>,
) -> Result<Vec<Input>, Failure> {
    if paths.len() > MAX_INPUTS {
        return Err(Failure::new(
            FailureKind::InputTooLarge,
            format!(
                "{} inputs were given, the limit is {MAX_INPUTS}: run the package over fewer at a time",
                paths.len()
            ),
        ));
    }
    // Sizes first: hashing what does not fit anyway would only waste time.
    let sizes = paths.iter().map(|path| std::fs::metadata(path).map_or(0, |metadata| metadata.len()));
    inputs_fit(sizes, package, limits, ca_bundle)?;
    paths.iter().map(|path| Input::open(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::PackageCaps;
    use crate::sandbox::{Caps, Requested};

    #[test]
    fn an_input_is_measured_and_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a b.csv");
        std::fs::write(&path, "abc").unwrap();
        let input = Input::open(&path).unwrap();
        assert_eq!((input.name.as_str(), input.bytes), ("a b.csv", 3));
        assert_eq!(input.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn folders_missing_and_empty_files_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.xlsx");
        std::fs::write(&empty, "").unwrap();
        assert_eq!(Input::open(folder.path()).unwrap_err().kind, FailureKind::InputMissing);
        assert_eq!(Input::open(&folder.path().join("none")).unwrap_err().kind, FailureKind::InputMissing);
        assert_eq!(Input::open(&empty).unwrap_err().kind, FailureKind::InputEmpty);
    }

    #[test]
    fn inputs_that_do_not_fit_beside_the_package_are_refused_before_they_are_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("manifest.json"), "{}").unwrap();
        let package = Package::open(folder.path(), &PackageCaps::default()).unwrap();
        let asked = Requested { memory_mb: Some(64), timeout_ms: None };
        let limits = Limits::resolve(&Caps::default(), asked).unwrap();
        let path = folder.path().join("big.csv");
        std::fs::File::create(&path).unwrap().set_len(32 * 1024 * 1024 - 4095).unwrap();
        let failure = open_all(&[path], &package, &limits, None).unwrap_err();
        assert_eq!(failure.kind, FailureKind::InputTooLarge);
        assert!(failure.message.contains("--memory-mb"));
        // Two bytes of a manifest take a page, and so does every file.
        let fits = |sizes: &[u64], bundle: Option<&Bytes>| {
            inputs_fit(sizes.iter().copied(), &package, &limits, bundle).is_ok()
        };
        const PAGES: u64 = 32 * 1024 * 1024 / 4096;
        assert!(fits(&[(PAGES - 1) * 4096], None) && !fits(&[(PAGES - 1) * 4096 + 1], None));
        assert!(fits(&[1, (PAGES - 2) * 4096], None) && !fits(&[1, 1, (PAGES - 2) * 4096], None));
        let bundle = Bytes::from(vec![b'x'; 4097]);
        assert!(fits(&[(PAGES - 3) * 4096], Some(&bundle)) && !fits(&[(PAGES - 2) * 4096], Some(&bundle)));
        assert!(!fits(&[u64::MAX], None) && !fits(&[u64::MAX, u64::MAX], None));
    }
}
