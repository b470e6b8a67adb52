//! Records of dependency sets: one file for each in a folder of this machine, since a set is a volume of its Docker Engine.
//!
//! A record is written when an install has ended well, in one step, and is the only thing that makes a volume a set. Each key has
//! a lock file besides: shared while a job uses the set, exclusive while it is installed or removed. The kernel frees locks when
//! their holder dies.

use super::Place;
use crate::sandbox::{Failure, FailureKind, label};
use crate::text::plain;
use bollard::Docker;
use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptionsBuilder, RemoveVolumeOptionsBuilder};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use ulid::Ulid;

/// How often a process looks again for the lock of another.
const POLL: Duration = Duration::from_millis(100);
/// Largest record that is read, bytes.
const MAX_RECORD: u64 = 8 * 1024 * 1024;

/// One package of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// Canonical name (PEP 503).
    pub name: String,
    /// Version.
    pub version: String,
    /// Hash of the file it was installed from, lower-case hex.
    pub sha256: String,
    /// Whether the package itself asks for it, rather than what it needs.
    pub requested: bool,
    /// Name of that file.
    #[serde(default)]
    pub filename: String,
    /// Where it came from; never shown, since it may hold credentials.
    #[serde(default, skip_serializing)]
    pub url: String,
}

/// A set that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Id, from the key and the lock.
    pub set_id: String,
    /// What it is found by: workspace, requirements, image and policy.
    pub key: String,
    /// Its workspace.
    pub workspace_id: String,
    /// The Docker volume.
    pub volume: String,
    /// RFC 3339.
    pub created_at: String,
    /// Image that it was installed with.
    pub image_digest: String,
    /// Version of Python.
    pub python: String,
    /// Program that installed it.
    pub tool: String,
    /// Its version.
    pub tool_version: String,
    /// `index` or `wheelhouse`.
    pub source: String,
    /// Requirements, normalized.
    pub requirements: Vec<String>,
    /// Hash of the lock, lower-case hex.
    pub lock_sha256: String,
    /// The lock, as a requirements file with hashes.
    pub lock: String,
    /// What is in it.
    pub packages: Vec<Locked>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// How long the install took.
    pub install_ms: u64,
    /// The start of the machine during which it was installed.
    #[serde(default)]
    pub boot_id: String,
}

/// A record with what its file says besides.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Last use, seconds since the Unix epoch.
    pub last_used: u64,
}

/// The folder of records.
#[derive(Debug, Clone)]
pub struct Sets {
    root: PathBuf,
    /// All sets together, bytes.
    budget: u64,
}

/// A lock on a key; freed when dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held for its lock only")] File);

impl Sets {
    /// Records in `root`, which is made when the first is written; sets above `budget` bytes in sum make the least recently used
    /// go.
    #[must_use]
    pub const fn new(root: PathBuf, budget: u64) -> Self {
        Self { root, budget }
    }

    fn path(&self, workspace_id: &str, key: &str, kind: &str) -> PathBuf {
        self.root.join(workspace_id).join(format!("{key}.{kind}"))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::new(
            FailureKind::HostIo,
            format!(
                "cannot keep records of dependency sets in {}: {error}; free space there, or choose another folder with ADE_DEPS_DIR",
                self.root.display()
            ),
        )
    }

    /// The lock file of a key.
    fn lock_file(&self, workspace_id: &str, key: &str) -> std::io::Result<File> {
        let path = self.path(workspace_id, key, "lock");
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        File::options().create(true).append(true).open(path)
    }

    /// Takes the lock for an install; waits for other processes.
    ///
    /// # Errors
    /// `host_io`.
    pub async fn lock(&self, workspace_id: &str, key: &str) -> Result<Lock, Failure> {
        let file = self.lock_file(workspace_id, key).map_err(|error| self.failed(&error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
                Err(TryLockError::Error(error)) => return Err(self.failed(&error)),
            }
        }
    }

    /// The set of a key with a lock on it, when there is one and Docker still has its volume. Marks it as used.
    ///
    /// # Errors
    /// `host_io` or `engine_unavailable`.
    pub async fn find(
        &self,
        docker: &Docker,
        workspace_id: &str,
        key: &str,
    ) -> Result<Option<(Record, Lock)>, Failure> {
        let path = self.path(workspace_id, key, "json");
        if !path.exists() {
            return Ok(None);
        }
        let file = self.lock_file(workspace_id, key).map_err(|error| self.failed(&error))?;
        match file.try_lock_shared() {
            Ok(()) => {}
            // It is being installed or removed.
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(self.failed(&error)),
        }
        Ok(self.whole(docker, workspace_id, key).await?.map(|record| (record, Lock(file))))
    }

    /// The set of a key, for whoever has its lock.
    ///
    /// # Errors
    /// `engine_unavailable`.
    pub async fn whole(&self, docker: &Docker, workspace_id: &str, key: &str) -> Result<Option<Record>, Failure> {
        let path = self.path(workspace_id, key, "json");
        let Some(record) = read(&path).filter(|record| record.key == key && record.workspace_id == workspace_id) else {
            return Ok(None);
        };
        if record.boot_id != boot_id() && !settled(&path, &record) {
            return Ok(None);
        }
        match docker.inspect_volume(&record.volume).await {
            Ok(volume) if volume.labels.get(label::DEPS).is_some_and(|label| label == key) => {}
            // Docker makes an empty volume, without labels, of one that went as a container was about to mount it.
            Ok(_) => {
                remove_volume(docker, &record.volume).await;
                return Ok(None);
            }
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        }
        if let Ok(file) = File::options().append(true).open(&path) {
            file.set_modified(SystemTime::now()).ok();
        }
        Ok(Some(record))
    }

    /// Makes a volume that is no set yet.
    ///
    /// # Errors
    /// `engine_unavailable`, `host_io`.
    pub async fn new_volume(&self, place: &Place, workspace_id: &str, key: &str) -> Result<String, Failure> {
        let name = format!("ade-deps-{}-{}", &key[..12.min(key.len())], Ulid::new().to_string().to_lowercase());
        let mut labels = place.labels.clone();
        labels.insert(label::WORKSPACE.to_owned(), workspace_id.to_owned());
        labels.insert(label::DEPS.to_owned(), key.to_owned());
        labels.insert(label::DEPS_INDEX.to_owned(), self.id().map_err(|error| self.failed(&error))?);
        labels.remove(label::DEADLINE);
        let body =
            VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..VolumeCreateRequest::default() };
        place.docker.create_volume(body).await.map_err(|error| unavailable(&error))?;
        Ok(name)
    }

    /// Writes the record of an installed set, in one step, and its log. From here on the volume is a set.
    ///
    /// # Errors
    /// `host_io`.
    pub fn record(&self, record: &Record, log: &str) -> Result<(), Failure> {
        let text = serde_json::to_string(record).map_err(|error| self.failed(&error.into()))?;
        let write = |kind: &str, text: &str| -> std::io::Result<()> {
            let path = self.path(&record.workspace_id, &record.key, kind);
            let folder = path.parent().unwrap_or(&self.root);
            std::fs::create_dir_all(folder)?;
            let mut file = NamedTempFile::new_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(folder)?.sync_all()
        };
        write("log", log).and_then(|()| write("json", &text)).map_err(|error| self.failed(&error))
    }

    /// What the installer of a set said.
    #[must_use]
    pub fn log(&self, record: &Record) -> String {
        std::fs::read_to_string(self.path(&record.workspace_id, &record.key, "log")).unwrap_or_default()
    }

    /// Every set, the most recently used first.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let mut found = Vec::new();
        for workspace in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            for file in std::fs::read_dir(workspace.path()).into_iter().flatten().flatten() {
                let path = file.path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                let Some(record) = read(&path) else { continue };
                let modified =
                    file.metadata().and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                let last_used = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                found.push((modified, Listed { record, last_used }));
            }
        }
        // By more than the seconds that are shown: sets are often used in quick succession.
        found.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.record.set_id.cmp(&other.record.set_id)));
        found.into_iter().map(|(_, listed)| listed).collect()
    }

    /// Removes a set, unless somebody uses it; whether it is gone.
    pub async fn remove(&self, docker: &Docker, record: &Record) -> bool {
        let Ok(lock) = self.lock_file(&record.workspace_id, &record.key) else { return false };
        if lock.try_lock().is_err() {
            return false;
        }
        let path = self.path(&record.workspace_id, &record.key, "json");
        // Another set may have taken its place since it was listed.
        if read(&path).is_some_and(|current| current.volume == record.volume) {
            // The record goes first: what is left of a volume without one is no set.
            if std::fs::remove_file(&path).is_err() {
                return false;
            }
            std::fs::remove_file(self.path(&record.workspace_id, &record.key, "log")).ok();
        }
        remove_volume(docker, &record.volume).await
    }

    /// Removes the least recently used sets until the rest is within the budget; how many went.
    pub async fn evict(&self, docker: &Docker) -> usize {
        let mut sets = self.list();
        let mut total: u64 = sets.iter().map(|set| set.record.bytes).sum();
        let mut removed = 0;
        while total > self.budget
            && let Some(set) = sets.pop()
        {
            if self.remove(docker, &set.record).await {
                total = total.saturating_sub(set.record.bytes);
                removed += 1;
            }
        }
        removed
    }

    /// Removes volumes of this folder's sets that no record names and nobody installs into, and records without a volume.
    pub async fn sweep(&self, docker: &Docker) {
        if !self.root.exists() {
            return;
        }
        let Ok(id) = self.id() else { return };
        let filters = HashMap::from([("label".to_owned(), vec![format!("{}={id}", label::DEPS_INDEX)])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filters).build();
        let Ok(listed) = docker.list_volumes(Some(options)).await else { return };
        let volumes = listed.volumes.unwrap_or_default();
        for volume in &volumes {
            let (Some(key), Some(workspace_id)) = (volume.labels.get(label::DEPS), volume.labels.get(label::WORKSPACE))
            else {
                continue;
            };
            if !sound(key) || !sound(workspace_id) {
                continue;
            }
            let Ok(lock) = self.lock_file(workspace_id, key) else { continue };
            // Held by an install that goes on, in this process or another.
            if lock.try_lock().is_err() {
                continue;
            }
            let record = read(&self.path(workspace_id, key, "json"));
            if record.is_none_or(|record| record.volume != volume.name) && remove_volume(docker, &volume.name).await {
                tracing::info!(volume = volume.name, "removed what an unfinished install left");
            }
        }
        for set in self.list() {
            if !volumes.iter().any(|volume| volume.name == set.record.volume) {
                self.remove(docker, &set.record).await;
            }
        }
    }

    /// What this folder is known by: several may use one Docker Engine.
    fn id(&self) -> std::io::Result<String> {
        let path = self.root.join("id");
        loop {
            match std::fs::read_to_string(&path) {
                Ok(text) if sound(text.trim()) && !text.trim().is_empty() => return Ok(text.trim().to_owned()),
                Ok(_) => return Err(std::io::Error::other(format!("{} is damaged; remove it", path.display()))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            std::fs::create_dir_all(&self.root)?;
            let mut file = NamedTempFile::new_in(&self.root)?;
            writeln!(file, "{}", Ulid::new().to_string().to_lowercase())?;
            match file.persist_noclobber(&path) {
                Ok(_) => {}
                Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.error),
            }
        }
    }
}

/// Removes a volume; whether it is gone.
pub async fn remove_volume(docker: &Docker, name: &str) -> bool {
    let options = RemoveVolumeOptionsBuilder::default().force(true).build();
    match docker.remove_volume(name, Some(options)).await {
        Ok(()) => true,
        Err(error) if status(&error) == Some(404) => true,
        Err(error) => {
            tracing::warn!(
                volume = name,
                error = plain(&error.to_string(), 300),
                "a volume is left for the next sweep"
            );
            false
        }
    }
}

/// The current start of this machine, random (proc(5)).
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether a set of an earlier start of the machine was used long enough after its install for all of it to be on the disk: the
/// kernel writes what is older than 30 s. Waiting for that in every install would cost seconds; a set that was used just
/// once and then lost its machine is installed anew.
fn settled(path: &Path, record: &Record) -> bool {
    let used = path.metadata().and_then(|metadata| metadata.modified()).map(OffsetDateTime::from);
    let made = OffsetDateTime::parse(&record.created_at, &Rfc3339);
    matches!((used, made), (Ok(used), Ok(made)) if used - made > Duration::from_secs(120))
}

fn read(path: &Path) -> Option<Record> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > MAX_RECORD {
        return None;
    }
    serde_json::from_reader(std::io::BufReader::new(file)).ok()
}

/// Whether a text may stand in a path of ours.
fn sound(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn unavailable(error: &bollard::errors::Error) -> Failure {
    Failure::new(
        FailureKind::EngineUnavailable,
        format!(
            "Docker did not answer for a volume: {}; `ade doctor` checks the engine",
            plain(&error.to_string(), 300)
        ),
    )
}
