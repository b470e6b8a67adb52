//! Whatever is uploaded as a config package: a package within the caps whose canonical form is a fixed point, or an error with
//! a code and a message that is safe to print.

use ade::packages::{Caps, Package, PackageCaps, validate};

/// Holds for any input, or panics.
pub fn run(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("package.zip");
    std::fs::write(&path, data).unwrap();
    let caps = PackageCaps { unpacked_bytes: 1 << 20, file_bytes: 1 << 19, entries: 64, ..PackageCaps::default() };
    match Package::open(&path, &caps) {
        Err(error) => {
            let message = error.to_string();
            assert!(!error.code().is_empty() && !message.is_empty());
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
        Ok(package) => {
            assert!(package.unpacked_bytes() <= caps.unpacked_bytes);
            let mut before = "";
            for (name, bytes) in package.files() {
                assert!(before < name && bytes.len() as u64 <= caps.file_bytes);
                assert!(
                    name.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0'])),
                    "{name:?}"
                );
                before = name;
            }
            let report = validate(&package, &Caps { timeout_ms: 300_000, memory_mb: 2048 });
            assert_eq!(report.is_ok(), report.counts.errors == 0, "a manifest exactly when there is no error");
            let canonical = package.canonical_zip().unwrap();
            std::fs::write(&path, &canonical).unwrap();
            let again = Package::open(&path, &PackageCaps::default()).unwrap();
            assert_eq!(
                package.package_sha256(),
                again.package_sha256(),
                "a package and its canonical zip are the same"
            );
        }
    }
}
