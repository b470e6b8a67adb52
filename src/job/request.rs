//! What a container is told about a job, and what Docker is told about the container.

use super::blocks;
use super::{Identity, Input, Node};
use crate::egress::Grant;
use crate::packages::Package;
use crate::sandbox::{
    Class, ContainerSpec, InputFile, Limits, Mount, Request, Source, egress_terms, label, private_uid, protocol,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a container is told about a job.
pub struct Parts<'a> {
    pub identity: &'a Identity,
    pub package: &'a Package,
    pub inputs: &'a [Input],
    pub limits: &'a Limits,
    pub network: Value,
    pub dependencies: Value,
    /// Hash of the lock of the dependency set that is mounted.
    pub lock_sha256: Option<&'a str>,
    pub mounts: &'a [Mount],
    pub egress: Grant,
}

/// How a container is asked for: under a name, in a mode, with a folder for what comes out of it.
pub struct Ask<'a> {
    pub mode: &'static str,
    pub name: &'a str,
    pub started_at: &'a str,
    pub outputs: Arc<TempDir>,
    pub expected: &'static [&'static str],
}

pub fn request<'a>(node: &'a Node, job: &Parts<'a>, ask: Ask<'a>) -> Request<'a> {
    let (identity, limits) = (job.identity, job.limits);
    // Whatever is still there a good while after the last moment that a job may take was left by a crash.
    let mut labels =
        labels(node, Duration::from_millis(limits.timeout_ms + limits.on_job_end_ms) + Duration::from_secs(180));
    labels.extend([
        (label::WORKSPACE.to_owned(), identity.workspace_id.clone()),
        (label::JOB.to_owned(), identity.job_id.to_string()),
        (label::ATTEMPT.to_owned(), format!("{}.{}", identity.attempt, identity.execution)),
    ]);
    let inputs: Vec<Value> = job
        .inputs
        .iter()
        .enumerate()
        .map(|(index, input)| {
            json!({"name": input.name, "path": Input::place(index), "sha256": input.sha256, "bytes": input.bytes, "document_id": input.document_id})
        })
        .collect();
    let mut files: Vec<InputFile> = job
        .package
        .job_files()
        .map(|(name, bytes)| InputFile {
            name: format!("package/{name}"),
            source: Source::Bytes(Bytes::copy_from_slice(bytes)),
        })
        .chain(job.inputs.iter().enumerate().map(|(index, input)| input.file(index)))
        .collect();
    let (terms, bundle) = egress_terms(&node.egress, &job.egress);
    files.extend(bundle);
    let mut payload = json!({
        "protocol": protocol::VERSION,
        "mode": ask.mode,
        "job_id": identity.job_id,
        "attempt": identity.attempt,
        "execution": identity.execution,
        "trace_id": identity.trace_id,
        "config_version_id": identity.config_version_id,
        "started_at": ask.started_at,
        "inputs": inputs,
        "limits": limits,
        "egress": (!matches!(ask.mode, "validate" | "read")).then_some(terms),
        "artifact": {"runtime": blocks::runtime(node, limits), "network": job.network, "dependencies": job.dependencies},
    });
    if let Some(lock) = job.lock_sha256 {
        payload["lock_sha256"] = lock.into();
    }
    Request {
        name: ask.name,
        spec: ContainerSpec { class: class(node, limits, job.mounts), uid: private_uid(), labels },
        limits,
        job: payload,
        files,
        network: Arc::clone(&node.egress),
        egress: job.egress.clone(),
        outputs: ask.outputs,
        expected: ask.expected,
        installer: false,
    }
}

/// The labels of every container: whose it is, and after what time from now nobody wants it.
pub fn labels(node: &Node, lifetime: Duration) -> HashMap<String, String> {
    let deadline = (OffsetDateTime::now_utc() + lifetime).format(&Rfc3339).unwrap_or_default();
    let mut labels =
        HashMap::from([(label::INSTANCE.to_owned(), node.instance.clone()), (label::DEADLINE.to_owned(), deadline)]);
    if let Some(node) = &node.node {
        labels.insert(label::NODE.to_owned(), node.clone());
    }
    labels
}

/// The class of a container of this node.
pub fn class(node: &Node, limits: &Limits, mounts: &[Mount]) -> Class {
    Class::new(&node.image_digest, node.runtime.as_deref(), limits, mounts)
}
