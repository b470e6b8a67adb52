//! One build at a time per context, across processes.
//!
//! Two builds at once would be harmless (each imports a whole image, and a name points to one of them), only wasteful. So the
//! lock is advisory: where it cannot be had, the build goes on without. The kernel frees it when its holder dies.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a waiting process looks again.
const POLL: Duration = Duration::from_millis(200);

/// The lock of a context; freed, and its file removed, when dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    // Held for its lock only.
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is still held: whoever gets hold of this file later sees that its name is gone, and begins anew.
        std::fs::remove_file(&self.path).ok();
    }
}

/// Waits for the lock of a context; `None` when the host has no place for one.
pub async fn acquire(context_sha256: &str, say: &mut (dyn FnMut(&str) + Send)) -> Option<Lock> {
    let path = std::env::temp_dir().join(format!("ade-image-{}.lock", &context_sha256[..12]));
    let mut told = false;
    let mut file = None;
    loop {
        let held = match file.take() {
            Some(file) => file,
            None => File::options().create(true).append(true).open(&path).ok()?,
        };
        match held.try_lock() {
            Ok(()) if is_at(&held, &path) => return Some(Lock { path, _file: held }),
            // Its last holder has removed it.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !told {
                    say("image: another process is building it; waiting for that");
                    told = true;
                }
                tokio::time::sleep(POLL).await;
                file = Some(held);
            }
            Err(TryLockError::Error(_)) => return None,
        }
    }
}

/// Whether an open file is what a path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiters_get_the_lock_one_after_the_other_and_no_file_is_left() {
        let context = format!("{:0>12}", std::process::id());
        let running = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let work = (0..4).map(|_| {
            let (context, running) = (context.clone(), running.clone());
            async move {
                let lock = acquire(&context, &mut |_| {}).await.unwrap();
                assert_eq!(running.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0, "one at a time");
                tokio::time::sleep(Duration::from_millis(20)).await;
                running.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                drop(lock);
            }
        });
        futures_util::future::join_all(work).await;
        assert!(!std::env::temp_dir().join(format!("ade-image-{context}.lock")).exists());
    }
}
