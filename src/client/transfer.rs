//! Files on their way: streamed, never whole in memory, with a hash that is checked at the other end.

use super::{Blame, Client, ClientError};
use crate::api::routes::documents::DocumentRecord;
use futures_util::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder, Response};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

/// An upload has this much time in any case, and more by its size: slower than this many bytes a second, it is stuck.
const UPLOAD: Duration = Duration::from_secs(120);
const SLOWEST: u64 = 16 * 1024;

/// A file to upload.
#[derive(Debug, Clone)]
pub struct Local {
    /// Where it is.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    sha256: String,
}

impl Local {
    /// Reads a file once, for its size and hash.
    ///
    /// # Errors
    /// That it cannot be read, or is not a plain file.
    pub async fn measure(path: &Path) -> Result<Self, ClientError> {
        let path = path.to_owned();
        let unreadable = ClientError::unreadable(&path, "its name is not UTF-8");
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(unreadable)?.to_owned();
        let measured = tokio::task::spawn_blocking(move || {
            let mut file = std::fs::File::open(&path).map_err(|error| ClientError::unreadable(&path, error))?;
            if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                return Err(ClientError::unreadable(&path, "it is not a plain file"));
            }
            let mut hash = Sha256::new();
            let bytes = std::io::copy(&mut file, &mut hash).map_err(|error| ClientError::unreadable(&path, error))?;
            Ok(Self { path, name, bytes, sha256: format!("{:x}", hash.finalize()) })
        });
        measured.await.map_err(|error| ClientError::new(Blame::Environment, "host_io", error.to_string()))?
    }
}

impl Client {
    /// Uploads a file as a document; `moved` hears of bytes as they go.
    ///
    /// # Errors
    /// What the service refused, or that the file changed meanwhile.
    pub async fn upload(
        &self,
        workspace: &str,
        local: &Local,
        moved: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<DocumentRecord, ClientError> {
        let file = tokio::fs::File::open(&local.path).await;
        let file = file.map_err(|error| ClientError::unreadable(&local.path, error))?;
        let content = ReaderStream::with_capacity(file.take(local.bytes), 128 * 1024)
            .inspect_ok(move |chunk| moved(chunk.len() as u64));
        let request = self
            .patient(Method::POST, &["workspaces", workspace, "documents"])
            .query(&[("filename", &local.name), ("sha256", &local.sha256)])
            .header("Content-Type", "application/octet-stream")
            .header("Content-Length", local.bytes)
            .timeout(UPLOAD + Duration::from_secs(local.bytes / SLOWEST))
            .body(reqwest::Body::wrap_stream(content));
        self.json(request).await
    }

    /// Downloads to `folder/name`: the whole file with the right hash, or nothing. `begun` hears of its size, `moved` of bytes
    /// as they come.
    ///
    /// # Errors
    /// What the service refused, a broken connection, a wrong hash, or a disk that does not take it.
    pub async fn download(
        &self,
        request: RequestBuilder,
        target: &Path,
        sha256: Option<&str>,
        begun: impl FnOnce(Option<u64>),
        moved: impl Fn(u64),
    ) -> Result<u64, ClientError> {
        let response = self.send(request).await?;
        begun(response.content_length());
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unwritable = |error: std::io::Error| ClientError::unwritable(target, error);
        // In the same folder, so that the rename is one step; with the mode that a plain new file gets.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let part =
            tempfile::Builder::new().prefix(".ade-").permissions(mode).tempfile_in(folder).map_err(unwritable)?;
        let file = part.as_file().try_clone().map_err(unwritable)?;
        let bytes = self.pour(response, tokio::fs::File::from_std(file), target, sha256, moved).await?;
        part.persist(target).map_err(|error| unwritable(error.error))?;
        Ok(bytes)
    }

    async fn pour(
        &self,
        response: Response,
        mut file: tokio::fs::File,
        target: &Path,
        sha256: Option<&str>,
        moved: impl Fn(u64),
    ) -> Result<u64, ClientError> {
        let unwritable = |error: std::io::Error| ClientError::unwritable(target, error);
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut content = response.bytes_stream();
        while let Some(chunk) = content.next().await {
            let chunk = chunk.map_err(|error| self.lost(&error))?;
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(unwritable)?;
            bytes += chunk.len() as u64;
            moved(chunk.len() as u64);
        }
        file.flush().await.map_err(unwritable)?;
        file.sync_all().await.map_err(unwritable)?;
        let hash = format!("{:x}", hash.finalize());
        if let Some(wanted) = sha256.filter(|wanted| *wanted != hash) {
            let message = format!(
                "{} came with the sha256 {hash} and must have {wanted}; nothing was kept, download it again",
                target.display()
            );
            return Err(ClientError::new(Blame::Environment, "hash_mismatch", message));
        }
        Ok(bytes)
    }
}
