//! What a container is told about a job, and what Docker is told about the container.

use super::blocks;
use super::{Identity, Input, Node};
use crate::egress::Grant;
use crate::packages::Package;
use crate::sandbox::{ContainerSpec, InputFile, Limits, Request, Source, label, protocol};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use ulid::Ulid;

/// Where the certificate authorities lie that clients in a container trust.
const CA_BUNDLE: &str = "ca/bundle.pem";

/// What a container is told about a job.
pub struct Parts<'a> {
    pub identity: &'a Identity,
    pub package: &'a Package,
    pub inputs: &'a [Input],
    pub limits: &'a Limits,
    pub network: Value,
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
        .files()
        .map(|(name, bytes)| InputFile {
            name: format!("package/{name}"),
            source: Source::Bytes(Bytes::copy_from_slice(bytes)),
        })
        .chain(job.inputs.iter().enumerate().map(|(index, input)| input.file(index)))
        .collect();
    let mut ca_bundle = None;
    if job.egress.is_given()
        && let Some(pem) = node.egress.ca_bundle()
    {
        files.push(InputFile { name: CA_BUNDLE.to_owned(), source: Source::Bytes(pem.clone()) });
        ca_bundle = Some(CA_BUNDLE);
    }
    let payload = json!({
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
        "egress": (ask.mode == "run").then(|| node.egress.terms(ca_bundle)),
        "artifact": {"runtime": blocks::runtime(node, limits), "network": job.network, "dependencies": blocks::dependencies()},
    });
    Request {
        name: ask.name,
        spec: spec(node, limits, labels),
        job: payload,
        files,
        network: Arc::clone(&node.egress),
        egress: job.egress.clone(),
        outputs: ask.outputs,
        expected: ask.expected,
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

pub fn spec<'a>(node: &'a Node, limits: &'a Limits, labels: HashMap<String, String>) -> ContainerSpec<'a> {
    ContainerSpec { image: &node.image_digest, limits, runtime: node.runtime.as_deref(), uid: private_uid(), labels }
}

/// A uid of the container's own, above every uid and subordinate range in common use.
fn private_uid() -> u32 {
    let random = Ulid::new().random();
    0x4000_0000 | (u32::try_from(random & 0x0fff_ffff).unwrap_or_default())
}
