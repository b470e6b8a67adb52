//! The rules for paths in a package, the same for folders and zips.

use std::collections::HashMap;

use super::caps::PackageCaps;
use super::error::PackageError;
use super::text::shown;

/// Checks a path as found and returns it relative to the package's root, `/`-separated, without a leading `./` or a
/// trailing `/`; the root itself is the empty path. What it refuses, it refuses for entries that would be left out as well.
pub(super) fn safe_path(raw: &[u8]) -> Result<&str, PackageError> {
    let Ok(path) = std::str::from_utf8(raw) else {
        return Err(unsafe_entry(
            &String::from_utf8_lossy(raw),
            "has a name that is not UTF-8",
            "Rename it, or make the zip with a tool that writes UTF-8 names.",
        ));
    };
    let refuse = |problem| Err(unsafe_entry(path, problem, "Rename it or leave it out."));
    if path.contains('\0') {
        return refuse("has a NUL character in its name");
    }
    if path.chars().any(char::is_control) {
        return refuse("has a control character in its name");
    }
    if path.contains('\\') {
        return refuse("has a backslash in its name; parts of a path are separated by /");
    }
    if path.starts_with('/') || has_drive(path) {
        return refuse("is an absolute path");
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.is_empty() || path == "." {
        return Ok("");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("has an empty part in its path"),
            "." => return refuse("has a . in its path"),
            ".." => return refuse("has a .. in its path and could leave the package"),
            _ => {}
        }
    }
    Ok(path)
}

/// Whether the path begins like `C:`, a drive on Windows.
fn has_drive(path: &str) -> bool {
    let mut chars = path.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some(':')
}

/// Whether the path is no part of the package: dotfiles, anything in a dot-directory, and Python's bytecode caches.
/// Editors, version control and operating systems leave them behind; they must not change a package's hash.
pub(super) fn left_out(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.') || part == "__pycache__")
}

/// Refuses paths beyond the caps on length and depth.
pub(super) fn within_caps(path: &str, caps: &PackageCaps) -> Result<(), PackageError> {
    if path.len() > caps.path_bytes {
        return Err(PackageError::PathTooLong {
            path: shown(path),
            amount: format!("is {} bytes long", path.len()),
            limit: format!("{} bytes", caps.path_bytes),
        });
    }
    let depth = path.split('/').count();
    if depth > caps.depth {
        return Err(PackageError::PathTooLong {
            path: shown(path),
            amount: format!("has {depth} parts"),
            limit: format!("{} parts", caps.depth),
        });
    }
    Ok(())
}

/// An [`PackageError::EntryUnsafe`] about `path`.
pub(super) fn unsafe_entry(path: &str, problem: &'static str, way_out: &'static str) -> PackageError {
    PackageError::EntryUnsafe { entry: shown(path), problem, way_out }
}

/// All paths seen so far, to find two that cannot both exist on every file system.
#[derive(Default)]
pub(super) struct PathIndex {
    /// Folded path → the path as written and whether it is a file.
    seen: HashMap<String, (String, bool)>,
}

impl PathIndex {
    /// Adds a file and the folders above it.
    pub(super) fn add_file(&mut self, path: &str) -> Result<(), PackageError> {
        for (end, _) in path.match_indices('/') {
            self.add(&path[..end], false, path)?;
        }
        self.add(path, true, path)
    }

    fn add(&mut self, path: &str, is_file: bool, entry: &str) -> Result<(), PackageError> {
        let Some((seen, seen_is_file)) = self.seen.get(&path.to_lowercase()) else {
            self.seen.insert(path.to_lowercase(), (path.to_owned(), is_file));
            return Ok(());
        };
        let problem = match (seen == path, *seen_is_file, is_file) {
            (true, false, false) => return Ok(()),
            (true, true, true) => "two entries of one name",
            (true, ..) => "one of which needs a folder where the other is a file",
            (false, ..) => "whose names differ only in upper and lower case",
        };
        Err(PackageError::EntryConflict { first: shown(seen), second: shown(entry), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(raw: &[u8]) -> String {
        match safe_path(raw) {
            Err(error) => {
                assert_eq!(error.code(), "package_entry_unsafe");
                error.to_string()
            }
            Ok(path) => panic!("accepted as {path:?}"),
        }
    }

    #[test]
    fn a04_paths_that_could_leave_the_package_or_mean_another_file_are_refused() {
        assert!(problem(b"../manifest.json").contains("leave the package"));
        assert!(problem(b"columns/../../x").contains("leave the package"));
        assert!(problem(b".hidden/../../x").contains("leave the package"));
        assert!(problem(b"/etc/passwd").contains("absolute"));
        assert!(problem(b"C:/x").contains("absolute"));
        assert!(problem(b"columns\\a.py").contains("backslash"));
        assert!(problem(b"a\0b").contains("NUL"));
        assert!(problem(b"a\nb").contains("control"));
        assert!(problem(b"a\xffb").contains("UTF-8"));
        assert!(problem(b"a//b").contains("empty part"));
        assert!(problem(b"a/./b").contains("a ."));
    }

    #[test]
    fn ordinary_paths_pass_unchanged_and_the_root_is_empty() {
        for path in ["manifest.json", "columns/email.py", "resources/straße ü.csv", "a..b/c...d", "résumé"] {
            assert_eq!(safe_path(path.as_bytes()).unwrap(), path);
        }
        assert_eq!(safe_path(b"./manifest.json").unwrap(), "manifest.json");
        assert_eq!(safe_path(b"columns/").unwrap(), "columns");
        assert_eq!(safe_path(b"./").unwrap(), "");
    }

    #[test]
    fn dotfiles_dot_directories_and_bytecode_caches_are_left_out() {
        for path in [".DS_Store", ".git/config", "columns/.x.swp", "columns/__pycache__/a.pyc", "__MACOSX/._a"] {
            assert!(left_out(path), "{path}");
        }
        for path in ["manifest.json", "columns/__init__.py", "a.b/c"] {
            assert!(!left_out(path), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_too_long_or_too_deep_names_both_numbers() {
        let caps = PackageCaps { depth: 2, path_bytes: 10, ..PackageCaps::default() };
        assert!(within_caps("a/b", &caps).is_ok());
        let deep = within_caps("a/b/c", &caps).unwrap_err();
        assert_eq!(deep.code(), "package_too_large");
        assert!(deep.to_string().contains("3 parts") && deep.to_string().contains("2 parts"), "{deep}");
        let long = within_caps("abcdefghijk", &caps).unwrap_err();
        assert!(long.to_string().contains("11 bytes") && long.to_string().contains("10 bytes"), "{long}");
    }

    #[test]
    fn names_that_collide_somewhere_are_refused() {
        let clash = |paths: &[&str]| {
            let mut index = PathIndex::default();
            paths.iter().try_for_each(|path| index.add_file(path)).map_err(|error| error.to_string())
        };
        assert_eq!(clash(&["a/b.py", "a/c.py", "b"]), Ok(()));
        assert!(clash(&["a/b.py", "a/b.py"]).unwrap_err().contains("one name"));
        assert!(clash(&["a/b.py", "a/B.py"]).unwrap_err().contains("upper and lower"));
        assert!(clash(&["a/b.py", "A/c.py"]).unwrap_err().contains("upper and lower"));
        assert!(clash(&["a", "a/b"]).unwrap_err().contains("folder"));
        assert!(clash(&["a/b", "a"]).unwrap_err().contains("folder"));
    }
}
