//! The dependency sets of a test, and their end.

use super::docker::Docker;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A folder of records of dependency sets (`ADE_DEPS_DIR`). Dropping it, also in a panic, removes the volumes that belong to it,
/// and what containers still have them.
#[derive(Debug)]
pub struct Sets(tempfile::TempDir);

impl Default for Sets {
    fn default() -> Self {
        Self(tempfile::Builder::new().prefix("ade-test-sets-").tempdir().unwrap())
    }
}

impl Sets {
    /// The folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Its records.
    pub fn records(&self) -> Vec<Value> {
        records_in(self.folder())
    }

    /// Names of its volumes, whole or not.
    pub fn volumes(&self) -> Vec<String> {
        volumes_of(self.folder())
    }

    /// Asserts that every volume is a whole set, every set has its volume, and no container is left that has one.
    #[track_caller]
    pub fn assert_at_rest(&self) {
        let recorded: BTreeSet<String> =
            self.records().iter().map(|record| record["volume"].as_str().unwrap().to_owned()).collect();
        let volumes: BTreeSet<String> = self.volumes().into_iter().collect();
        assert_eq!(volumes, recorded, "volumes of sets, and what the records name");
        let docker = Docker::connect();
        for volume in &volumes {
            assert_eq!(docker.users_of(volume), Vec::<String>::new(), "containers have {volume}");
        }
    }
}

impl Drop for Sets {
    fn drop(&mut self) {
        remove_all(self.folder());
    }
}

/// The records in a folder of sets.
pub fn records_in(folder: &Path) -> Vec<Value> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    files(folder)
        .iter()
        .flat_map(|workspace| files(workspace))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).expect("a record is whole"))
        .collect()
}

/// The volumes of a folder of sets.
pub fn volumes_of(folder: &Path) -> Vec<String> {
    // Without an id, nothing was ever installed.
    let Ok(id) = std::fs::read_to_string(folder.join("id")) else { return Vec::new() };
    Docker::connect().volumes_with(&format!("dev.ade.deps.index={}", id.trim()))
}

/// Removes the volumes of a folder of sets. Docker may be what failed the test; cleaning up must not panic in a panic.
pub fn remove_all(folder: &Path) {
    let folder = folder.to_owned();
    std::panic::catch_unwind(move || {
        for volume in volumes_of(&folder) {
            Docker::connect().remove_volume(&volume);
        }
    })
    .ok();
}
