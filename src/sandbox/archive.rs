//! Tar in and tar out, as streams; nothing is ever unpacked by an archive's own word.

use super::outcome::{Failure, FailureKind};
use crate::text::plain;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// The only names that a job may bring out.
pub const OUTPUTS: [&str; 2] = ["artifact.json", "normalized.xlsx"];

const CHUNK: usize = 64 * 1024;

/// The 512-byte header of a regular file for the input archive.
///
/// # Errors
/// When the name does not fit a ustar header (over 255 bytes, or over 100 without a `/` to split at).
pub fn input_header(name: &str, size: u64) -> io::Result<[u8; 512]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// Zero bytes that round `size` up to a whole tar block.
#[must_use]
pub fn padding(size: u64) -> Bytes {
    static ZEROS: [u8; 512] = [0; 512];
    let rest = (512 - size % 512) % 512;
    Bytes::from_static(&ZEROS[..usize::try_from(rest).unwrap_or(0)])
}

/// The end of a tar archive.
#[must_use]
pub fn trailer() -> Bytes {
    static ZEROS: [u8; 1024] = [0; 1024];
    Bytes::from_static(&ZEROS)
}

/// Reads an output archive from `source` and writes the files among `names` into `folder`; returns their names.
///
/// Links, devices, FIFOs, sparse files, unexpected or repeated names, and files over `limit` bytes are refused by name.
/// Ownership, mode and times of the archive are ignored.
///
/// # Errors
/// A [`Failure`] that names the entry. Files written so far stay in `folder`; the caller discards it.
pub fn read_outputs(
    source: impl Read,
    folder: &Path,
    limit: u64,
    names: &[&'static str],
) -> Result<Vec<String>, Failure> {
    let mut archive = tar::Archive::new(source);
    let mut collected: Vec<String> = Vec::new();
    // Raw: GNU and PAX extension entries are not interpreted but show up as entries, and are refused like any other
    // that is not a regular file. Our supervisor never needs them; long names and size overrides are an attacker's.
    for entry in archive.entries().map_err(|error| broken(&error))?.raw(true) {
        let mut entry = entry.map_err(|error| broken(&error))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let shown = plain(&name, 120);
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(invalid(format!(
                "output {shown:?} is not a regular file but {:?}",
                entry.header().entry_type()
            )));
        }
        let Some(expected) = names.iter().find(|expected| **expected == name) else {
            return Err(invalid(format!("output {shown:?} is none of the expected names {names:?}")));
        };
        if collected.iter().any(|have| have == expected) {
            return Err(invalid(format!("output {shown:?} comes twice")));
        }
        if entry.size() > limit {
            return Err(Failure::new(
                FailureKind::OutputTooLarge,
                format!(
                    "output {shown} has {} bytes, the limit is {limit}: raise engine.defaults.memory_mb or write less",
                    entry.size()
                ),
            ));
        }
        let mut file = File::create_new(folder.join(expected)).map_err(|error| host(folder, &error))?;
        let mut buffer = vec![0; CHUNK];
        let mut missing = entry.size();
        loop {
            let read = entry.read(&mut buffer).map_err(|error| broken(&error))?;
            if read == 0 {
                break;
            }
            missing = missing.saturating_sub(read as u64);
            file.write_all(&buffer[..read]).map_err(|error| host(folder, &error))?;
        }
        if missing > 0 {
            return Err(invalid(format!("the output archive ends inside of {shown:?}, {missing} bytes are missing")));
        }
        collected.push((*expected).to_owned());
    }
    Ok(collected)
}

fn invalid(message: String) -> Failure {
    Failure::new(FailureKind::OutputInvalid, message)
}

fn broken(error: &io::Error) -> Failure {
    invalid(format!("the output archive is damaged: {}", plain(&error.to_string(), 200)))
}

fn host(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(
        FailureKind::HostIo,
        format!("cannot write outputs to {}: {error}; free space there or choose another folder", folder.display()),
    )
}

/// Receives an output archive in pieces and unpacks it on a blocking thread; memory stays flat and the disk sets the pace.
#[derive(Debug)]
pub struct OutputSink {
    sender: Option<mpsc::Sender<Bytes>>,
    worker: tokio::task::JoinHandle<Result<Vec<String>, Failure>>,
}

impl OutputSink {
    /// Starts the unpacking into `folder`, which stays at least until the unpacking has ended.
    #[must_use]
    pub fn start(folder: Arc<TempDir>, limit: u64, names: &'static [&'static str]) -> Self {
        let (sender, receiver) = mpsc::channel(8);
        let worker = tokio::task::spawn_blocking(move || {
            let mut source = ChannelReader { receiver, chunk: Bytes::new() };
            let result = read_outputs(&mut source, folder.path(), limit, names);
            // Whatever follows a refusal is read to its end, so that the completion record behind it still arrives.
            io::copy(&mut source, &mut io::sink()).ok();
            result
        });
        Self { sender: Some(sender), worker }
    }

    /// Hands over one piece; waits when the disk is slower than the container.
    pub async fn push(&mut self, chunk: Bytes) {
        if let Some(sender) = &self.sender {
            sender.send(chunk).await.ok();
        }
    }

    /// Ends the archive and returns the names that were collected.
    ///
    /// # Errors
    /// As [`read_outputs`].
    pub async fn finish(mut self) -> Result<Vec<String>, Failure> {
        self.sender = None;
        match self.worker.await {
            Ok(result) => result,
            Err(error) => {
                Err(Failure::new(FailureKind::RunnerCrashed, format!("unpacking the outputs failed: {error}")))
            }
        }
    }
}

struct ChannelReader {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(0),
            }
        }
        let size = buffer.len().min(self.chunk.len());
        buffer[..size].copy_from_slice(&self.chunk.split_to(size));
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tar_of(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, data) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(data.len() as u64);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_mode(0o4777);
            header.set_uid(0);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn read(bytes: &[u8], limit: u64) -> (Result<Vec<String>, Failure>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (read_outputs(bytes, folder.path(), limit, &OUTPUTS), folder)
    }

    fn refused(bytes: &[u8]) -> Failure {
        let (result, folder) = read(bytes, 1000);
        let outside =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap()).find(|e| !e.file_type().unwrap().is_file());
        assert!(outside.is_none(), "{outside:?}");
        result.unwrap_err()
    }

    #[test]
    fn the_two_expected_files_are_read() {
        let bytes = tar_of(&[
            ("artifact.json", tar::EntryType::Regular, b"{}"),
            ("normalized.xlsx", tar::EntryType::Regular, b"PK"),
        ]);
        let (result, folder) = read(&bytes, 1000);
        assert_eq!(result.unwrap().len(), 2);
        assert_eq!(std::fs::read(folder.path().join("normalized.xlsx")).unwrap(), b"PK");
    }

    #[test]
    fn an_archive_that_ends_inside_of_a_file_is_damaged_wherever_it_is_cut() {
        let bytes = tar_of(&[("artifact.json", tar::EntryType::Regular, &[b'x'; 900])]);
        for length in [513, 600, 1024, 1411] {
            let failure = refused(&bytes[..length]);
            assert!(failure.message.contains("artifact.json"), "{length}: {failure}");
        }
    }

    #[test]
    fn a01_a_symlink_is_refused_by_name() {
        let failure = refused(&tar_of(&[("normalized.xlsx", tar::EntryType::Symlink, b"")]));
        assert!(failure.message.contains("normalized.xlsx"), "{failure}");
    }

    #[test]
    fn a02_a_hard_link_is_refused() {
        refused(&tar_of(&[("normalized.xlsx", tar::EntryType::Link, b"")]));
    }

    #[test]
    fn a03_fifos_and_devices_are_refused_without_blocking() {
        for kind in [tar::EntryType::Fifo, tar::EntryType::Block, tar::EntryType::Char, tar::EntryType::GNUSparse] {
            refused(&tar_of(&[("artifact.json", kind, b"")]));
        }
    }

    #[test]
    fn a04_odd_names_are_refused() {
        for name in [
            "../artifact.json", "/artifact.json", "a/../artifact.json", "./artifact.json", "ARTIFACT.JSON",
            "artifact.json/", "x",
        ] {
            refused(&tar_of(&[(name, tar::EntryType::Regular, b"{}")]));
        }
        let long = tar_of(&[("././@LongLink", tar::EntryType::GNULongName, &[b'a'; 5000])]);
        refused(&long);
    }

    #[test]
    fn a05_a_directory_behind_a_symlink_is_refused() {
        refused(&tar_of(&[
            ("artifact.json", tar::EntryType::Symlink, b""),
            ("artifact.json/x", tar::EntryType::Directory, b""),
        ]));
    }

    #[test]
    fn a07_a_file_over_the_limit_is_refused_before_it_is_written() {
        let failure = refused(&tar_of(&[("artifact.json", tar::EntryType::Regular, &[b' '; 1001])]));
        assert_eq!(failure.kind, FailureKind::OutputTooLarge);
    }

    #[test]
    fn a10_no_owner_or_mode_comes_from_the_archive() {
        use std::os::unix::fs::PermissionsExt;
        let (_, folder) = read(&tar_of(&[("artifact.json", tar::EntryType::Regular, b"{}")]), 1000);
        let mode = std::fs::metadata(folder.path().join("artifact.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7111, 0, "{mode:o}");
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let entry = ("artifact.json", tar::EntryType::Regular, &b"{}"[..]);
        refused(&tar_of(&[entry, entry]));
    }

    #[test]
    fn a06_pax_headers_that_could_desync_two_readers_are_refused() {
        // A PAX header that says one size before a header that says another: readers that believe different ones see
        // different entries (CVE-2025-62518). GNU tar is asked to show that the archive is such a one.
        let mut bytes = tar_of(&[("p", tar::EntryType::XHeader, b"12 size=512\n")]);
        bytes.truncate(1024);
        let mut outer = tar_of(&[("artifact.json", tar::EntryType::Regular, b"")]);
        outer.truncate(512);
        bytes.extend(outer);
        bytes.extend(tar_of(&[("normalized.xlsx", tar::EntryType::Regular, b"smuggled")]));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("desync.tar");
        std::fs::write(&path, &bytes).unwrap();
        let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        assert!(String::from_utf8_lossy(&listed.stdout).contains("artifact.json"), "GNU tar reads it");
        assert!(refused(&bytes).message.contains("not a regular file"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = read(&bytes, 1000);
        }

        #[test]
        fn a_flipped_byte_never_writes_an_unexpected_name(at in 0usize..2048, value in any::<u8>()) {
            let mut bytes = tar_of(&[("artifact.json", tar::EntryType::Regular, b"{}"), ("normalized.xlsx", tar::EntryType::Regular, b"PK")]);
            let at = at % bytes.len();
            bytes[at] = value;
            let (_, folder) = read(&bytes, 1000);
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                prop_assert!(OUTPUTS.contains(&entry.unwrap().file_name().to_str().unwrap()));
            }
        }
    }
}
