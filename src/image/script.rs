//! Running bootstrap.sh: its output bounded, its processes gone when we are.

use super::{BuildOptions, ImageError, Route, context};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Lines of output kept for an error message.
const TAIL_LINES: usize = 15;
/// Bytes kept of each of them, about.
const LINE_BYTES: usize = 300;
/// How long an interrupted script may take to clean up.
const GRACE: Duration = Duration::from_secs(15);
/// After how long it is told again: a program that was just being started, or was changing its handlers, has not heard.
const AGAIN: Duration = Duration::from_secs(2);

/// The last lines of some output, each cut to a bearable length.
#[derive(Default)]
pub struct Tail(VecDeque<String>);

impl Tail {
    /// Adds one line, without its colours; other control characters are dropped too.
    pub fn push(&mut self, line: &str) {
        let mut kept = String::new();
        let mut characters = line.trim_end().chars();
        while let Some(character) = characters.next() {
            if character == '\u{1b}' {
                // ESC [ … letter: skipped to its final letter.
                characters.by_ref().find(char::is_ascii_alphabetic);
            } else if !character.is_control() {
                kept.push(character);
            }
            if kept.len() >= LINE_BYTES {
                break;
            }
        }
        if kept.is_empty() {
            return;
        }
        if self.0.len() == TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(kept);
    }

    /// The lines kept, joined.
    pub fn text(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// A temporary directory that other users of the host may enter: mmdebstrap in a user namespace is one.
pub fn work_directory() -> Result<TempDir, ImageError> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
    builder.prefix("ade-image-").tempdir().map_err(ImageError::host("creating a temporary directory"))
}

/// Runs bootstrap.sh from a copy of the context in `work`, telling its own lines to `say`. The outer `Result` is what the host
/// or the user did, the inner one whether the script succeeded, with its last lines when not.
pub async fn run(
    work: &Path,
    arguments: &[&OsStr],
    architecture: Option<&str>,
    options: &BuildOptions,
    say: &mut (dyn FnMut(&str) + Send),
) -> Result<Result<(), String>, ImageError> {
    let directory = work.join("context");
    std::fs::create_dir_all(&directory)
        .and_then(|()| context::write_to(&directory))
        .map_err(ImageError::host("writing the build context"))?;

    let mut command = Command::new("sh");
    command.arg(directory.join("bootstrap.sh")).args(arguments).env("TMPDIR", work);
    if let Some(architecture) = architecture {
        command.env("ADE_ARCHITECTURE", architecture);
    }
    if let Some(mirror) = &options.debian_mirror {
        command.env("ADE_DEBIAN_MIRROR", mirror);
    }
    if let Some(mirror) = &options.debian_security_mirror {
        command.env("ADE_DEBIAN_SECURITY_MIRROR", mirror);
    }
    if let Some(url) = &options.index_url {
        command.env("ADE_INDEX_URL", url);
    }
    if let Some(directory) = &options.wheelhouse {
        command.env("ADE_WHEELHOUSE", directory);
    }
    if let Some(bundle) = &options.ca_bundle {
        command.env("ADE_CA_BUNDLE", bundle);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Its own process group, so that all of it can be told to stop.
    #[cfg(unix)]
    command.process_group(0);

    let mut group = Group(command.spawn().map_err(ImageError::host("running sh"))?);
    let stderr = group.0.stderr.take();
    let mut tail = Tail::default();
    let status = tokio::select! {
        status = async {
            if let Some(stderr) = stderr {
                follow(stderr, &mut tail, say).await;
            }
            group.0.wait().await
        } => status.map_err(ImageError::host("waiting for bootstrap.sh"))?,
        _ = tokio::signal::ctrl_c() => {
            group.end().await;
            return Err(ImageError::Cancelled);
        }
    };
    Ok(if status.success() { Ok(()) } else { Err(tail.text()) })
}

/// Reads lines until the end. A line without end is cut, never collected.
async fn follow(stream: impl AsyncRead + Unpin, tail: &mut Tail, say: &mut (dyn FnMut(&str) + Send)) {
    const READ_BYTES: u64 = 8192;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(READ_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line);
                if let Some(own) = text.strip_prefix("bootstrap: ") {
                    say(&format!("image: {}", own.trim_end()));
                }
                tail.push(&text);
            }
        }
    }
}

/// A child and all it has started; none of it outlives this value.
struct Group(Child);

impl Group {
    /// Has all of it stop, by force if it must be.
    async fn end(&mut self) {
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            self.signal("TERM");
            if tokio::time::timeout(AGAIN, self.0.wait()).await.is_ok() {
                return;
            }
        }
        self.signal("KILL");
        tokio::time::timeout(AGAIN, self.0.wait()).await.ok();
    }

    fn signal(&self, name: &str) {
        // No id means that it was waited for.
        if let Some(id) = self.0.id() {
            // The shell's own kill: the only way to signal a group without unsafe code or another dependency. With -s, as POSIX has
            // it: dash takes no `--` after -TERM.
            std::process::Command::new("sh")
                .args(["-c", "kill -s \"$1\" -- \"-$2\"", "sh", name, &id.to_string()])
                .stderr(Stdio::null())
                .status()
                .ok();
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal("TERM");
    }
}

/// The error of a script that failed.
pub fn failed(route: Route, output: String) -> ImageError {
    ImageError::Failed {
        route,
        what: "bootstrap.sh failed".to_owned(),
        output,
        hint: "mend what it says and try again; docs/operations/base-image.md has the settings",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_and_no_terminal_escapes() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(&format!("\x1b[31mline {number}\n"));
        }
        tail.push(&"x".repeat(10_000));
        let text = tail.text();
        assert_eq!(text.lines().count(), TAIL_LINES);
        assert!(text.starts_with("line 86"), "{text}");
        assert!(text.lines().all(|line| line.len() <= LINE_BYTES));
    }

    #[tokio::test]
    async fn an_endless_line_does_not_grow_memory() {
        let endless = tokio::io::repeat(b'x').take(1 << 24);
        let mut tail = Tail::default();
        follow(endless, &mut tail, &mut |_| {}).await;
        assert_eq!(tail.0.len(), TAIL_LINES);
    }
}
