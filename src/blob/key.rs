//! Where files lie in the storage. Every part of a key is an id, a hash, a number or a name from this file.

use crate::ids::{DocumentId, DraftFileId, JobId, WorkspaceId};
use object_store::path::Path;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The folder of [`super::Blobs::probe`].
pub(super) const PROBES: &str = "probe";

/// A sha256, in lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Digest(Arc<str>);

/// A text that is not a sha256 in lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sha256 has 64 hexadecimal digits, in lower case")]
pub struct InvalidDigest;

impl Digest {
    pub(super) fn of(hash: sha2::Sha256) -> Self {
        Self(format!("{:x}", sha2::Digest::finalize(hash)).into())
    }

    /// The hash of `bytes`.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::of(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), bytes))
    }

    /// The hash as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(text.into())) } else { Err(InvalidDigest) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! job_files {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal;)+) => {
        /// A file that an execution of a job leaves.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum JobFile { $($(#[doc = $doc])+ $variant,)+ }

        impl JobFile {
            /// Every file.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The file with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|file| file.name() == name)
            }
        }
    };
}

job_files! {
    /// The workbook.
    Normalized = "normalized.xlsx";
    /// What was decided and why.
    Artifact = "artifact.json";
    /// What happened when.
    Events = "events.ndjson";
    /// What the container was asked to do.
    RunRequest = "run-request.json";
    /// The packages that were installed.
    Packages = "packages.txt";
    /// What the installer said.
    InstallLog = "install.log";
}

/// The place of one file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Path);

impl Key {
    /// A document.
    #[must_use]
    pub fn document(workspace: &WorkspaceId, document: &DocumentId) -> Self {
        Self(Path::from_iter([workspace.as_str(), "documents", document.as_str()]))
    }

    /// The canonical zip of a package, by its hash: versions of the same content share it.
    #[must_use]
    pub fn package(workspace: &WorkspaceId, sha256: &Digest) -> Self {
        Self(Path::from_iter([workspace.as_str(), "packages", sha256.as_str()]))
    }

    /// A file of a draft. Each content has an id of its own, so that nothing that is read is ever written over.
    #[must_use]
    pub fn draft_file(workspace: &WorkspaceId, file: &DraftFileId) -> Self {
        Self(Path::from_iter([workspace.as_str(), "drafts", file.as_str()]))
    }

    /// A file of one execution of a job. Each execution has a folder of its own, so that a late writer harms nobody.
    #[must_use]
    pub fn job_file(workspace: &WorkspaceId, job: &JobId, execution: u32, file: JobFile) -> Self {
        let execution = execution.to_string();
        Self(Path::from_iter([workspace.as_str(), "jobs", job.as_str(), &execution, file.name()]))
    }

    pub(super) fn probe() -> Self {
        // Several nodes may probe at the same time.
        Self(Path::from_iter([PROBES, &ulid::Ulid::new().to_string()]))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The place of several files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix(Path);

impl Prefix {
    /// All that a workspace has.
    #[must_use]
    pub fn workspace(workspace: &WorkspaceId) -> Self {
        Self(Path::from_iter([workspace.as_str()]))
    }

    /// All executions of a job.
    #[must_use]
    pub fn job(workspace: &WorkspaceId, job: &JobId) -> Self {
        Self(Path::from_iter([workspace.as_str(), "jobs", job.as_str()]))
    }

    /// One execution of a job.
    #[must_use]
    pub fn execution(workspace: &WorkspaceId, job: &JobId, execution: u32) -> Self {
        Self(Path::from_iter([workspace.as_str(), "jobs", job.as_str(), &execution.to_string()]))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
