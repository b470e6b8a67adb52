//! Why a job is not even started, with every diagnostic at once.

use crate::packages::{self, Manifest, Package, PackageCaps, PackageError};
use crate::sandbox::{Caps, Failure, FailureKind, Limits, Requested};
use serde_json::Value;
use std::path::Path;

/// A job that is refused before anything is started.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub failure: Failure,
    /// Everything that is wrong with the package.
    pub diagnostics: Vec<Value>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self { failure, diagnostics: Vec::new() }
    }
}

/// Opens a package under the default caps.
///
/// # Errors
/// `package_too_large` or `package_invalid`, the package error's own code in `detail`.
pub fn open_package(path: &Path) -> Result<Package, Failure> {
    Package::open(path, &PackageCaps::default()).map_err(|error| no_package(&error))
}

/// The failure of what is no package: `package_too_large` or `package_invalid`, the package error's own code in `detail`.
#[must_use]
pub fn no_package(error: &PackageError) -> Failure {
    let kind =
        if error.code() == "package_too_large" { FailureKind::PackageTooLarge } else { FailureKind::PackageInvalid };
    Failure { detail: Some(serde_json::json!({"code": error.code()})), ..Failure::new(kind, error.to_string()) }
}

/// The manifest of a package that can be run, as far as can be told without running it: manifest, requirements and scripts are
/// in order. Blocking.
///
/// # Errors
/// A [`Refusal`] with all diagnostics.
pub fn manifest_of(package: &Package, caps: &Caps) -> Result<Manifest, Refusal> {
    usable(packages::validate(package, &package_caps(caps))).map(|(manifest, _)| manifest)
}

/// [`manifest_of`], and what there is to say of a package that can be run.
///
/// # Errors
/// As [`manifest_of`].
pub fn checked(package: &Package, caps: &Caps) -> Result<(Manifest, Vec<Value>), Refusal> {
    usable(packages::validate(package, &package_caps(caps)))
}

/// The manifest of a package whose scripts were looked at when it was stored; the caps may be others by now.
///
/// # Errors
/// A [`Refusal`] with all diagnostics.
pub fn stored_manifest_of(package: &Package, caps: &Caps) -> Result<Manifest, Refusal> {
    usable(packages::validate_manifest(package, &package_caps(caps))).map(|(manifest, _)| manifest)
}

fn usable(report: packages::Report) -> Result<(Manifest, Vec<Value>), Refusal> {
    let diagnostics = to_values(&report.diagnostics);
    match report.manifest {
        Some(manifest) if report.counts.errors == 0 => Ok((manifest, diagnostics)),
        _ => {
            let first = report.diagnostics.iter().find(|diagnostic| diagnostic.level == packages::Level::Error);
            let said = first.map_or_else(String::new, |diagnostic| {
                format!(", first: {}", diagnostic.message.trim_end_matches('.'))
            });
            let message = format!(
                "the package has {} error(s){said}; `ade config validate` lists them all",
                report.counts.errors
            );
            // Errors of the manifest come first, then those of requirements.txt.
            let failure = match first.filter(|first| first.path != packages::MANIFEST) {
                Some(first) => Failure {
                    script: Some(first.path.clone()),
                    line: first.line.and_then(|line| u32::try_from(line).ok()),
                    ..Failure::new(
                        if first.path == packages::REQUIREMENTS {
                            FailureKind::RequirementsInvalid
                        } else {
                            FailureKind::PackageInvalid
                        },
                        message,
                    )
                },
                None => Failure::new(FailureKind::PackageInvalid, message),
            };
            Err(Refusal { failure, diagnostics })
        }
    }
}

/// Diagnostics as the JSON that is shown and stored.
#[must_use]
pub fn to_values(diagnostics: &[packages::Diagnostic]) -> Vec<Value> {
    diagnostics.iter().filter_map(|diagnostic| serde_json::to_value(diagnostic).ok()).collect()
}

/// The caps in the terms of a manifest.
#[must_use]
pub fn package_caps(caps: &Caps) -> packages::Caps {
    packages::Caps {
        timeout_ms: u64::try_from(caps.timeout.as_millis()).unwrap_or(u64::MAX),
        memory_mb: caps.memory_mb,
    }
}

/// The limits of a job: what the caller asks for goes above what the manifest asks for, and neither above the caps.
///
/// # Errors
/// `limit_invalid`, with the key and both numbers.
pub fn limits(manifest: &Manifest, asked: Requested, caps: &Caps) -> Result<Limits, Failure> {
    let defaults = Requested { timeout_ms: manifest.defaults.timeout_ms, memory_mb: manifest.defaults.memory_mb };
    Limits::resolve(caps, defaults.overridden_by(asked))
        .map_err(|error| Failure::new(FailureKind::LimitInvalid, error.to_string()))
}
