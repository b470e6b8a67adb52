//! The embedded build context: `images/runner`, without its tests, and the runner's module as `build.rs` compiled it.

use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/images/runner");

/// The compiled `images/runner/native`, for the architecture of this program.
static MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ade_native.abi3.so"));

/// The files of the context, `(path with slashes, content)`, sorted by path. What only a developer's tree holds (tests, caches,
/// sources of what is compiled) is no part of it, so that the digest is the same wherever the program was compiled.
pub fn files() -> Vec<(String, &'static [u8])> {
    fn walk(directory: &'static Dir<'static>, found: &mut Vec<(String, &'static [u8])>) {
        for entry in directory.entries() {
            let name = entry.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.is_empty() || name.starts_with('.') || matches!(name, "tests" | "native" | "__pycache__") {
                continue;
            }
            match entry {
                DirEntry::Dir(directory) => walk(directory, found),
                DirEntry::File(file) => {
                    let path: Vec<&str> = file.path().iter().filter_map(|part| part.to_str()).collect();
                    found.push((path.join("/"), file.contents()));
                }
            }
        }
    }
    let mut found = vec![("ade_native.abi3.so".to_owned(), MODULE)];
    walk(&EMBEDDED, &mut found);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// SHA-256 over every file's name and content, hexadecimal. Lengths are hashed too: no two contexts run together.
pub fn sha256() -> String {
    let mut hash = Sha256::new();
    for (path, content) in files() {
        hash.update((path.len() as u64).to_be_bytes());
        hash.update(path.as_bytes());
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn text(path: &str) -> &'static str {
    EMBEDDED.get_file(path).and_then(|file| file.contents_utf8()).unwrap_or_default()
}

/// The registry image that the Dockerfile builds from unless told otherwise.
pub fn base_image() -> String {
    let prefix = "ARG BASE_IMAGE=";
    text("Dockerfile").lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default().to_owned()
}

/// The runner's version, `RUNNER_VERSION` in its package.
pub fn runner_version() -> String {
    let prefix = "RUNNER_VERSION = ";
    text("ade_runner/__init__.py")
        .lines()
        .find_map(|line| line.strip_prefix(prefix))
        .unwrap_or_default()
        .trim_matches('"')
        .to_owned()
}

/// The instructions of the Dockerfile's last stage that configure the image rather than fill it, one per line. Both routes take
/// the image's environment, user and command from here, so they cannot drift apart.
pub fn configuration() -> Vec<String> {
    let lines: Vec<&str> = text("Dockerfile").lines().collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap_or_default();
    let instructions = ["ENV ", "USER ", "CMD ", "WORKDIR "];
    lines[last..]
        .iter()
        .filter(|line| instructions.iter().any(|name| line.starts_with(name)))
        .map(|line| (*line).to_owned())
        .collect()
}

/// Writes the context into an existing directory.
///
/// # Errors
/// Those of the file system.
pub fn write_to(directory: &Path) -> io::Result<()> {
    for (path, content) in files() {
        let target = directory.join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(target, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_holds_what_both_routes_need_and_no_tests() {
        let names: Vec<String> = files().into_iter().map(|(name, _)| name).collect();
        for name in [
            "Dockerfile", "ade_native.abi3.so", "assemble.py", "boot.py", "bootstrap.sh", "requirements.lock",
            "ade_runner/__init__.py",
        ] {
            assert!(names.iter().any(|found| found == name), "{name} is missing from {names:?}");
        }
        assert!(
            !names.iter().any(|name| ["tests/", "native/", "__pycache__"].iter().any(|part| name.contains(part))),
            "{names:?}"
        );
    }

    #[test]
    fn the_base_image_is_pinned_by_digest() {
        let base = base_image();
        let digest = base.split_once("@sha256:").map(|(_, digest)| digest).expect("a digest");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{base}");
    }

    #[test]
    fn the_configuration_of_the_last_stage_is_complete() {
        let configuration = configuration();
        assert_eq!(configuration.iter().filter(|line| line.starts_with("ENV ")).count(), 6);
        assert!(configuration.iter().any(|line| line == "USER 65532:65532"));
        assert!(configuration.iter().any(|line| line.starts_with("CMD [\"/usr/bin/python3\"") && line.ends_with(']')));
    }

    #[test]
    fn the_runner_version_is_read_from_the_runner() {
        let version = runner_version();
        assert!(
            version.split('.').count() == 3 && version.starts_with(|first: char| first.is_ascii_digit()),
            "{version}"
        );
    }
}
