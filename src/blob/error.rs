//! What can go wrong with the storage.

use std::error::Error;
use std::fmt::Display;
use std::io;

/// Why the storage did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no such file.
    #[error("{key} is not in the storage")]
    NotFound {
        /// The file.
        key: String,
    },
    /// The stream has more bytes than it may.
    #[error("more than the {limit} bytes that are allowed")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// No room is left.
    #[error("the storage is full: {reason}")]
    Full {
        /// The words of the system.
        reason: String,
    },
    /// What was to be stored could not be read; the storage is not at fault.
    #[error("the data to store broke off: {0}")]
    Source(#[source] io::Error),
    /// The storage's address is not one that this program can use.
    #[error("{url} is no storage that this program can use: give a folder, as a path or as file:///…")]
    Address {
        /// The address, without a password.
        url: String,
    },
    /// The storage does not answer, or refuses.
    #[error("the storage failed at {key}: {reason}")]
    Unavailable {
        /// The file or folder.
        key: String,
        /// The words of the storage.
        reason: String,
    },
}

impl BlobError {
    /// The error of the object_store crate; one for want of room is found however deep it lies.
    pub(super) fn of(key: impl Display, error: object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::NotFound { key: key.to_string() };
        }
        let mut next: Option<&(dyn Error + 'static)> = Some(&error);
        while let Some(inner) = next {
            if inner.downcast_ref::<io::Error>().is_some_and(is_full) {
                return Self::Full { reason: inner.to_string() };
            }
            next = inner.source();
        }
        Self::Unavailable { key: key.to_string(), reason: error.to_string() }
    }

    /// An error of this machine's disk, at a place that should be there.
    pub(super) fn from_io(key: &str, error: io::Error) -> Self {
        if is_full(&error) {
            return Self::Full { reason: error.to_string() };
        }
        Self::Unavailable { key: key.to_owned(), reason: error.to_string() }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
