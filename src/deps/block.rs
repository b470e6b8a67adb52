//! What a job, its artifact and its run request say of dependencies.

use super::sets::Record;
use super::{Failed, InUse};
use crate::packages::Requirements;
use serde_json::{Value, json};

/// The `dependencies` block.
#[derive(Debug, Clone, Default)]
pub enum Block {
    /// The package asks for nothing.
    #[default]
    None,
    /// A set.
    Set(Value),
    /// There is no set.
    Failed(Value),
}

impl Block {
    /// The block of a set in use.
    #[must_use]
    pub fn of(requirements: &Requirements, set: &InUse) -> Self {
        let Record { set_id, lock_sha256, source, python, tool, tool_version, packages, .. } = &set.record;
        let packages: Vec<Value> = packages
            .iter()
            .map(|one| {
                json!({"name": one.name, "version": one.version, "sha256": one.sha256, "requested": one.requested})
            })
            .collect();
        Self::Set(json!({
            "status": if set.installed { "installed" } else { "cached" },
            "source": source,
            "requirements_sha256": requirements.sha256,
            "lock_sha256": lock_sha256,
            "set_id": set_id,
            "python": python,
            "installer": format!("{tool} {tool_version}"),
            "duration_ms": set.waited_ms,
            "packages": packages,
            "diagnostics": [],
        }))
    }

    /// The block of a set that cannot be had.
    #[must_use]
    pub fn failed(requirements: &Requirements, failed: &Failed, duration_ms: u64) -> Self {
        let failure = &failed.failure;
        let detail = |key: &str| failure.detail.as_ref().and_then(|detail| detail.get(key)).cloned();
        let diagnostic = json!({
            "code": detail("code").unwrap_or_else(|| failure.kind.as_str().into()),
            "message": failure.message,
            "requirement": detail("requirement"),
            "line": failure.line,
        });
        Self::Failed(json!({
            "status": "failed",
            "requirements_sha256": requirements.sha256,
            "duration_ms": duration_ms,
            "packages": [],
            "diagnostics": [diagnostic],
        }))
    }

    /// As JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::None => json!({"status": "none"}),
            Self::Set(block) | Self::Failed(block) => block.clone(),
        }
    }
}

/// `packages.txt`: the lock, which pip and uv install from.
#[must_use]
pub fn packages_txt(record: &Record) -> String {
    format!(
        "# {} with {} {} for Python {}, from the {}\n{}",
        record.set_id, record.tool, record.tool_version, record.python, record.source, record.lock
    )
}
