//! Storage of files: documents, packages, outputs. Streamed in and out, never held in memory as a whole.
//!
//! What a file is called is made from ids by [`Key`] and never from text of a caller. A write is seen whole or not at all:
//! on a local disk it goes to a file beside the target, is synced, renamed over it, and the folder is synced. Deletes are
//! not synced: after a power cut a deleted file may be back, and the sweeps of their owners find it again.

mod error;
mod key;

pub use error::BlobError;
pub use key::{Digest, JobFile, Key, Prefix};

use crate::ids::{JobId, WorkspaceId};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart};
use sha2::Digest as _;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;

/// Bytes of one part of an upload: the least that S3 takes.
const PART: usize = 5 * 1024 * 1024;

/// Parts of one upload in memory at once.
const PARTS_IN_FLIGHT: usize = 2;

/// Files removed at once by [`Blobs::delete_prefix`].
const DELETES_IN_FLIGHT: usize = 16;

/// Bytes read from a local file at once.
const READ: usize = 128 * 1024;

/// The storage. Clones share it.
#[derive(Debug, Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The backend once more where it is a local folder.
    local: Option<Arc<LocalFileSystem>>,
    root: Option<PathBuf>,
}

/// A file as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Size, bytes.
    pub bytes: u64,
    /// Hash of the content.
    pub sha256: Digest,
}

/// A file, or a part of it, on its way out.
pub struct Content {
    /// Size of the whole file, bytes.
    pub size: u64,
    /// The bytes that the stream has.
    pub range: Range<u64>,
    /// The bytes.
    pub stream: BoxStream<'static, Result<Bytes, BlobError>>,
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("size", &self.size).field("range", &self.range).finish_non_exhaustive()
    }
}

impl Blobs {
    /// Opens the storage at `url`: `file:///…` or a path of a local folder, which is created, readable by its owner only.
    ///
    /// # Errors
    /// [`BlobError::Address`] for a URL that this build cannot serve; else as for a write.
    pub fn open(url: &str) -> Result<Self, BlobError> {
        let folder = match url.split_once("://") {
            None => PathBuf::from(url),
            Some(("file", path)) if path.starts_with('/') && !path.contains(['%', '?', '#']) => PathBuf::from(path),
            Some(_) => return Err(BlobError::Address { url: crate::settings::mask(url) }),
        };
        if folder.as_os_str().is_empty() {
            return Err(BlobError::Address { url: url.to_owned() });
        }
        let create = || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            std::fs::canonicalize(&folder)
        };
        let root = create().map_err(|error| BlobError::from_io(&folder.display().to_string(), error))?;
        let local = LocalFileSystem::new_with_prefix(&root).map_err(|error| BlobError::of("the folder", error))?;
        let local = Arc::new(local.with_fsync(true).with_automatic_cleanup(true));
        Ok(Self { store: Arc::clone(&local) as Arc<dyn ObjectStore>, local: Some(local), root: Some(root) })
    }

    /// Stores what `stream` gives, `max_bytes` at most. A file that was there is replaced. After any error nothing is
    /// left behind and what was there before is as it was.
    ///
    /// # Errors
    /// [`BlobError::Source`] with the stream's own error, [`BlobError::TooLarge`], or the storage's.
    pub async fn put_stream<S>(&self, key: &Key, stream: S, max_bytes: u64) -> Result<Stored, BlobError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let upload = self.store.put_multipart(key.path()).await.map_err(|error| BlobError::of(key, error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        let mut hash = sha2::Sha256::new();
        match pour(key, stream, max_bytes, &mut upload, &mut hash).await {
            Ok(bytes) => {
                upload.finish().await.map_err(|error| BlobError::of(key, error))?;
                Ok(Stored { bytes, sha256: Digest::of(hash) })
            }
            Err(error) => {
                if let Err(left) = upload.abort().await {
                    tracing::warn!(%key, error = %left, "an upload that failed could not be removed; the sweep will");
                }
                Err(error)
            }
        }
    }

    /// Stores the files that an execution has left in a local folder, and whatever else is in there is lost. The folder is used up: where
    /// it lies on the storage's own file system it becomes the execution's, with no file made, copied or removed, and so it must have
    /// none there yet. After an error the files may be at either place.
    ///
    /// # Errors
    /// [`BlobError::Source`] when one cannot be read; else the storage's.
    pub async fn take_execution(
        &self,
        workspace: &WorkspaceId,
        job: &JobId,
        execution: u32,
        folder: &Path,
        files: &[JobFile],
    ) -> Result<Vec<Stored>, BlobError> {
        let prefix = Prefix::execution(workspace, job, execution);
        let broke = |error| BlobError::from_io(&prefix.to_string(), io::Error::other(error));
        if let Some(target) = self.local.as_ref().and_then(|local| local.path_to_filesystem(prefix.path()).ok()) {
            // Side by side: each waits for the disk.
            let settled = files.iter().map(|file| {
                let path = folder.join(file.name());
                let key = Key::job_file(workspace, job, execution, *file).to_string();
                tokio::task::spawn_blocking(move || settle(&key, &path))
            });
            let settled = try_join_all(settled).await.map_err(broke)?;
            let stored = settled.into_iter().collect::<Result<_, _>>()?;
            let (folder, files) = (folder.to_owned(), files.to_vec());
            let moved = tokio::task::spawn_blocking(move || move_in(&folder, &files, &target)).await.map_err(broke)?;
            match moved {
                Ok(()) => return Ok(stored),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {}
                Err(error) => return Err(BlobError::from_io(&prefix.to_string(), error)),
            }
        }
        try_join_all(files.iter().map(|file| async {
            let source = tokio::fs::File::open(folder.join(file.name())).await.map_err(BlobError::Source)?;
            let key = Key::job_file(workspace, job, execution, *file);
            self.put_stream(&key, tokio_util::io::ReaderStream::with_capacity(source, READ), u64::MAX).await
        }))
        .await
    }

    /// Stores bytes, for what is small.
    ///
    /// # Errors
    /// The storage's.
    pub async fn put_bytes(&self, key: &Key, bytes: Bytes) -> Result<Stored, BlobError> {
        let stored = Stored { bytes: bytes.len() as u64, sha256: Digest::of_bytes(&bytes) };
        self.store.put(key.path(), bytes.into()).await.map_err(|error| BlobError::of(key, error))?;
        Ok(stored)
    }

    /// Opens a file, or `range` of it, for reading. Ask [`head`](Self::head) first when the range comes from a caller: one
    /// outside of the file is an error here.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or the storage's; also later, out of the stream.
    pub async fn get_range(&self, key: &Key, range: Option<Range<u64>>) -> Result<Content, BlobError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            let (size, range) = (self.head(key).await?, 0..0);
            return Ok(Content { size, range, stream: futures_util::stream::empty().boxed() });
        }
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(key.path(), options).await.map_err(|error| BlobError::of(key, error))?;
        let (size, range) = (found.meta.size, found.range.clone());
        let name = key.clone();
        let stream = match found.payload {
            // The crate reads 8 KB at a time, each through another thread; that is slow for what is large.
            object_store::GetResultPayload::File(file, _) => local_stream(name, file, range.clone()),
            object_store::GetResultPayload::Stream(stream) => {
                stream.map_err(move |error| BlobError::of(&name, error)).boxed()
            }
        };
        Ok(Content { size, range, stream })
    }

    /// Size of a file, bytes.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], or the storage's.
    pub async fn head(&self, key: &Key) -> Result<u64, BlobError> {
        self.store.head(key.path()).await.map(|meta| meta.size).map_err(|error| BlobError::of(key, error))
    }

    /// Removes a file; one that is not there is removed already.
    ///
    /// # Errors
    /// The storage's.
    pub async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        match self.store.delete(key.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(BlobError::of(key, error)),
        }
    }

    /// Removes every file under `prefix`, several at a time, without a list of them in memory. Gives their number.
    ///
    /// # Errors
    /// The storage's, at the first that cannot be removed; what is left can be removed by another call.
    pub async fn delete_prefix(&self, prefix: &Prefix) -> Result<u64, BlobError> {
        let listed = self.store.list(Some(prefix.path())).map_err(|error| BlobError::of(prefix, error));
        listed
            .map_ok(|meta| async move {
                match self.store.delete(&meta.location).await {
                    Ok(()) => Ok(1),
                    Err(object_store::Error::NotFound { .. }) => Ok(0),
                    Err(error) => Err(BlobError::of(&meta.location, error)),
                }
            })
            .try_buffer_unordered(DELETES_IN_FLIGHT)
            .try_fold(0, |sum, one: u64| async move { Ok(sum + one) })
            .await
    }

    /// Where a file lies on this machine's disk, whether or not it is there; `None` where the storage is no local folder.
    /// The file must only be read.
    #[must_use]
    pub fn local_path(&self, key: &Key) -> Option<PathBuf> {
        self.local.as_ref()?.path_to_filesystem(key.path()).ok()
    }

    /// Copies a file to a path of this machine, replacing what is there. Gives its size, bytes. After an error a part of it
    /// may be there.
    ///
    /// # Errors
    /// [`BlobError::NotFound`]; [`BlobError::Full`] and [`BlobError::Unavailable`] for the target as well.
    pub async fn fetch_to(&self, key: &Key, target: &Path) -> Result<u64, BlobError> {
        let mut content = self.get_range(key, None).await?;
        let failed = |error| BlobError::from_io(&target.display().to_string(), error);
        let mut file = tokio::fs::File::create(target).await.map_err(failed)?;
        while let Some(bytes) = content.stream.try_next().await? {
            file.write_all(&bytes).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok(content.size)
    }

    /// Writes, reads and removes a small file: whether the storage works, for `/readyz`.
    ///
    /// # Errors
    /// The storage's.
    pub async fn probe(&self) -> Result<(), BlobError> {
        let key = Key::probe();
        let written = Bytes::copy_from_slice(key.path().as_ref().as_bytes());
        self.put_bytes(&key, written.clone()).await?;
        let read = async {
            let content = self.get_range(&key, None).await?;
            let parts: Vec<Bytes> = content.stream.try_collect().await?;
            if parts.concat() == written {
                Ok(())
            } else {
                Err(BlobError::Unavailable { key: key.to_string(), reason: "it gives back other bytes".into() })
            }
        };
        let result = read.await;
        self.delete(&key).await?;
        result
    }

    /// Removes what uploads left that were cut off by a crash, and files of [`probe`](Self::probe), when nobody wrote to
    /// them for `older_than`. Gives their number. Other storage than a local folder shows no parts of uploads: let its
    /// own rules expire them (S3: `AbortIncompleteMultipartUpload`).
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] when the folder cannot be read.
    pub async fn sweep_temporary(&self, older_than: Duration) -> Result<u64, BlobError> {
        let Some(root) = self.root.clone() else { return Ok(0) };
        let swept = tokio::task::spawn_blocking(move || sweep(&root, SystemTime::now() - older_than)).await;
        let failed = |error| BlobError::from_io("the storage folder", error);
        swept.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
    }
}

async fn pour(
    key: &Key,
    stream: impl Stream<Item = io::Result<Bytes>> + Send,
    max_bytes: u64,
    upload: &mut WriteMultipart,
    hash: &mut sha2::Sha256,
) -> Result<u64, BlobError> {
    let mut stream = std::pin::pin!(stream);
    let mut sum = 0;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(BlobError::Source)?;
        sum += bytes.len() as u64;
        if sum > max_bytes {
            return Err(BlobError::TooLarge { limit: max_bytes });
        }
        upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(|error| BlobError::of(key, error))?;
        hash.update(&bytes);
        // Copies; with `put` a stream of tiny pieces would hold an allocation for each.
        upload.write(&bytes);
    }
    Ok(sum)
}

fn local_stream(key: Key, file: std::fs::File, range: Range<u64>) -> BoxStream<'static, Result<Bytes, BlobError>> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let open = async move {
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(READ);
        file.seek(io::SeekFrom::Start(range.start)).await?;
        Ok::<_, io::Error>(tokio_util::io::ReaderStream::with_capacity(file.take(range.end - range.start), READ))
    };
    futures_util::stream::once(open)
        .try_flatten()
        .map_err(move |error| BlobError::from_io(&key.to_string(), error))
        .boxed()
}

/// Brings a file to the disk; what is in it.
fn settle(key: &str, path: &Path) -> Result<Stored, BlobError> {
    let mut file = std::fs::File::open(path).map_err(BlobError::Source)?;
    let mut hash = sha2::Sha256::new();
    let bytes = io::copy(&mut file, &mut hash).map_err(BlobError::Source)?;
    file.sync_all().map_err(|error| BlobError::from_io(key, error))?;
    Ok(Stored { bytes, sha256: Digest::of(hash) })
}

/// Moves a folder to `target`, with these files and nothing else. As with the writes of the `object_store` crate, all is on the disk
/// before it has its name, and so are folders that had to be made.
fn move_in(folder: &Path, files: &[JobFile], target: &Path) -> io::Result<()> {
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !files.iter().any(|file| entry.file_name() == file.name()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    sync_folder(folder)?;
    let rename = || {
        make_folder(parent)?;
        std::fs::rename(folder, target)
    };
    match rename() {
        // A folder that was empty goes with the last file that is removed from it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => rename(),
        renamed => renamed,
    }?;
    sync_folder(parent)
}

/// Makes a folder with those it lies in, and brings to the disk what it has made.
fn make_folder(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(folder.parent().ok_or(error)?)?;
            return make_folder(folder);
        }
        Err(error) => return Err(error),
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// Removes stale temporary files under `root`; a folder or file that goes away meanwhile is no error.
fn sweep(root: &Path, before: SystemTime) -> io::Result<u64> {
    let mut swept = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && folder != root => continue,
            Err(error) => return Err(error),
        };
        let probes = folder.file_name().is_some_and(|name| name == key::PROBES) && folder.parent() == Some(root);
        for entry in entries {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if (probes || is_temporary(&entry.file_name().to_string_lossy()))
                && metadata.modified()? < before
                && std::fs::remove_file(entry.path()).is_ok()
            {
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Whether the object_store crate writes uploads under such a name: the target's, `#` and a number. No [`Key`] has a `#`.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests;
