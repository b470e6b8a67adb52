//! The build context of the runner image and the migrations are embedded in the program; a changed or new file there means a
//! new program. The context's compiled part is made here, by a cargo of its own with its own flags.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The runner's module, under the name that Python looks for.
const MODULE: &str = "ade_native.abi3.so";

fn main() {
    for path in ["images/runner", "migrations", "Cargo.lock", "Cargo.toml"] {
        println!("cargo:rerun-if-changed={path}");
    }
    if let Err(why) = native_module() {
        println!("cargo::error=the runner's module (images/runner/native) could not be built: {why}");
    }
}

/// Builds the module for the target of the program and puts it into `OUT_DIR`, for the program, and into the target directory's
/// `native`, where the tests of the runner find it. That directory is the same for all profiles: there is one build of it.
fn native_module() -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|_| format!("{name} is not set"));
    let (root, out) = (PathBuf::from(variable("CARGO_MANIFEST_DIR")?), PathBuf::from(variable("OUT_DIR")?));
    let target = variable("TARGET")?;
    if !target.contains("-linux-gnu") {
        return Err(format!("it runs in a container of Debian, so the target must be linux-gnu and not {target}"));
    }
    // Cargo marks the target directory, wherever it was told to have it.
    let directory = out.ancestors().find(|above| above.join("CACHEDIR.TAG").exists()).unwrap_or(&out).join("native");

    let mut cargo = Command::new(variable("CARGO")?);
    cargo.current_dir(&root).args(["build", "--quiet", "--locked", "--package", "ade-native", "--profile", "native"]);
    cargo.arg("--target").arg(&target).arg("--target-dir").arg(&directory);
    // What is meant for the program (lints, coverage, sanitizers, another profile) would make other bytes of the same sources, and
    // the image is named by these.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let compiler = matches!(
            name.as_str(),
            "RUSTFLAGS"
                | "RUSTC_WRAPPER"
                | "RUSTC_WORKSPACE_WRAPPER"
                | "RUSTC_BOOTSTRAP"
                | "CARGO_INCREMENTAL"
                | "CLIPPY_ARGS"
                | "CARGO_BUILD_RUSTC_WRAPPER"
                | "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER"
        );
        let flags = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
        if compiler
            || flags
            || ["CARGO_PROFILE_", "CARGO_FEATURE_", "CARGO_CFG_", "PYO3_"].iter().any(|start| name.starts_with(start))
        {
            cargo.env_remove(name);
        }
    }
    // The stable interface of Python 3.11 needs no Python to compile against; one that is found would only be a difference.
    cargo.env("PYO3_NO_PYTHON", "1").env("CARGO_ENCODED_RUSTFLAGS", without_paths(&root).join("\x1f"));
    let done = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).replace('\n', " | "));
    }
    let built = directory.join(&target).join("native/libade_native.so");
    for place in [out.join(MODULE), directory.join(MODULE)] {
        // Moved into place: another cargo may be reading what is there.
        let part = place.with_extension(format!("{}.part", std::process::id()));
        fs::copy(&built, &part)
            .and_then(|_| fs::rename(&part, &place))
            .map_err(|error| format!("{}: {error}", place.display()))?;
    }
    Ok(())
}

/// Flags by which the paths of this machine do not get into the module: the checkout's, and those of downloaded crates.
fn without_paths(root: &Path) -> Vec<String> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let sources = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut flags = vec![format!("--remap-path-prefix={}=ade", root.display())];
    for source in sources.into_iter().flatten().flatten() {
        flags.push(format!("--remap-path-prefix={}=crates", source.path().display()));
    }
    flags.sort();
    flags
}
