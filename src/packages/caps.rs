//! What a package may take from the host, and what its manifest may ask of a job.

/// Largest `manifest.json`, in bytes.
pub(super) const MAX_MANIFEST_BYTES: usize = 1024 * 1024;

/// Bounds on a package as it is read. Past any of them [`Package::open`](super::Package::open) fails; nothing is cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageCaps {
    /// Largest zip file, in bytes.
    pub zip_bytes: u64,
    /// Largest sum of all files, unpacked, in bytes. They are held in memory.
    pub unpacked_bytes: u64,
    /// Largest single file, unpacked, in bytes.
    pub file_bytes: u64,
    /// Most files and folders.
    pub entries: usize,
    /// Most unpacked bytes per packed byte, for one file and for the whole zip. Applies from
    /// [`RATIO_FLOOR`](Self::RATIO_FLOOR) bytes on: small files of one repeated byte are no threat.
    pub ratio: u64,
    /// Most parts in a path: `columns/email.py` has 2.
    pub depth: usize,
    /// Longest path, in bytes of UTF-8.
    pub path_bytes: usize,
}

impl PackageCaps {
    /// Unpacked bytes below which the compression ratio is not looked at.
    pub const RATIO_FLOOR: u64 = 1024 * 1024;
}

impl Default for PackageCaps {
    fn default() -> Self {
        Self {
            // Room for the canonical zip of any package, which is not compressed: what was exported can be imported.
            zip_bytes: 66 * 1024 * 1024,
            unpacked_bytes: 64 * 1024 * 1024,
            file_bytes: 32 * 1024 * 1024,
            entries: 2_000,
            ratio: 200,
            depth: 8,
            path_bytes: 240,
        }
    }
}

/// The instance's caps on what a manifest may ask for. They are also what a job gets when the manifest asks for nothing,
/// see [`Manifest::limits`](super::Manifest::limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Longest run of a job, in milliseconds.
    pub timeout_ms: u64,
    /// Most memory of a job's container, in MiB.
    pub memory_mb: u64,
}
