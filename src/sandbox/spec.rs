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
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use ulid::Ulid;

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
    /// Key of the dependency set that a volume is for.
    pub const DEPS: &str = "dev.ade.deps";
    /// Which folder of records a volume belongs to.
    pub const DEPS_INDEX: &str = "dev.ade.deps.index";
}

/// What a container is started with and keeps to its end. Two of one class differ in nothing but their uid and their labels, so
/// that a parked one may take any job of its class.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Class {
    image: String,
    runtime: Option<String>,
    memory_mb: u64,
    scratch_mb: u64,
    nano_cpus: i64,
    pids: u32,
    mounts: Vec<Mount>,
}

impl Class {
    /// The class of an image (a reference or an id), an OCI runtime (`None` is the engine's default), bounded limits, and volumes,
    /// which are never a tenant's choice.
    #[must_use]
    pub fn new(image: &str, runtime: Option<&str>, limits: &Limits, mounts: &[Mount]) -> Self {
        Self {
            image: image.to_owned(),
            runtime: runtime.map(str::to_owned),
            memory_mb: limits.memory_mb,
            scratch_mb: limits.scratch_mb,
            nano_cpus: nano_cpus(limits.cpus),
            pids: limits.pids,
            mounts: mounts.to_vec(),
        }
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The OCI runtime.
    #[must_use]
    pub fn runtime(&self) -> Option<&str> {
        self.runtime.as_deref()
    }

    /// Memory, MiB.
    #[must_use]
    pub const fn memory_mb(&self) -> u64 {
        self.memory_mb
    }

    /// The dependency sets that are mounted.
    pub fn sets(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match mount {
            Mount::Set { volume } => Some(volume.as_str()),
            _ => None,
        })
    }

    /// Whether containers of it may wait for a job: what an installer mounts is made for one install.
    #[must_use]
    pub fn may_park(&self) -> bool {
        self.mounts.iter().all(|mount| matches!(mount, Mount::Set { .. }))
    }
}

/// One container.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// What it is started with.
    pub class: Class,
    /// The uid and gid of everything in the container, its own: per-user kernel limits are then shared with no other job.
    pub uid: u32,
    /// Labels.
    pub labels: HashMap<String, String>,
}

/// What may be mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mount {
    /// A dependency set, read-only, into a job.
    Set {
        /// The volume.
        volume: String,
    },
    /// A volume that an installer makes a set of; a new anonymous one when it has no name.
    NewSet {
        /// The volume.
        volume: String,
        /// Largest file, MiB.
        file_mb: u64,
    },
    /// Wheels that an admin put on the engine's machine, read-only, into an installer.
    Wheelhouse {
        /// A path or the name of a volume.
        source: String,
        /// Whether it is a path.
        folder: bool,
        /// Where the installer finds it.
        target: String,
    },
}

/// A uid for a container of its own, above every uid and subordinate range in common use.
#[must_use]
pub fn private_uid() -> u32 {
    let random = Ulid::new().random();
    0x4000_0000 | (u32::try_from(random & 0x0fff_ffff).unwrap_or_default())
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
pub fn container(spec: &ContainerSpec) -> ContainerCreateBody {
    let class = &spec.class;
    let memory = signed(class.memory_mb * MIB);
    let owner = format!("uid={0},gid={0},mode=0700", spec.uid);
    let scratch = format!("rw,noexec,nosuid,nodev,size={}m,nr_inodes=16384,{owner}", class.scratch_mb);
    let file_mb = class.mounts.iter().find_map(|mount| match mount {
        Mount::NewSet { file_mb, .. } => Some((*file_mb).max(class.scratch_mb)),
        _ => None,
    });
    let file_mb = file_mb.unwrap_or(class.scratch_mb);
    let mounts: Vec<_> = class.mounts.iter().map(mount).collect();
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
        nano_cpus: Some(class.nano_cpus),
        pids_limit: Some(i64::from(class.pids)),
        shm_size: Some(signed((class.memory_mb / 8).clamp(8, 64) * MIB)),
        tmpfs: Some(HashMap::from([("/job".into(), scratch)])),
        ulimits: Some(vec![ulimit("core", 0), ulimit("fsize", signed(file_mb * MIB)), ulimit("nofile", 1024)]),
        mounts: (!mounts.is_empty()).then_some(mounts),
        masked_paths: Some(MASKED.map(String::from).to_vec()),
        readonly_paths: Some(READ_ONLY.map(String::from).to_vec()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        runtime: class.runtime.clone(),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(class.image.clone()),
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

fn mount(mount: &Mount) -> bollard::models::Mount {
    use bollard::models::{Mount as Body, MountBindOptions, MountType, MountVolumeOptions};
    match mount {
        Mount::Set { volume } => Body {
            target: Some("/deps".into()),
            source: Some(volume.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(true),
            volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..Body::default()
        },
        // Copies the image's empty folder, for its mode: the installer's uid is its own.
        Mount::NewSet { volume, .. } => Body {
            target: Some("/deps".into()),
            source: (!volume.is_empty()).then(|| volume.clone()),
            typ: Some(MountType::VOLUME),
            read_only: Some(false),
            ..Body::default()
        },
        Mount::Wheelhouse { source, folder, target } => Body {
            target: Some(target.clone()),
            source: Some(source.clone()),
            typ: Some(if *folder { MountType::BIND } else { MountType::VOLUME }),
            read_only: Some(true),
            // Only the folder itself, whatever the host has mounted below it.
            bind_options: folder.then(|| MountBindOptions { non_recursive: Some(true), ..MountBindOptions::default() }),
            volume_options: (!folder)
                .then(|| MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
            ..Body::default()
        },
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
            class: Class::new("ade-runner:test", runtime, &limits, &[]),
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

    /// Attack 11: what is mounted, and how; nothing of it is writable for a job.
    #[test]
    fn a11_mounts_are_volumes_for_jobs_and_folders_for_installers_only() {
        let limits = Limits::resolve(&Caps::default(), Requested::default()).unwrap();
        let mounts = [
            Mount::Set { volume: "set".into() },
            Mount::NewSet { volume: "new".into(), file_mb: 1024 },
            Mount::NewSet { volume: String::new(), file_mb: 1024 },
            Mount::Wheelhouse { source: "/srv/wheels".into(), folder: true, target: "/wheelhouse/instance".into() },
            Mount::Wheelhouse { source: "wheels".into(), folder: false, target: "/wheelhouse/instance".into() },
        ];
        let body = |mounts: &[Mount]| {
            let class = Class::new("i", None, &limits, mounts);
            let spec = ContainerSpec { class, uid: 1, labels: HashMap::new() };
            serde_json::to_value(container(&spec)).unwrap()
        };
        for (at, mount) in mounts.iter().enumerate() {
            let mut with = body(std::slice::from_ref(mount));
            let mut without = body(&[]);
            for body in [&mut with, &mut without] {
                body["HostConfig"]["Ulimits"][1] = serde_json::Value::Null;
            }
            insta::assert_json_snapshot!(format!("mount_{at}"), with["HostConfig"]["Mounts"]);
            with["HostConfig"].as_object_mut().unwrap().shift_remove("Mounts");
            assert_eq!(with, without, "a mount changes nothing else");
        }
    }
}
