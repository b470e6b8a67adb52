//! Whatever a container sends as its outputs: nothing but the two expected files appears, each a plain file within the limit,
//! and nothing beside the folder changes.

use ade::sandbox::archive::{OUTPUTS, read_outputs};
use std::os::unix::fs::MetadataExt;

const LIMIT: u64 = 4096;

/// Holds for any input, or panics.
pub fn run(data: &[u8]) {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path().join("outputs");
    std::fs::create_dir(&folder).unwrap();
    let result = read_outputs(data, &folder, LIMIT, &OUTPUTS);
    let beside: Vec<_> = std::fs::read_dir(world.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "something appeared beside the folder");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(OUTPUTS.contains(&name.as_str()), "{name:?} appeared");
        let metadata = std::fs::symlink_metadata(entry.path()).unwrap();
        assert!(metadata.is_file() && metadata.nlink() == 1 && metadata.len() <= LIMIT, "{name}: {metadata:?}");
        assert_eq!(metadata.mode() & 0o7111, 0, "{name} has a mode of the archive");
        found.push(name);
    }
    if let Ok(mut names) = result {
        names.sort();
        found.sort();
        assert_eq!(names, found, "what is reported is what is there");
    }
}
