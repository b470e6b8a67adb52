use super::*;
use crate::ids::{DocumentId, JobId, WorkspaceId};
use futures_util::stream;
use tempfile::TempDir;

fn open() -> (Blobs, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Blobs::open(folder.path().join("deep/er").to_str().unwrap()).unwrap(), folder)
}

fn key() -> Key {
    Key::document(&WorkspaceId::generate(), &DocumentId::generate())
}

fn pieces(count: usize) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::iter((0..count).map(|n| Ok(Bytes::from(vec![n as u8; 100_000]))))
}

async fn read(blobs: &Blobs, key: &Key, range: Option<Range<u64>>) -> Vec<u8> {
    let content = blobs.get_range(key, range).await.unwrap();
    let parts: Vec<Bytes> = content.stream.try_collect().await.unwrap();
    let bytes = parts.concat();
    assert_eq!(bytes.len() as u64, content.range.end - content.range.start);
    bytes
}

/// Every file under the folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn what_is_stored_is_given_back_whole_and_in_parts() {
    let (blobs, _folder) = open();
    let key = key();
    // More than one part of an upload.
    let stored = blobs.put_stream(&key, pieces(120), u64::MAX).await.unwrap();
    assert_eq!(stored.bytes, 12_000_000);
    let whole = read(&blobs, &key, None).await;
    assert_eq!(Digest::of_bytes(&whole), stored.sha256);
    assert_eq!(blobs.head(&key).await.unwrap(), 12_000_000);
    assert_eq!(read(&blobs, &key, Some(99_999..100_001)).await, [0, 1]);
    assert!(read(&blobs, &key, Some(5..5)).await.is_empty());
    assert_eq!(std::fs::read(blobs.local_path(&key).unwrap()).unwrap(), whole);

    let stored = blobs.put_bytes(&key, Bytes::new()).await.unwrap();
    assert_eq!((stored.bytes, read(&blobs, &key, None).await), (0, Vec::new()));
    assert_eq!(blobs.put_stream(&key, pieces(0), 0).await.unwrap(), stored);
}

#[tokio::test]
async fn a_failed_upload_leaves_what_was_there_and_nothing_else() {
    let (blobs, folder) = open();
    let key = key();
    blobs.put_bytes(&key, Bytes::from_static(b"before")).await.unwrap();
    let too_large = blobs.put_stream(&key, pieces(80), 7_000_000).await;
    assert!(matches!(too_large, Err(BlobError::TooLarge { limit: 7_000_000 })), "{too_large:?}");
    let broken = pieces(60).chain(stream::iter([Err(io::Error::other("gone"))]));
    let broken = blobs.put_stream(&key, broken, u64::MAX).await;
    assert!(matches!(&broken, Err(BlobError::Source(error)) if error.to_string() == "gone"), "{broken:?}");
    assert_eq!(read(&blobs, &key, None).await, b"before");
    assert_eq!(files(folder.path()).len(), 1);
    assert!(blobs.put_stream(&key, pieces(1), 100_000).await.is_ok(), "the limit itself is allowed");
}

#[tokio::test]
async fn an_upload_that_is_dropped_leaves_nothing() {
    let (blobs, folder) = open();
    let endless = pieces(60).chain(stream::pending());
    let dropped = tokio::time::timeout(Duration::from_millis(200), blobs.put_stream(&key(), endless, u64::MAX)).await;
    assert!(dropped.is_err());
    for _ in 0..100 {
        if files(folder.path()).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?}", files(folder.path()));
}

#[tokio::test]
async fn a_missing_file_is_told_apart_and_removing_it_is_fine() {
    let (blobs, folder) = open();
    let key = key();
    assert!(matches!(blobs.head(&key).await, Err(BlobError::NotFound { .. })));
    assert!(matches!(blobs.get_range(&key, Some(0..1)).await, Err(BlobError::NotFound { .. })));
    assert!(matches!(blobs.fetch_to(&key, &folder.path().join("x")).await, Err(BlobError::NotFound { .. })));
    assert!(blobs.delete(&key).await.is_ok());
}

#[tokio::test]
async fn a_prefix_is_removed_and_its_neighbours_stay() {
    let (blobs, folder) = open();
    let (workspace, job, other) = (WorkspaceId::generate(), JobId::generate(), JobId::generate());
    // More than the crate lists at once, so that folders go away while others are still to be listed.
    for execution in 1..=300 {
        for file in JobFile::ALL {
            // Not through the storage: thousands of syncs would make the test slow.
            let path = blobs.local_path(&Key::job_file(&workspace, &job, execution, *file)).unwrap();
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }
    let kept = Key::job_file(&workspace, &other, 1, JobFile::Artifact);
    blobs.put_bytes(&kept, Bytes::from_static(b"x")).await.unwrap();
    // Execution 1, not 10 to 19 as well.
    let files_each = JobFile::ALL.len() as u64;
    assert_eq!(blobs.delete_prefix(&Prefix::execution(&workspace, &job, 1)).await.unwrap(), files_each);
    assert_eq!(blobs.delete_prefix(&Prefix::job(&workspace, &job)).await.unwrap(), 299 * files_each);
    assert_eq!(blobs.delete_prefix(&Prefix::job(&workspace, &job)).await.unwrap(), 0);
    assert_eq!(files(folder.path()), [blobs.local_path(&kept).unwrap()]);
}

const LEFT: [JobFile; 2] = [JobFile::Artifact, JobFile::Normalized];

/// A folder as an execution leaves it, with something that is not to be kept.
fn left(parent: &Path) -> PathBuf {
    let folder = parent.join("execution");
    std::fs::create_dir(&folder).unwrap();
    for (name, content) in [("artifact.json", "{}"), ("normalized.xlsx", "cells"), ("in-0000", "secret")] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    folder
}

fn taken() -> [Stored; 2] {
    [(2, &b"{}"[..]), (5, b"cells")].map(|(bytes, content)| Stored { bytes, sha256: Digest::of_bytes(content) })
}

#[tokio::test]
async fn the_folder_of_an_execution_becomes_part_of_the_storage() {
    use std::os::unix::fs::MetadataExt;
    let (blobs, folder) = open();
    let (workspace, job, from) = (WorkspaceId::generate(), JobId::generate(), left(folder.path()));
    let inode = std::fs::metadata(&from).unwrap().ino();
    let stored = blobs.take_execution(&workspace, &job, 1, &from, &LEFT).await.unwrap();
    assert_eq!(stored, taken());
    let at = LEFT.map(|file| blobs.local_path(&Key::job_file(&workspace, &job, 1, file)).unwrap());
    assert_eq!(std::fs::metadata(at[0].parent().unwrap()).unwrap().ino(), inode, "it is moved");
    let mut there = files(folder.path());
    there.sort();
    assert_eq!(there, at, "and nothing else with it");
    let to = folder.path().join("to");
    assert_eq!(blobs.fetch_to(&Key::job_file(&workspace, &job, 1, JobFile::Normalized), &to).await.unwrap(), 5);
    assert_eq!(std::fs::read(&to).unwrap(), b"cells");
    // Another execution of the job, and one whose place is taken, which changes nothing.
    let from = left(folder.path());
    let taken_place = blobs.take_execution(&workspace, &job, 1, &from, &LEFT).await;
    assert!(matches!(taken_place, Err(BlobError::Unavailable { .. })), "{taken_place:?}");
    assert_eq!(std::fs::read(&at[1]).unwrap(), b"cells");
    blobs.take_execution(&workspace, &job, 2, &from, &LEFT).await.unwrap();
    let gone = blobs.take_execution(&workspace, &job, 3, &from, &LEFT).await;
    assert!(matches!(gone, Err(BlobError::Source(_))), "{gone:?}");
    let nowhere = folder.path().join("no/folder");
    let nowhere = blobs.fetch_to(&Key::job_file(&workspace, &job, 1, JobFile::Normalized), &nowhere).await;
    assert!(matches!(nowhere, Err(BlobError::Unavailable { .. })), "the file is there, its target's folder is not");
}

#[tokio::test]
async fn files_of_another_file_system_are_copied() {
    let (blobs, _folder) = open();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let (workspace, job, from) = (WorkspaceId::generate(), JobId::generate(), left(elsewhere.path()));
    assert_eq!(blobs.take_execution(&workspace, &job, 1, &from, &LEFT).await.unwrap(), taken());
    let at = blobs.local_path(&Key::job_file(&workspace, &job, 1, JobFile::Normalized)).unwrap();
    assert_eq!(std::fs::read(at).unwrap(), b"cells");
}

#[tokio::test]
async fn stale_uploads_are_swept_and_fresh_ones_and_files_are_not() {
    let (blobs, folder) = open();
    let key = key();
    blobs.put_bytes(&key, Bytes::new()).await.unwrap();
    let file = blobs.local_path(&key).unwrap();
    let stale = PathBuf::from(format!("{}#1", file.display()));
    std::fs::write(&stale, "x").unwrap();
    assert_eq!(blobs.sweep_temporary(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(blobs.sweep_temporary(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(files(folder.path()), [file]);
}

#[tokio::test]
async fn a_probe_leaves_nothing_and_fails_where_nothing_can_be_written() {
    let (blobs, folder) = open();
    blobs.probe().await.unwrap();
    assert!(files(folder.path()).is_empty());
    let root = blobs.root.clone().unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::write(&root, "a file where the folder was").unwrap();
    assert!(matches!(blobs.probe().await, Err(BlobError::Unavailable { .. })));
}

#[test]
fn only_folders_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Blobs::open(&format!("file://{}/x", folder.path().display())).is_ok());
    for wrong in ["", "s3://key:secret@bucket/x", "file://host/x", "http://x"] {
        let error = Blobs::open(wrong).unwrap_err();
        assert!(matches!(error, BlobError::Address { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    assert!(Blobs::open("/proc/nope").is_err());
}

#[test]
fn no_room_is_found_inside_of_other_errors() {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    let error = object_store::Error::Generic { store: "x", source: Box::new(full) };
    assert!(matches!(BlobError::of("k", error), BlobError::Full { .. }));
}

#[test]
fn digests_are_lower_case_hexadecimal() {
    let digest = Digest::of_bytes(b"");
    assert_eq!(digest.as_str(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
    assert!("../x".parse::<Digest>().is_err() && digest.as_str().to_uppercase().parse::<Digest>().is_err());
}
