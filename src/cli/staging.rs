//! The output folder of a job: whole files of one job, or what was there before.

use crate::job::FILES;
use crate::sandbox::{Failure, FailureKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A hidden folder inside the output folder, so that every file can be moved into place by a rename on one file system.
pub struct Staging {
    folder: Arc<TempDir>,
    out: PathBuf,
    made: Vec<PathBuf>,
}

impl Staging {
    /// Makes the output folder where there is none, and the hidden one in it.
    ///
    /// # Errors
    /// `host_io`.
    pub fn create(out: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                FailureKind::HostIo,
                format!("cannot write to {}: {error}; choose another folder with --out", out.display()),
            )
        };
        for path in FILES.map(|name| out.join(name)) {
            if path.is_dir() {
                let message =
                    format!("cannot write {}: it is a folder; choose another folder with --out", path.display());
                return Err(Failure::new(FailureKind::HostIo, message));
            }
        }
        let made: Vec<PathBuf> = out
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_owned)
            .collect();
        std::fs::create_dir_all(out).map_err(failed)?;
        let folder = tempfile::Builder::new().prefix(".ade-").tempdir_in(out).map_err(failed)?;
        Ok(Self { folder: Arc::new(folder), out: out.to_owned(), made })
    }

    /// The hidden folder.
    pub const fn folder(&self) -> &Arc<TempDir> {
        &self.folder
    }

    /// Moves the job's files into place, and removes those of an earlier job that this one did not make. The workbook goes
    /// first and comes last: whenever there is one, the files beside it are of the same job.
    ///
    /// # Errors
    /// `host_io`.
    pub fn commit(mut self, files: &[&str]) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::new(FailureKind::HostIo, format!("cannot write {}: {error}", path.display()))
        };
        for name in FILES {
            let to = self.out.join(name);
            if name != "normalized.xlsx" && files.contains(&name) {
                continue;
            }
            std::fs::remove_file(&to)
                .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
                .map_err(|error| failed(&to, error))?;
        }
        for name in FILES.into_iter().rev().filter(|name| files.contains(name)) {
            let to = self.out.join(name);
            std::fs::rename(self.folder.path().join(name), &to).map_err(|error| failed(&to, error))?;
        }
        self.made.clear();
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.folder.path()).ok();
        // Folders that this command made for nothing go again; one with anything in it stays.
        for folder in &self.made {
            std::fs::remove_dir(folder).ok();
        }
    }
}
