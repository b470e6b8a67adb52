//! Packages that this node has read lately: a package never changes, and the next job is likely to want the same.

use super::execution::storage;
use crate::blob::{BlobError, Blobs, Digest, Key};
use crate::ids::WorkspaceId;
use crate::job::open_package;
use crate::packages::Package;
use crate::sandbox::{Failure, FailureKind};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Packages kept, and their bytes together.
const KEPT: usize = 32;
const KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// The newest is last.
#[derive(Debug, Default)]
pub(super) struct Packages(Mutex<VecDeque<(WorkspaceId, Arc<Package>)>>);

impl Packages {
    /// The package with this hash.
    ///
    /// # Errors
    /// `package_invalid` when its bytes are gone or are not what they were, `host_io` when storage fails.
    pub(super) async fn get(
        &self,
        blobs: &Blobs,
        workspace: &WorkspaceId,
        sha256: &Digest,
    ) -> Result<Arc<Package>, Failure> {
        if let Some(package) = self.known(workspace, sha256.as_str()) {
            return Ok(package);
        }
        let key = Key::package(workspace, sha256);
        let gone = || {
            Failure::new(
                FailureKind::PackageInvalid,
                format!("the package {sha256} is gone from storage; publish it again"),
            )
        };
        let mut fetched = None;
        let path = match blobs.local_path(&key) {
            Some(path) => path,
            None => {
                let file = tempfile::NamedTempFile::new().map_err(|error| {
                    Failure::new(FailureKind::HostIo, format!("cannot write a temporary file: {error}"))
                })?;
                match blobs.fetch_to(&key, file.path()).await {
                    Ok(_) => {}
                    Err(BlobError::NotFound { .. }) => return Err(gone()),
                    Err(error) => return Err(storage(error)),
                }
                let path = file.path().to_owned();
                fetched = Some(file);
                path
            }
        };
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Err(gone());
        }
        let opened = tokio::task::spawn_blocking(move || open_package(&path)).await;
        drop(fetched);
        let package = opened
            .map_err(|error| Failure::new(FailureKind::HostIo, format!("reading a package failed: {error}")))??;
        if package.package_sha256() != sha256.as_str() {
            return Err(Failure::new(
                FailureKind::PackageInvalid,
                format!("the stored package {sha256} is damaged; publish it again"),
            ));
        }
        let package = Arc::new(package);
        self.keep(workspace, &package);
        Ok(package)
    }

    fn known(&self, workspace: &WorkspaceId, sha256: &str) -> Option<Arc<Package>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = kept.iter().position(|(of, package)| of == workspace && package.package_sha256() == sha256)?;
        let entry = kept.remove(place)?;
        let package = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(package)
    }

    fn keep(&self, workspace: &WorkspaceId, package: &Arc<Package>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((workspace.clone(), Arc::clone(package)));
        let bytes = |kept: &VecDeque<(WorkspaceId, Arc<Package>)>| {
            kept.iter().map(|(_, package)| package.unpacked_bytes()).sum::<u64>()
        };
        while kept.len() > KEPT || (kept.len() > 1 && bytes(&kept) > KEPT_BYTES) {
            kept.pop_front();
        }
    }
}
