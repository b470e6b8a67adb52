//! One build at a time per context, across processes.
//!
//! Two builds at once would be harmless (each imports a whole image, and a name points to one of them), only wasteful. So the
//! lock is advisory: where it cannot be had, the build goes on without. The kernel frees it when its holder dies.

use std::fs::{File, TryLockError};
use std::time::Duration;

/// How often a waiting process looks again.
const POLL: Duration = Duration::from_millis(200);

/// Waits for the lock of a context; `None` when the host has no place for one. Held until dropped.
pub async fn acquire(context_sha256: &str, say: &mut dyn FnMut(&str)) -> Option<File> {
    let path = std::env::temp_dir().join(format!("ade-image-{}.lock", &context_sha256[..12]));
    let file = File::options().create(true).append(true).open(path).ok()?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if !told => {
                say("image: another process is building it; waiting for that");
                told = true;
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
            Err(TryLockError::Error(_)) => return None,
        }
    }
}
