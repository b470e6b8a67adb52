//! What can be said about a package before it is published.

use super::refusal::{package_caps, to_values};
use crate::packages::{self, Counts, Diagnostic, Level, Package};
use crate::sandbox::{Caps, Failure, FailureKind};
use serde_json::{Value, json};
use std::sync::Arc;

/// What there is to say about a package.
#[derive(Debug, Clone)]
pub struct Validation {
    /// All of it, errors first.
    pub diagnostics: Vec<Value>,
    /// How many there are of each level.
    pub counts: Counts,
    /// Hash of the canonical zip; none of what is no package.
    pub package_sha256: Option<String>,
}

impl Validation {
    /// What there is to say of what is no package.
    #[must_use]
    pub fn of_no_package(failure: &Failure) -> Self {
        let code = failure.detail.as_ref().and_then(|detail| detail.get("code"));
        let diagnostic = json!({
            "level": "error", "code": code.unwrap_or(&json!(failure.kind.as_str())), "path": null, "pointer": null,
            "line": null, "message": failure.message, "hint": null,
        });
        Self { diagnostics: vec![diagnostic], counts: Counts { errors: 1, ..Counts::default() }, package_sha256: None }
    }

    /// Adds what was found later; errors still come first.
    pub fn add(&mut self, found: &[Diagnostic]) {
        for diagnostic in found {
            match diagnostic.level {
                Level::Error => self.counts.errors += 1,
                Level::Warning => self.counts.warnings += 1,
                Level::Info => self.counts.infos += 1,
            }
        }
        self.diagnostics.extend(to_values(found));
        self.diagnostics.sort_by_key(|diagnostic| match diagnostic["level"].as_str() {
            Some("error") => 0,
            Some("warning") => 1,
            _ => 2,
        });
    }
}

/// What can be told about a package that nobody has published yet without running any of it.
///
/// # Errors
/// `host_io` when it could not be looked at.
pub async fn validate(package: Arc<Package>, caps: &Caps) -> Result<Validation, Failure> {
    let caps = package_caps(caps);
    let work = tokio::task::spawn_blocking(move || {
        let report = packages::validate(&package, &caps);
        Validation {
            diagnostics: to_values(&report.diagnostics),
            counts: report.counts,
            package_sha256: Some(package.package_sha256().to_owned()),
        }
    });
    work.await.map_err(|error| Failure::new(FailureKind::HostIo, format!("validating a package broke down: {error}")))
}
