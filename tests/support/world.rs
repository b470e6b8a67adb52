//! The host as one job sees it, and what must be true of it afterwards.

use super::docker::Docker;
use super::package::Package;
use super::sets::Sets;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of the files that a job may leave in its output folder.
const FILES: [&str; 6] =
    ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json", "packages.txt", "install.log"];

/// An input of a job.
#[derive(Debug, Clone)]
pub struct Upload {
    /// File name.
    pub name: String,
    /// Content.
    pub content: Vec<u8>,
    /// Length of the file when it is longer than its content: the rest is a hole.
    pub sparse_len: Option<u64>,
}

impl Upload {
    /// A file of any name and content.
    pub fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        Self { name: name.to_owned(), content: content.as_ref().to_owned(), sparse_len: None }
    }

    /// A CSV file.
    pub fn csv(text: &str) -> Self {
        Self::new("input.csv", text)
    }

    /// A one-column table of a few rows, which every package of [`Package::new`] takes.
    pub fn names() -> Self {
        Self::csv("Name\nAda Lovelace\nGrace Hopper\n")
    }
}

/// A folder of its own for one run of `ade`: the package, the inputs, the output folder, the temporary folder, and
/// bystanders that nobody may touch.
#[derive(Debug)]
pub struct World {
    folder: tempfile::TempDir,
    /// Everything that must still be the same afterwards.
    before: BTreeMap<PathBuf, Vec<u8>>,
    /// The package as `ade` is given it.
    pub package: PathBuf,
    /// The inputs as `ade` is given them.
    pub inputs: Vec<PathBuf>,
    /// Whether `ade` was killed: what it had asked Docker for may still come.
    pub abandoned: bool,
    /// The dependency sets that its jobs find and make; its own, unless a test shares them between worlds.
    pub sets: Arc<Sets>,
}

impl World {
    /// A world with a package in a folder.
    pub fn new(package: &Package, uploads: &[Upload]) -> Self {
        Self::with(uploads, |root| {
            package.write_to(&root.join("package"));
            root.join("package")
        })
    }

    /// A world with a package file of this content, such as a zip.
    pub fn with_file(name: &str, content: &[u8], uploads: &[Upload]) -> Self {
        Self::with(uploads, |root| {
            std::fs::write(root.join(name), content).unwrap();
            root.join(name)
        })
    }

    fn with(uploads: &[Upload], package: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::Builder::new().prefix("ade-test-").tempdir().unwrap();
        let root = folder.path();
        for name in ["in", "tmp", "bystander"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::fs::write(root.join("bystander/ledger.txt"), "nobody's business").unwrap();
        let package = package(root);
        let inputs = uploads.iter().map(|upload| write_upload(&root.join("in"), upload)).collect();
        let before = snapshot(root);
        Self { folder, before, package, inputs, abandoned: false, sets: Arc::default() }
    }

    /// The folder of everything.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The output folder, which `ade` makes.
    pub fn out(&self) -> PathBuf {
        self.root().join("out")
    }

    /// Ids of jobs whose files are still being written in the output folder, the killed ones included.
    pub fn staged_jobs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.out()) else { return Vec::new() };
        entries
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("run-request.json")).ok())
            .filter_map(|text| Some(serde_json::from_slice::<Value>(&text).ok()?["job_id"].as_str()?.to_owned()))
            .collect()
    }

    /// Asserts that a job which has ended left its whole files and nothing else, anywhere.
    pub fn assert_untouched(&self, job_id: Option<&str>, status: Option<&str>) {
        let docker = Docker::connect();
        if let Some(id) = job_id {
            let left: Vec<_> =
                docker.containers_of(id).into_iter().map(|container| (container.names, container.state)).collect();
            assert!(left.is_empty(), "containers of the job are left: {left:?}");
        }
        let mut after = snapshot(self.root());
        let outputs: BTreeSet<PathBuf> = after.keys().filter(|path| path.starts_with("out")).cloned().collect();
        after.retain(|path, _| !outputs.contains(path));
        assert_eq!(
            self.before.keys().collect::<Vec<_>>(),
            after.keys().collect::<Vec<_>>(),
            "files came or went beside the output folder"
        );
        for (path, content) in &self.before {
            assert!(after[path] == *content, "{} was changed", path.display());
        }
        for path in outputs {
            let name = path.strip_prefix("out").unwrap().to_str().unwrap().to_owned();
            assert!(
                name.is_empty() || FILES.contains(&name.as_str()),
                "{name:?} does not belong into the output folder"
            );
        }
        self.assert_whole(status);
    }

    /// Every file in the output folder is complete, of the test's own user, and neither special nor executable.
    fn assert_whole(&self, status: Option<&str>) {
        let own = std::fs::metadata(self.root()).unwrap().uid();
        for name in FILES {
            let path = self.out().join(name);
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            assert!(metadata.is_file() && metadata.nlink() == 1, "{name} is no plain file");
            assert_eq!(
                (metadata.uid(), metadata.mode() & 0o7111),
                (own, 0),
                "{name} has an owner or a mode from the container"
            );
            let content = std::fs::read(&path).unwrap();
            match name {
                "normalized.xlsx" => assert!(content.starts_with(b"PK"), "{name} is half-written"),
                "events.ndjson" => {
                    let text = String::from_utf8(content).unwrap();
                    assert!(text.ends_with('\n'), "{name} is half-written");
                    text.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).expect("an event")));
                }
                "packages.txt" | "install.log" => assert!(content.ends_with(b"\n"), "{name} is half-written"),
                _ => drop(
                    serde_json::from_slice::<Value>(&content)
                        .unwrap_or_else(|error| panic!("{name} is half-written: {error}")),
                ),
            }
        }
        if let Some(status) = status {
            assert_eq!(
                self.out().join("normalized.xlsx").exists(),
                status == "succeeded",
                "a workbook of a job that {status}"
            );
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let staged = self.staged_jobs();
        let written = std::fs::read(self.out().join("run-request.json")).ok();
        let written =
            written.and_then(|text| Some(serde_json::from_slice::<Value>(&text).ok()?["job_id"].as_str()?.to_owned()));
        let jobs: Vec<String> = staged.into_iter().chain(written).collect();
        if jobs.is_empty() {
            return;
        }
        // Docker may be what failed the test; cleaning up must not panic in a panic.
        std::panic::catch_unwind(|| {
            let docker = Docker::connect();
            if self.abandoned {
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
            for job in &jobs {
                for container in docker.containers_of(job) {
                    docker.remove(&container.id.unwrap_or_default());
                }
            }
        })
        .ok();
    }
}

fn write_upload(folder: &Path, upload: &Upload) -> PathBuf {
    let path = folder.join(&upload.name);
    std::fs::write(&path, &upload.content).unwrap();
    if let Some(length) = upload.sparse_len {
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
    }
    path
}

/// Every path below a folder, relative, with the content of small files and the size of large ones; folders end in `/`.
fn snapshot(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let shown = entry.path().strip_prefix(root).unwrap().to_owned();
            if metadata.is_dir() {
                folders.push(entry.path());
                found.insert(shown, b"/".to_vec());
            } else if metadata.is_file() && metadata.len() < 1 << 20 {
                found.insert(shown, std::fs::read(entry.path()).unwrap());
            } else {
                found.insert(shown, format!("{:?} {}", metadata.file_type(), metadata.len()).into_bytes());
            }
        }
    }
    found
}
