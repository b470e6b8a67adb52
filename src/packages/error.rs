//! Why a package could not be opened.

use std::path::PathBuf;

/// A package that cannot be used at all. Each variant is one stable [`code`](Self::code); the text names the thing, the
/// limit and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// Nothing is at the given path.
    #[error("There is no config package at {}: give a folder or a zip file with manifest.json at its root.", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The host refused to read something of it, or reading failed.
    #[error("Cannot read {}: {source}.", path.display())]
    Unreadable {
        /// What could not be read.
        path: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// It is neither a folder nor a zip, by its content.
    #[error("{} is neither a folder nor a zip file ({found}). Give the package's folder, or a zip of its contents.", path.display())]
    NotAZip {
        /// The path as given.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// It begins like a zip, but cannot be read as one.
    #[error("The zip is damaged{}: {detail}. Zip the package again.", in_entry(entry))]
    ZipCorrupt {
        /// The entry at fault, if one is.
        entry: Option<String>,
        /// What does not fit.
        detail: String,
    },
    /// No `manifest.json` at the root.
    #[error("The package has no manifest.json at its root. {hint}")]
    NoManifest {
        /// Where it may be instead, and what to do.
        hint: String,
    },
    /// Past one of [`PackageCaps`](super::PackageCaps)' sizes or counts.
    #[error("{what} {amount}; the limit is {limit}. {way_out}")]
    TooLarge {
        /// The thing that is too large.
        what: String,
        /// How large, with its unit.
        amount: String,
        /// The cap, with its unit.
        limit: String,
        /// What to do about it.
        way_out: &'static str,
    },
    /// Unpacks to far more than its packed size.
    #[error(
        "{what} unpacks to more than {limit} times its packed size, as a zip bomb does. Store highly repetitive files differently, or give the folder instead of a zip."
    )]
    ZipBomb {
        /// The entry, or the zip as a whole.
        what: String,
        /// The highest allowed ratio.
        limit: u64,
    },
    /// A path, or a kind of file, that must not be in a package.
    #[error("The package holds \"{entry}\", which {problem}. {way_out}")]
    EntryUnsafe {
        /// The entry as it may be shown.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do about it.
        way_out: &'static str,
    },
    /// Two entries that cannot both exist everywhere: the same name, names that differ only in case, or a file where
    /// another entry needs a folder.
    #[error("The package holds both \"{first}\" and \"{second}\", {problem}. Rename or remove one of them.")]
    EntryConflict {
        /// The entry that came first.
        first: String,
        /// The entry in conflict with it.
        second: String,
        /// Why they cannot both be there.
        problem: &'static str,
    },
    /// Encrypted, or packed by a method that is not read.
    #[error(
        "The zip's entry \"{entry}\" {problem}. Zip the package again with the usual deflate method and without a password."
    )]
    EntryUnsupported {
        /// The entry as it may be shown.
        entry: String,
        /// What about it is not supported.
        problem: String,
    },
    /// A path that is too long or too deep.
    #[error("The path \"{path}\" {amount}; the limit is {limit}. Shorten it or move the file up.")]
    PathTooLong {
        /// The path as it may be shown.
        path: String,
        /// Its length or depth, with the unit.
        amount: String,
        /// The cap, with its unit.
        limit: String,
    },
}

impl PackageError {
    /// Every code that [`code`](Self::code) can give, in the order of the docs.
    pub const CODES: [&'static str; 10] = [
        "package_not_found", "package_unreadable", "package_not_a_zip", "package_zip_corrupt", "package_no_manifest",
        "package_too_large", "package_zip_bomb", "package_entry_unsafe", "package_entry_conflict",
        "package_entry_unsupported",
    ];

    /// The stable machine code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "package_not_found",
            Self::Unreadable { .. } => "package_unreadable",
            Self::NotAZip { .. } => "package_not_a_zip",
            Self::ZipCorrupt { .. } => "package_zip_corrupt",
            Self::NoManifest { .. } => "package_no_manifest",
            Self::TooLarge { .. } | Self::PathTooLong { .. } => "package_too_large",
            Self::ZipBomb { .. } => "package_zip_bomb",
            Self::EntryUnsafe { .. } => "package_entry_unsafe",
            Self::EntryConflict { .. } => "package_entry_conflict",
            Self::EntryUnsupported { .. } => "package_entry_unsupported",
        }
    }
}

/// ` at entry "x"`, or nothing.
fn in_entry(entry: &Option<String>) -> String {
    entry.as_ref().map(|name| format!(" at entry \"{name}\"")).unwrap_or_default()
}

/// A size as people read it, with the exact number of bytes when that is not round.
pub(super) fn bytes(count: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    if count >= MIB && count.is_multiple_of(MIB) { format!("{} MiB", count / MIB) } else { format!("{count} bytes") }
}
