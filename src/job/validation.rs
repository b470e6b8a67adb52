//! What can be said about a package before it is published.

use super::refusal::{package_caps, to_values};
use crate::packages::{self, Counts, Package};
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
}

/// Everything that can be told about a package that nobody has published yet.
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
