//! What jobs are measured against: containers of the same engine and image in which nothing of ADE runs.

use super::figures::sustained;
use crate::client::{Blame, ClientError};
use crate::job::{Node, usual_container};
use crate::sandbox::{ContainerSpec, names, reap, run_plain, start_and_remove};
use crate::text::plain;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;
use ulid::Ulid;

/// After what time nobody wants a container of these any more, should a crash leave it.
const LIFETIME: Duration = Duration::from_secs(300);
/// How long the engine may take to become quiet.
const QUIET: Duration = Duration::from_secs(20);
/// How long it must look the same for that.
const STILL: Duration = Duration::from_millis(400);

/// The engine and image of a node, without its service.
pub struct Peer {
    node: Node,
    docker_host: Option<String>,
    has_command: bool,
    prefix: String,
    made: AtomicUsize,
}

/// What is made.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// `docker run --rm --network none IMAGE python3 -c pass`.
    Run,
    /// A container of a job's profile that does nothing, from create to remove.
    Ceiling,
}

impl Peer {
    /// Finds out whether there is a `docker` command that reaches the engine.
    pub async fn new(node: Node, docker_host: Option<String>) -> Self {
        let prefix = format!("ade-bench-{}-", Ulid::new().to_string().to_lowercase());
        let mut peer = Self { node, docker_host, has_command: false, prefix, made: AtomicUsize::new(0) };
        let mut asking = peer.docker();
        asking.arg("version").stdout(Stdio::null()).stderr(Stdio::null());
        peer.has_command = asking.status().await.is_ok_and(|status| status.success());
        peer
    }

    /// The node that is measured against.
    pub const fn node(&self) -> &Node {
        &self.node
    }

    /// What [`What::Run`] is, for people.
    pub const fn how(&self) -> &'static str {
        if self.has_command { "the docker command" } else { "over the API: there is no docker command" }
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        if let Some(host) = &self.docker_host {
            command.args(["--host", host]);
        }
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Makes one container, and waits until it is gone; how long that took.
    pub async fn one(&self, what: What) -> Result<Duration, ClientError> {
        let name = format!("{}{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed));
        let spec = usual_container(&self.node, LIFETIME)?;
        let begun = Instant::now();
        match what {
            What::Ceiling => start_and_remove(&self.node.docker, &name, &spec).await?,
            What::Run if self.has_command => self.command(&name, &spec).await?,
            What::Run => run_plain(&self.node.docker, &name, &spec).await?,
        }
        Ok(begun.elapsed())
    }

    async fn command(&self, name: &str, spec: &ContainerSpec) -> Result<(), ClientError> {
        let mut command = self.docker();
        command.args(["run", "--rm", "--network", "none", "--name", name]);
        for (label, value) in &spec.labels {
            command.args(["--label", &format!("{label}={value}")]);
        }
        command.args([&self.node.image, "python3", "-c", "pass"]);
        let refused = |why: &str| {
            let message = format!("docker run of {} failed: {}", self.node.image, plain(why, 300));
            ClientError::new(Blame::Environment, "docker_run_failed", message)
        };
        let output = command.output().await.map_err(|error| refused(&error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        Err(refused(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Makes so many, with so many at once, as `xargs -P` does; how many a second were made, as [`sustained`] counts.
    pub async fn rate(&self, what: What, jobs: usize, at_once: usize) -> Result<f64, ClientError> {
        let (begun, next) = (Instant::now(), AtomicUsize::new(0));
        let worker = || async {
            let mut ends = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < jobs {
                self.one(what).await?;
                ends.push(begun.elapsed().as_secs_f64());
            }
            Ok::<_, ClientError>(ends)
        };
        let ends = futures_util::future::try_join_all((0..at_once).map(|_| worker())).await?;
        Ok(sustained(ends.into_iter().flatten().collect()))
    }

    /// Waits until the containers of an instance are parked ones only, and no more are being made or removed; how many are parked.
    /// It is not waited for long: a busy machine is measured as it is.
    pub async fn quiet(&self, instance: &str) -> usize {
        let deadline = Instant::now() + QUIET;
        let mut before: Option<Vec<String>> = None;
        loop {
            let now = names(&self.node.docker, instance).await;
            let settled = now.as_ref().is_some_and(|names| names.iter().all(|name| name.starts_with("ade-parked-")));
            if (settled && now == before) || Instant::now() > deadline {
                return now.map_or(0, |names| names.len());
            }
            before = now;
            tokio::time::sleep(STILL).await;
        }
    }

    /// Removes what an interrupt left of these.
    pub async fn remove(&self) {
        // Docker may still be making one.
        for pause in [Duration::ZERO, STILL] {
            tokio::time::sleep(pause).await;
            reap(&self.node.docker, &self.node.instance, |container| container.name.starts_with(&self.prefix)).await;
        }
    }
}

/// Whether the limit on open files allows for so many; raised as far as the system lets.
///
/// # Errors
/// `too_few_files`, with the way out.
pub fn allow_files(wanted: u64) -> Result<(), ClientError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    // With the rights for it, beyond what the limit may be raised to; else up to there.
    let enough = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    let maximum = if enough { limit.maximum } else { Some(wanted) };
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).map_err(|_| {
        let has = limit.maximum.or(limit.current).unwrap_or_default();
        let message = format!(
            "so many followers need {wanted} open files, and this process may have {has}: raise it (ulimit -n {wanted}), or follow with fewer (--followers)"
        );
        ClientError::new(Blame::Environment, "too_few_files", message)
    })
}
