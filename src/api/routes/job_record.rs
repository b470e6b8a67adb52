//! A job as clients see it.

use crate::api::app::VersionInfo;
use crate::events::at;
use crate::ids::{ConfigId, DocumentId, JobId, VersionId, WorkspaceId};
use crate::queue::{JobState, Phase};
use crate::store::{DocumentRef, JobRow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobRecord {
    /// Its id.
    pub job_id: JobId,
    /// Its workspace.
    pub workspace_id: WorkspaceId,
    /// Its state.
    pub status: JobState,
    /// What its execution is doing; none when none is.
    pub phase: Option<Phase>,
    /// Which of the user's tries it is, from 1.
    pub attempt: u32,
    /// The job that it tries again.
    pub retry_of_job_id: Option<JobId>,
    /// How often the scheduler has started it.
    pub execution: u32,
    /// What it runs.
    pub config_version: JobVersion,
    /// Its documents, in order.
    pub document_ids: Vec<DocumentId>,
    /// Its documents as they were when it was submitted.
    pub documents: Vec<DocumentRef>,
    /// What makes two submissions of a version the same.
    pub input_hash: String,
    /// For finding it in the logs of other systems.
    pub trace_id: String,
    /// Its priority.
    pub priority: i64,
    /// The caller's own data.
    pub metadata: Option<Value>,
    /// When it was accepted, RFC 3339.
    pub queued_at: String,
    /// When it fails unless it was started, RFC 3339.
    pub queue_deadline: Option<String>,
    /// When its newest execution began, RFC 3339.
    pub started_at: Option<String>,
    /// When it ended, RFC 3339.
    pub completed_at: Option<String>,
    /// Last sign of life of its execution, RFC 3339.
    pub last_heartbeat: Option<String>,
    /// Its place among the waiting jobs of its workspace, from 1; 1000 is that or more. Only while it waits, and not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<i64>,
    /// Why it did not succeed.
    pub error: Option<Value>,
    /// `error.message`, for clients that read only this.
    pub error_message: Option<String>,
    /// Path of its artifact, when it has one.
    pub artifact_uri: Option<String>,
    /// Path of its workbook, when it has one.
    pub output_uri: Option<String>,
    /// Path of its events.
    pub logs_uri: String,
    /// Path of its run request, when it has one.
    pub run_request_uri: Option<String>,
    /// The network decision.
    pub network: Option<Value>,
    /// What was installed for it.
    pub dependencies: Option<Value>,
    /// Time and resources.
    pub usage: Usage,
    /// Time by phase, as `ade run` gives it.
    pub timings: Timings,
}

/// The version that a job runs.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct JobVersion {
    /// The version.
    pub config_version_id: VersionId,
    /// Its config.
    pub config_id: ConfigId,
    /// The config's slug.
    pub slug: String,
    /// The config's title.
    pub title: String,
    /// `v1`, `v2` and so on.
    pub version: String,
    /// `info.version` of its manifest.
    pub manifest_version: String,
    /// Hash of its package.
    pub package_sha256: String,
}

/// What a job has used.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Time in the queue.
    pub queue_ms: Option<u64>,
    /// Time of installing dependencies.
    pub install_ms: Option<u64>,
    /// Time of creating and starting its container.
    pub start_ms: Option<u64>,
    /// Time of hooks and passes.
    pub run_ms: Option<u64>,
    /// Time of storing what it made.
    pub collect_ms: Option<u64>,
    /// CPU time.
    pub cpu_ms: Option<u64>,
    /// Most memory at any time.
    pub peak_memory_bytes: Option<u64>,
}

/// Time by phase.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Timings {
    /// From accepted to claimed.
    pub queue_ms: Option<u64>,
    /// Creating the container.
    pub create_ms: Option<u64>,
    /// Starting it, until its supervisor is ready.
    pub start_ms: Option<u64>,
    /// Inputs, hooks and passes.
    pub run_ms: Option<u64>,
    /// Storing what it made.
    pub collect_ms: Option<u64>,
    /// From accepted to ended.
    pub total_ms: Option<u64>,
}

impl JobRecord {
    pub(super) fn of(job: JobRow, version: &VersionInfo, queue_position: Option<i64>) -> Self {
        let base = format!("/api/v1/workspaces/{}/jobs/{}", job.workspace_id, job.id);
        let result = job.result.unwrap_or_default();
        let has = |name: &str| {
            let files = result["files"].as_array();
            files.is_some_and(|files| files.iter().any(|file| file["name"] == name))
        };
        let path = |name: &str, route: &str| has(name).then(|| format!("{base}/{route}"));
        let ms = |key: &str| result["timings"][key].as_u64();
        let total_ms = job.completed_at.and_then(|end| u64::try_from(end - job.queued_at).ok());
        let waited = job.started_at.and_then(|start| u64::try_from(start - job.queued_at).ok());
        let timings = Timings {
            queue_ms: ms("queue_ms").or(waited),
            create_ms: ms("create_ms"),
            start_ms: ms("start_ms"),
            run_ms: ms("run_ms"),
            collect_ms: ms("collect_ms"),
            total_ms,
        };
        let usage = Usage {
            queue_ms: timings.queue_ms,
            install_ms: ms("install_ms"),
            start_ms: timings.start_ms.map(|start| start + timings.create_ms.unwrap_or_default()),
            run_ms: timings.run_ms,
            collect_ms: timings.collect_ms,
            cpu_ms: result["usage"]["cpu_ms"].as_u64(),
            peak_memory_bytes: result["usage"]["peak_memory_bytes"].as_u64(),
        };
        let block = |key: &str| result.get(key).filter(|block| !block.is_null()).cloned();
        Self {
            artifact_uri: path("artifact.json", "artifact"),
            output_uri: path("normalized.xlsx", "output"),
            run_request_uri: path("run-request.json", "run-request"),
            logs_uri: format!("{base}/events"),
            network: block("network"),
            dependencies: block("dependencies"),
            job_id: job.id,
            workspace_id: job.workspace_id,
            status: job.state,
            phase: job.phase,
            attempt: job.attempt,
            retry_of_job_id: job.retry_of,
            execution: job.execution,
            config_version: JobVersion {
                config_version_id: job.version_id,
                config_id: job.config_id,
                slug: version.slug.clone(),
                title: version.title.clone(),
                version: format!("v{}", version.version.number),
                manifest_version: version.version.manifest_version.clone(),
                package_sha256: version.version.package_sha256.clone(),
            },
            document_ids: job.documents.iter().map(|document| document.document_id.clone()).collect(),
            documents: job.documents,
            input_hash: job.input_hash,
            trace_id: job.trace_id,
            priority: job.priority,
            metadata: job.metadata,
            queued_at: at(job.queued_at),
            queue_deadline: job.queue_deadline.map(at),
            started_at: job.started_at.map(at),
            completed_at: job.completed_at.map(at),
            last_heartbeat: job.heartbeat_at.map(at),
            queue_position,
            error_message: job.error.as_ref().and_then(|error| Some(error["message"].as_str()?.to_owned())),
            error: job.error,
            usage,
            timings,
        }
    }
}
