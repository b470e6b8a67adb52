//! The manifest of a package, `ade.manifest/v1.0`, as the engine uses it. Only [`validate`](super::validate()) makes one,
//! so that every rule in `docs/developers/manifest.md` holds for it.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::caps::Caps;

/// The value of `info.schema`.
pub(super) const SCHEMA: &str = "ade.manifest/v1.0";
/// The value of `config_script_api_version`.
pub(super) const SCRIPT_API_VERSION: &str = "1";
/// Memory of a job whose manifest does not say, in MiB, where the instance allows as much.
pub const DEFAULT_MEMORY_MB: u64 = 512;
/// Name of the output's sheet when the manifest does not say.
pub const DEFAULT_OUTPUT_SHEET: &str = "Normalized";
/// What the headers of unmapped columns begin with when the manifest does not say.
pub const DEFAULT_UNMAPPED_PREFIX: &str = "raw_";

/// A valid manifest, with defaults filled in and older spellings resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the package is.
    pub info: Info,
    /// Variables for scripts.
    pub env: Env,
    /// Limits and permissions that it asks for, and the mapping threshold.
    pub defaults: Defaults,
    /// How the output is written.
    pub writer: Writer,
    /// Scripts by stage, in the order they run. Stages without scripts are absent.
    pub hooks: BTreeMap<Stage, Vec<Hook>>,
    /// The output's columns, in `columns.order`.
    pub columns: Vec<Column>,
}

impl Manifest {
    /// What a job of this package gets: what the manifest asks for, else the default, never above `caps`.
    #[must_use]
    pub fn limits(&self, caps: &Caps) -> Limits {
        Limits {
            timeout_ms: self.defaults.timeout_ms.unwrap_or(caps.timeout_ms).min(caps.timeout_ms),
            memory_mb: self.defaults.memory_mb.unwrap_or(DEFAULT_MEMORY_MB).min(caps.memory_mb),
        }
    }
}

/// The limits of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest run, in milliseconds.
    pub timeout_ms: u64,
    /// Most memory, in MiB.
    pub memory_mb: u64,
}

/// `info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// 1 to 255 characters.
    pub title: String,
    /// 1 to 64 characters; a semantic version is recommended.
    pub version: String,
    /// Free text.
    pub description: Option<String>,
}

/// `env`: variables that scripts get as an argument and in their environment. `Debug` shows the names only: people put
/// secrets into values, however often they are told not to.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(pub(super) BTreeMap<String, String>);

impl Env {
    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

/// `engine.defaults`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Defaults {
    /// Longest run, in milliseconds, at least 1,000; see [`Manifest::limits`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Most memory, in MiB, at least 64; see [`Manifest::limits`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Whether scripts ask for the network while a job runs. Policy decides whether they get it.
    pub runtime_network_access: bool,
    /// Least score that maps a column to a field, at least 0; the pipeline has its own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mapping_score_threshold: Option<f64>,
}

/// `engine.writer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Writer {
    /// How much of a table scripts see at a time.
    pub mode: WriterMode,
    /// Whether unmapped columns are appended to the output.
    pub append_unmapped_columns: bool,
    /// What the headers of unmapped columns begin with, at most 64 characters.
    pub unmapped_prefix: String,
    /// Name of the output's sheet, legal in Excel.
    pub output_sheet: String,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            mode: WriterMode::RowStreaming,
            append_unmapped_columns: true,
            unmapped_prefix: DEFAULT_UNMAPPED_PREFIX.to_owned(),
            output_sheet: DEFAULT_OUTPUT_SHEET.to_owned(),
        }
    }
}

/// `engine.writer.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WriterMode {
    /// Large tables come in batches.
    RowStreaming,
    /// Every table comes whole.
    InMemory,
}

impl WriterMode {
    /// Every mode by its name in the manifest.
    pub(super) const NAMED: [(&'static str, Self); 2] =
        [("row_streaming", Self::RowStreaming), ("in_memory", Self::InMemory)];
}

/// When hooks run, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// While a version is being activated.
    OnActivate,
    /// Before anything of a job is read.
    OnJobStart,
    /// Columns are mapped to fields.
    AfterMapping,
    /// Values are transformed.
    OnAfterExtract,
    /// Values are validated.
    AfterValidate,
    /// Before the workbook is closed.
    BeforeSave,
    /// Always, at the very end.
    OnJobEnd,
}

impl Stage {
    /// Every stage, in the order they run.
    pub const ALL: [Self; 7] = [
        Self::OnActivate,
        Self::OnJobStart,
        Self::AfterMapping,
        Self::OnAfterExtract,
        Self::AfterValidate,
        Self::BeforeSave,
        Self::OnJobEnd,
    ];

    /// The stage's name in the manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnActivate => "on_activate",
            Self::OnJobStart => "on_job_start",
            Self::AfterMapping => "after_mapping",
            Self::OnAfterExtract => "on_after_extract",
            Self::AfterValidate => "after_validate",
            Self::BeforeSave => "before_save",
            Self::OnJobEnd => "on_job_end",
        }
    }

    /// The stage's other name, if it has one.
    pub(crate) const fn alias(self) -> Option<&'static str> {
        match self {
            Self::OnActivate => Some("on_prepare"),
            Self::OnAfterExtract => Some("after_transform"),
            _ => None,
        }
    }
}

/// A script that runs at a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Path in the package, below `hooks/`.
    pub script: String,
    /// Disabled hooks are skipped.
    pub enabled: bool,
}

/// A field and the output column it becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The field's id, `^[a-z][a-z0-9_]*$`.
    pub field: String,
    /// The header in the output, 1 to 255 characters.
    pub label: String,
    /// Whether a row without a value is an issue.
    pub required: bool,
    /// Disabled fields are neither mapped nor written.
    pub enabled: bool,
    /// Path in the package, directly in `columns/`. A field without a script is mapped by its label and synonyms.
    pub script: Option<String>,
    /// Other headers that mean this field.
    pub synonyms: Vec<String>,
    /// A hint for scripts, at most 64 characters.
    pub type_hint: Option<String>,
    /// For scripts, which decide what it means.
    pub pattern: Option<String>,
    /// For scripts, which decide what it means.
    pub allowed: Vec<Value>,
}
