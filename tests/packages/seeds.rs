//! The fuzz targets over their committed seeds: so they compile with everything else, and what was once found stays mended.

#[path = "../fuzz/targets/frames.rs"]
mod frames;
#[path = "../fuzz/targets/outputs.rs"]
mod outputs;
#[path = "../fuzz/targets/package.rs"]
mod package;

use std::path::Path;

/// Runs a target over its seeds, and over each with a bit of it turned and cut in half.
fn over_seeds(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        run(&seed);
        run(&seed[..seed.len() / 2]);
        for place in (0..seed.len()).step_by(seed.len().div_ceil(50).max(1)) {
            let mut turned = seed.clone();
            turned[place] ^= 1 << (place % 8);
            run(&turned);
        }
        seeds += 1;
    }
    assert!(seeds > 3, "{target} has seeds");
}

#[test]
fn frames_of_any_bytes() {
    over_seeds("frames", frames::run);
}

#[test]
fn outputs_of_any_bytes() {
    over_seeds("outputs", outputs::run);
}

#[test]
fn packages_of_any_bytes() {
    over_seeds("package", package::run);
}
