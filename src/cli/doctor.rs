//! `ade doctor`: whether jobs can run on this machine, and how to mend what stands in their way.

use super::style::{BAD, DIM, GOOD, WARN, bytes, paint, thousands};
use super::{Exit, Output, cancel_on_signals, node};
use crate::egress::Egress;
use crate::image::{self, ImageSpec};
use crate::job::{self, Node};
use crate::settings::{Settings, local_data_dir};
use crate::text::plain;
use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use serde::Serialize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Oldest Engine API that the profile needs: private cgroup namespaces came with 1.41 (Engine 20.10).
const MIN_API: (u32, u32) = (1, 41);
const MIN_FREE_BYTES: u64 = 2 * 1024 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Error,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Debug, Default)]
struct Report(Vec<Check>);

impl Report {
    fn ok(&mut self, name: &'static str, finding: impl Into<String>) {
        self.0.push(Check { name, verdict: Verdict::Ok, finding: finding.into(), mend: None });
    }

    fn add(&mut self, name: &'static str, verdict: Verdict, finding: impl Into<String>, mend: impl Into<String>) {
        self.0.push(Check { name, verdict, finding: finding.into(), mend: Some(mend.into()) });
    }

    fn expect(
        &mut self,
        name: &'static str,
        holds: bool,
        finding: impl Into<String>,
        otherwise: Verdict,
        mend: impl Into<String>,
    ) {
        if holds { self.ok(name, finding) } else { self.add(name, otherwise, finding, mend) }
    }
}

/// Runs the command.
pub async fn main(settings: &Settings, output: Output) -> ExitCode {
    let mut report = Report::default();
    examine(settings, &mut report).await;
    let worst = report.0.iter().map(|check| check.verdict as u8).max().unwrap_or_default();
    if output.json {
        println!("{}", serde_json::json!({"ok": worst < Verdict::Error as u8, "checks": report.0}));
    } else {
        for check in &report.0 {
            let mark = match check.verdict {
                Verdict::Ok => paint(GOOD, "ok     "),
                Verdict::Warning => paint(WARN, "warning"),
                Verdict::Error => paint(BAD, "error  "),
            };
            anstream::println!("{mark}  {:10} {}", check.name, check.finding);
            if let Some(mend) = &check.mend {
                anstream::println!("         {} {mend}", paint(DIM, "mend:"));
            }
        }
    }
    if worst < Verdict::Error as u8 { Exit::Success.into() } else { Exit::Environment.into() }
}

async fn examine(settings: &Settings, report: &mut Report) {
    let docker = match node::connect(settings).await {
        Ok(docker) => docker,
        Err(failure) => {
            report.add(
                "docker",
                Verdict::Error,
                failure.message,
                "install and start Docker Engine 20.10 or later, and run as root or as a member of the group `docker`; for another socket set DOCKER_HOST",
            );
            return;
        }
    };
    let version = docker.version().await.unwrap_or_default();
    let api = version.api_version.unwrap_or_default();
    report.expect(
        "docker",
        parse_api(&api) >= MIN_API,
        format!("Engine {}, API {api}", version.version.unwrap_or_default()),
        Verdict::Error,
        "job containers need Docker Engine 20.10 (API 1.41) or later",
    );
    let info = docker.info().await.unwrap_or_default();
    features(settings, &info, report);
    machine(settings, &info, report);
    disk(&info, report);

    match image::find(&docker, settings.image.as_deref()).await {
        Ok(Some(image)) => {
            report.ok(
                "image",
                format!(
                    "{} ({}, route {})",
                    image.tag,
                    bytes(u64::try_from(image.size).unwrap_or_default()),
                    image.route.as_deref().unwrap_or("unknown")
                ),
            );
            let egress = match Egress::new(settings) {
                Ok(egress) => Arc::new(egress),
                Err(failure) => {
                    report.add(
                        "egress",
                        Verdict::Error,
                        failure.message,
                        "see the message: set ADE_CA_BUNDLE or ADE_UPSTREAM_PROXY to what can be used, or unset it",
                    );
                    return;
                }
            };
            let node = Node {
                pool: crate::sandbox::Pool::of_a_command(&docker, None),
                docker,
                egress,
                image: image.tag,
                image_digest: image.id,
                runtime: settings.runtime.clone(),
                caps: settings.caps(),
                instance: "cli".to_owned(),
                node: None,
                deps: settings.deps(&local_data_dir()),
            };
            // From here on an interrupt would leave the test container behind; it takes a moment only.
            let _signals = cancel_on_signals();
            let started = Instant::now();
            match job::probe(&node).await {
                Ok(ready) => report.ok(
                    "container",
                    format!(
                        "a hardened container was ready in {} ms (runner {}, Python {})",
                        started.elapsed().as_millis(),
                        plain(&ready.runner_version, 40),
                        plain(&ready.python, 40)
                    ),
                ),
                Err(failure) => report.add(
                    "container",
                    Verdict::Error,
                    failure.message,
                    "see the message; rebuild the image with `ade image build`",
                ),
            }
        }
        Ok(None) => {
            let tag = settings.image.clone().unwrap_or_else(|| ImageSpec::embedded().tag);
            report.add(
                "image",
                Verdict::Warning,
                format!("{tag} is not built yet"),
                "`ade image build` builds it; `ade run` does so by itself",
            );
        }
        Err(error) => report.add("image", Verdict::Error, error.to_string(), "`ade image build` rebuilds it"),
    }
}

fn features(settings: &Settings, info: &SystemInfo, report: &mut Report) {
    let linux = info.os_type.as_deref() == Some("linux");
    let arch = info.architecture.clone().unwrap_or_default();
    report.expect(
        "platform",
        linux,
        format!(
            "{} {arch}, kernel {}",
            info.os_type.clone().unwrap_or_default(),
            info.kernel_version.clone().unwrap_or_default()
        ),
        Verdict::Error,
        "job containers are Linux containers: switch Docker to them",
    );
    let cgroup = match info.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => "v2",
        _ => "v1",
    };
    let mut lacking = Vec::new();
    for (name, present) in
        [("memory limit", info.memory_limit), ("CPU quota", info.cpu_cfs_quota), ("process limit", info.pids_limit)]
    {
        if present == Some(false) {
            lacking.push(name);
        }
    }
    report.expect(
        "limits",
        lacking.is_empty(),
        if lacking.is_empty() { format!("memory, CPU and process limits are enforced (cgroup {cgroup})") } else { format!("Docker cannot enforce: {}", lacking.join(", ")) },
        Verdict::Error,
        "enable the memory, cpu and pids cgroup controllers in the kernel's command line; without them a job can take the machine down",
    );
    let seccomp = info.security_options.iter().flatten().any(|option| option.contains("seccomp"));
    report.expect(
        "seccomp",
        seccomp,
        if seccomp { "system calls are filtered" } else { "Docker has no seccomp support" },
        Verdict::Error,
        "use a Docker Engine built with seccomp and a kernel with CONFIG_SECCOMP",
    );
    if let Some(runtime) = &settings.runtime {
        let known: Vec<&String> = info.runtimes.iter().flatten().map(|(name, _)| name).collect();
        let there = known.contains(&runtime);
        report.expect(
            "runtime",
            there,
            if there { format!("{runtime} is configured") } else { format!("{runtime} was asked for, Docker knows {known:?}") },
            Verdict::Error,
            format!("install {runtime}, add it to \"runtimes\" in /etc/docker/daemon.json and restart Docker, or unset ADE_RUNTIME"),
        );
    }
}

fn machine(settings: &Settings, info: &SystemInfo, report: &mut Report) {
    let memory = u64::try_from(info.mem_total.unwrap_or_default()).unwrap_or_default();
    let cpus = info.ncpu.unwrap_or_default();
    let cap = settings.worker_mem_mb * 1024 * 1024;
    report.expect(
        "memory",
        cap <= memory,
        format!("{} in the machine, a job may take up to {} MB", bytes(memory), thousands(settings.worker_mem_mb)),
        Verdict::Warning,
        "lower ADE_WORKER_MEM_MB below the machine's memory",
    );
    #[expect(clippy::cast_precision_loss, reason = "a machine has few CPUs")]
    let fits = settings.worker_cpus <= cpus as f64;
    report.expect(
        "cpus",
        fits,
        format!("{cpus} in the machine, a job may take {}", settings.worker_cpus),
        Verdict::Error,
        "Docker refuses containers with more CPUs than there are: lower ADE_WORKER_CPUS",
    );
}

fn disk(info: &SystemInfo, report: &mut Report) {
    let root = info.docker_root_dir.clone().unwrap_or_else(|| "/var/lib/docker".into());
    for (name, path) in [("disk", Path::new(&root).to_owned()), ("temp disk", std::env::temp_dir())] {
        // A Docker root that this process cannot see is on another machine, or not ours to judge.
        let Ok(stat) = rustix::fs::statvfs(&path) else { continue };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        report.expect(
            name,
            free >= MIN_FREE_BYTES,
            format!("{} free at {}", bytes(free), path.display()),
            Verdict::Warning,
            "free some space: `docker system df` shows what Docker holds",
        );
    }
}

fn parse_api(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_are_compared_as_numbers() {
        assert!(parse_api("1.100") > MIN_API && parse_api("1.9") < MIN_API && parse_api("") < MIN_API);
    }
}
