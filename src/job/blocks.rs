//! What the engine says of a job in its own name: the run request, and the blocks of the artifact that only it can vouch for.

use super::{Identity, Node, Prepared};
use crate::events::now;
use crate::sandbox::{Limits, Outcome};
use serde_json::{Value, json};

/// The blocks of an artifact under their keys.
pub type Blocks = Vec<(&'static str, Value)>;

pub fn run_request(node: &Node, job: &Prepared, dependencies: &Value, created_at: &str) -> Value {
    let Identity { job_id, workspace_id, config_version_id, attempt, execution, trace_id } = &job.identity;
    json!({
        "schema": "ade.run_request/v1",
        "job_id": job_id,
        "workspace_id": workspace_id,
        "attempt": attempt,
        "execution": execution,
        "trace_id": trace_id,
        "created_at": created_at,
        "config": {
            "config_version_id": config_version_id,
            "title": job.manifest.info.title,
            "manifest_version": job.manifest.info.version,
            "package_sha256": job.package.package_sha256(),
            "manifest_sha256": job.package.manifest_sha256(),
        },
        "inputs": job.inputs,
        "image_digest": node.image_digest,
        "runtime": node.runtime,
        "limits": job.limits,
        "network": job.network.block(),
        "dependencies": dependencies,
    })
}

/// The blocks that replace whatever a container wrote there. `runner` is what its supervisor said of itself.
pub fn own(
    node: &Node,
    job: &Prepared,
    runner: &Value,
    dependencies: &Value,
    outcome: &Outcome,
    started_at: &str,
) -> Blocks {
    let mut runtime = runtime(node, &job.limits);
    if let (Value::Object(runtime), Value::Object(runner)) = (&mut runtime, runner) {
        runtime.extend(runner.clone());
    }
    vec![
        ("job", job_block(job, outcome, started_at)),
        ("runtime", runtime),
        ("network", job.network.block()),
        ("dependencies", dependencies.clone()),
    ]
}

/// The blocks of an artifact that the runner never came to write.
pub fn fallback(job: &Prepared) -> Blocks {
    let info = &job.manifest.info;
    let config = json!({
        "config_version_id": job.identity.config_version_id, "manifest_version": info.version, "title": info.title
    });
    let engine = json!({"writer": job.manifest.writer, "defaults": job.manifest.defaults});
    let inputs = job
        .inputs
        .iter()
        .map(|input| json!({"name": input.name, "sha256": input.sha256, "bytes": input.bytes, "format": null, "encoding": null, "delimiter": null}))
        .collect();
    vec![("config", config), ("engine", engine), ("inputs", inputs)]
}

pub fn runtime(node: &Node, limits: &Limits) -> Value {
    json!({"image": node.image, "image_digest": node.image_digest, "runner_version": null, "python": null, "runtime": node.runtime, "limits": limits})
}

fn job_block(job: &Prepared, outcome: &Outcome, started_at: &str) -> Value {
    let Identity { job_id, config_version_id, attempt, execution, trace_id, .. } = &job.identity;
    json!({
        "job_id": job_id,
        "config_version_id": config_version_id,
        "trace_id": trace_id,
        "status": outcome.state(),
        "started_at": started_at,
        "completed_at": now(),
        "source_file": job.inputs.first().map_or("", |input| input.name.as_str()),
        "attempt": attempt,
        "execution": execution,
        "error": outcome.failure(),
    })
}
