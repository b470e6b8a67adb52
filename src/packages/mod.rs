//! Config packages: reading, validating and hashing them.
//!
//! A package is a folder or a zip with `manifest.json` at its root. [`Package::open`] reads either into bounded memory,
//! without writing to the host, and refuses what is unsafe or too large with a [`PackageError`] of a stable code.
//! [`validate`] then checks the manifest and the scripts, without running any of them, and collects everything that is wrong as
//! [`Diagnostic`]s rather than stopping at the first. What only shows when scripts run is found out in a container.
//!
//! The rules are published in `docs/developers/manifest.md` and `docs/schemas/manifest.v1.0.schema.json`.

mod archive;
mod canonical;
mod caps;
mod collector;
mod diagnostic;
mod entry;
mod error;
mod files;
mod folder;
mod json;
mod manifest;
mod package;
mod parse;
mod python;
mod requirements;
mod scripts;
mod text;
mod validate;

pub use caps::{Caps, PackageCaps};
pub use diagnostic::{Code, Counts, Diagnostic, Level};
pub use error::PackageError;
pub use files::{Files, file_path, fit_together};
pub use manifest::{
    Column, DEFAULT_MEMORY_MB, DEFAULT_OUTPUT_SHEET, DEFAULT_UNMAPPED_PREFIX, Defaults, Env, Hook, Info, Limits,
    Manifest, Stage, Writer, WriterMode,
};
pub use package::{EXAMPLES, MANIFEST, Package};
pub use requirements::{Asked, REQUIREMENTS, Requirements};
pub use scripts::FunctionKind;
pub use validate::{Report, validate, validate_manifest};
