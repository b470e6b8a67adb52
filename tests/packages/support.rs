//! Packages made for tests: folders, ordinary zips, and zips that no tool would write.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use ade::packages::{Caps, Package, PackageCaps, PackageError, Report, validate};
use serde_json::{Value, json};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// The caps of the instance that tests run on.
pub const CAPS: Caps = Caps { timeout_ms: 300_000, memory_mb: 2_048 };

/// A manifest that uses every key, all in the current spelling.
pub fn full_manifest() -> Value {
    json!({
        "$schema": "https://example.com/manifest.json",
        "config_script_api_version": "1",
        "info": {
            "schema": "ade.manifest/v1.0",
            "title": "Members",
            "version": "1.4.0",
            "description": "Member rosters",
        },
        "env": {"LOCALE": "de_DE"},
        "engine": {
            "defaults": {
                "timeout_ms": 120_000,
                "memory_mb": 256,
                "runtime_network_access": true,
                "mapping_score_threshold": 0.35,
            },
            "writer": {
                "mode": "in_memory",
                "append_unmapped_columns": false,
                "unmapped_prefix": "x_",
                "output_sheet": "Members",
            },
        },
        "hooks": {
            "on_activate": [{"script": "hooks/check.py"}],
            "on_job_start": [{"script": "start.py", "enabled": false}],
            "after_mapping": [],
            "on_after_extract": [{"script": "hooks/check.py"}],
            "after_validate": [],
            "before_save": [],
            "on_job_end": [{"script": "hooks/late/end.py"}],
        },
        "columns": {
            "order": ["member_id", "email"],
            "meta": {
                "email": {"label": "E-mail"},
                "member_id": {
                    "label": "Member ID",
                    "required": true,
                    "enabled": true,
                    "script": "columns/member_id.py",
                    "synonyms": ["ID", "No."],
                    "type_hint": "string",
                    "pattern": "^[0-9]+$",
                    "allowed": ["1", 2, null],
                },
            },
        },
    })
}

/// The least that a manifest must say.
pub fn least_manifest() -> Value {
    json!({
        "config_script_api_version": "1",
        "info": {"schema": "ade.manifest/v1.0", "title": "T", "version": "1.0.0"},
        "columns": {"order": ["a"], "meta": {"a": {"label": "A"}}},
    })
}

/// The scripts that [`full_manifest`] names.
pub const SCRIPTS: [&str; 4] = ["columns/member_id.py", "hooks/check.py", "hooks/late/end.py", "hooks/start.py"];
/// What is in all of them.
pub const SCRIPT: &[u8] = b"def run(**_): ...\ndef transform(values, **_): ...\n";

/// A place on disk for packages.
pub struct Place {
    directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A folder with these files.
    pub fn folder(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let root = self.path(name);
        fs::create_dir_all(&root).unwrap();
        for (path, contents) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        path
    }

    /// Opens a zip of these bytes.
    pub fn open_zip(&self, contents: &[u8], caps: &PackageCaps) -> Result<Package, PackageError> {
        Package::open(&self.file("package.zip", contents), caps)
    }
}

/// An ordinary, deflated zip of these files; a path that ends in `/` is a folder.
pub fn zip_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().unix_permissions(0o755);
    for (path, contents) in files {
        if path.ends_with('/') {
            writer.add_directory(*path, options).unwrap();
        } else {
            writer.start_file(*path, options).unwrap();
            writer.write_all(contents).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

/// An entry of a zip, every field of which may lie.
#[derive(Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub declared: u32,
    pub mode: u32,
    pub contents: Vec<u8>,
    /// Uses the bytes of the first entry instead of its own.
    pub overlaps: bool,
}

impl Entry {
    pub fn new(name: impl AsRef<[u8]>, contents: &[u8]) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            flags: 0,
            method: 0,
            declared: u32::try_from(contents.len()).unwrap(),
            mode: 0o100_644,
            contents: contents.to_vec(),
            overlaps: false,
        }
    }
}

/// A zip of entries that are written down as they are.
pub fn raw_zip(entries: &[Entry]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut directory: Vec<u8> = Vec::new();
    for entry in entries {
        let offset = if entry.overlaps { 0 } else { out.len() };
        let packed = u32::try_from(entry.contents.len()).unwrap();
        let mut common: Vec<u8> = Vec::new();
        for field in [20, entry.flags, entry.method, 0, 0x21] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc32fast::hash(&entry.contents), packed, entry.declared] {
            common.extend(field.to_le_bytes());
        }
        common.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        if !entry.overlaps {
            out.extend(b"PK\x03\x04");
            out.extend(&common);
            out.extend(&entry.name);
            out.extend(&entry.contents);
        }
        directory.extend(b"PK\x01\x02");
        directory.extend((3_u16 << 8 | 20).to_le_bytes());
        directory.extend(&common);
        directory.extend([0; 6]);
        directory.extend((entry.mode << 16).to_le_bytes());
        directory.extend(u32::try_from(offset).unwrap().to_le_bytes());
        directory.extend(&entry.name);
    }
    let start = u32::try_from(out.len()).unwrap();
    let count = u16::try_from(entries.len()).unwrap();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

/// Validates a manifest in a package with all of [`SCRIPTS`].
pub fn validate_text(manifest: &[u8]) -> Report {
    let place = Place::new();
    let mut files: Vec<(&str, &[u8])> = SCRIPTS.iter().map(|path| (*path, SCRIPT)).collect();
    files.push(("manifest.json", manifest));
    let zip = raw_zip(&files.iter().map(|(path, contents)| Entry::new(path, contents)).collect::<Vec<_>>());
    validate(&place.open_zip(&zip, &PackageCaps::default()).unwrap(), &CAPS)
}

/// [`validate_text`] of a value, one member per line.
pub fn validate_value(manifest: &Value) -> Report {
    validate_text(&serde_json::to_vec_pretty(manifest).unwrap())
}

pub fn open(path: &Path) -> Result<Package, PackageError> {
    Package::open(path, &PackageCaps::default())
}
