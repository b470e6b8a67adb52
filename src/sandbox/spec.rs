//! The hardening profile: the one function that describes a job container to Docker.
//!
//! Nothing a tenant controls reaches it but numbers that [`Limits`] has already bounded, and everything that is not a
//! limit is a constant. `docs/operations/security.md` explains each line; a snapshot test holds the whole matrix.

use super::limits::Limits;
use super::seccomp;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use std::collections::HashMap;

/// Labels of every container of ours; the reaper works by them.
pub mod label {
    /// Which installation made the container.
    pub const INSTANCE: &str = "dev.ade.instance";
    /// Which process's data directory made the container; only where several processes share an installation.
    pub const NODE: &str = "dev.ade.node";
    /// Workspace of the job.
    pub const WORKSPACE: &str = "dev.ade.workspace";
    /// The job.
    pub const JOB: &str = "dev.ade.job";
    /// The attempt and execution, `1.1`.
    pub const ATTEMPT: &str = "dev.ade.attempt";
    /// When the container must be gone, RFC 3339.
    pub const DEADLINE: &str = "dev.ade.deadline";
}

/// What differs between two job containers.
#[derive(Debug, Clone)]
pub struct ContainerSpec<'a> {
    /// Image reference or id.
    pub image: &'a str,
    /// Bounded limits.
    pub limits: &'a Limits,
    /// OCI runtime that the admin asked for; `None` is the engine's default.
    pub runtime: Option<&'a str>,
    /// The uid and gid of everything in the container, its own: per-user kernel limits are then shared with no other job.
    pub uid: u32,
    /// Labels.
    pub labels: HashMap<String, String>,
}

const MIB: u64 = 1024 * 1024;
const MASKED: [&str; 13] = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware", "/proc/kallsyms",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The container as Docker's API takes it.
#[must_use]
pub fn container(spec: &ContainerSpec<'_>) -> ContainerCreateBody {
    let limits = spec.limits;
    let memory = signed(limits.memory_mb * MIB);
    let owner = format!("uid={0},gid={0},mode=0700", spec.uid);
    let scratch = format!("rw,noexec,nosuid,nodev,size={}m,nr_inodes=16384,{owner}", limits.scratch_mb);
    let host_config = HostConfig {
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into(), format!("seccomp={}", seccomp::profile())]),
        readonly_rootfs: Some(true),
        network_mode: Some("none".into()),
        ipc_mode: Some("private".into()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        privileged: Some(false),
        // The supervisor is PID 1 and reaps; a second init would only stand between it and the signals.
        init: Some(false),
        memory: Some(memory),
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus(limits.cpus)),
        pids_limit: Some(i64::from(limits.pids)),
        shm_size: Some(signed((limits.memory_mb / 8).clamp(8, 64) * MIB)),
        tmpfs: Some(HashMap::from([("/job".into(), scratch)])),
        ulimits: Some(vec![
            ulimit("core", 0),
            ulimit("fsize", signed(limits.scratch_mb * MIB)),
            ulimit("nofile", 1024),
        ]),
        masked_paths: Some(MASKED.map(String::from).to_vec()),
        readonly_paths: Some(READ_ONLY.map(String::from).to_vec()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        runtime: spec.runtime.map(String::from),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.into()),
        user: Some(format!("{0}:{0}", spec.uid)),
        hostname: Some("ade".into()),
        working_dir: Some("/job".into()),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(true),
        stdin_once: Some(true),
        tty: Some(false),
        network_disabled: Some(true),
        labels: Some(spec.labels.clone()),
        stop_timeout: Some(1),
        host_config: Some(host_config),
        ..ContainerCreateBody::default()
    }
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.into()), soft: Some(value), hard: Some(value) }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "CPU counts are far below the range of i64")]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9).round() as i64
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Caps, Requested};
    use super::*;

    fn body(memory_mb: u64, cpus: f64, runtime: Option<&str>) -> serde_json::Value {
        let caps = Caps { cpus, ..Caps::default() };
        let limits = Limits::resolve(&caps, Requested { memory_mb: Some(memory_mb), timeout_ms: None }).unwrap();
        let spec = ContainerSpec {
            image: "ade-runner:test",
            limits: &limits,
            runtime,
            uid: 123_456,
            labels: HashMap::from([(label::JOB.to_owned(), "job_1".to_owned())]),
        };
        serde_json::to_value(container(&spec)).unwrap()
    }

    /// Attack 45: whatever the options, nothing but the named numbers may change.
    #[test]
    fn a45_the_whole_matrix_of_options_keeps_the_profile() {
        let mut seen = Vec::new();
        for memory_mb in [64, 512, 2048] {
            for cpus in [0.5, 1.0, 2.0] {
                for runtime in [None, Some("runsc")] {
                    let mut body = body(memory_mb, cpus, runtime);
                    let host = &mut body["HostConfig"];
                    seen.push(format!(
                        "memory {memory_mb} cpus {cpus} runtime {runtime:?}: Memory {} MemorySwap {} NanoCpus {} ShmSize {} Tmpfs {} fsize {} Runtime {}",
                        host["Memory"], host["MemorySwap"], host["NanoCpus"], host["ShmSize"], host["Tmpfs"]["/job"], host["Ulimits"][1]["Hard"], host["Runtime"],
                    ));
                    for key in ["Memory", "MemorySwap", "NanoCpus", "ShmSize", "Tmpfs", "Runtime"] {
                        host.as_object_mut().unwrap().shift_remove(key);
                    }
                    host["Ulimits"][1] = serde_json::Value::Null;
                    insta::assert_json_snapshot!("profile_without_numbers", body);
                }
            }
        }
        insta::assert_snapshot!("profile_numbers", seen.join("\n"));
    }
}
