//! The installer container: what it is told, and what is believed of what it says.

use super::flight::{Failed, Step};
use super::index::{Index, Tool, Wheelhouse};
use super::secrets::Secrets;
use super::sets::{Locked, Record, boot_id, remove_volume};
use super::{Deps, Place, Want, cancelled};

use crate::egress::Grant;
use crate::events::now;
use crate::network::Purpose;
use crate::sandbox::protocol::{self, RawEvent};
use crate::sandbox::{
    self, Class, ContainerSpec, Failure, FailureKind, InputFile, Limits, Mount, Notice, Outcome, Request, Source,
    egress_terms, private_uid,
};
use crate::text::plain;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc, watch};
use ulid::Ulid;

/// What an installer brings out.
const OUTPUTS: &[&str] = &["install.log", "install.json"];
const LOG: &str = "install.log";
const REPORT: &str = "install.json";
/// Memory of an installer, MiB; half of it is scratch space for what is no part of the set.
const MEMORY_MB: u64 = 1024;
const PIDS: u32 = 256;
const OUTPUT_MB: u64 = 16;
const MAX_PACKAGES: usize = 2000;

/// The name of a new installer container.
fn container_name() -> String {
    format!("ade-install-{}", Ulid::new().to_string().to_lowercase())
}

/// What an installer reports.
#[derive(Debug, Deserialize)]
pub struct Resolved {
    tool: String,
    tool_version: String,
    source: String,
    lock: String,
    /// What the requirements come to.
    pub packages: Vec<Locked>,
    #[serde(default)]
    files: u64,
    #[serde(default)]
    bytes: u64,
}

/// One run of an installer.
struct Run<'a> {
    index: &'a Index,
    place: &'a Place,
    want: &'a Want,
    container: &'a str,
    volume: &'a str,
    resolve_only: bool,
}

/// Installs into a new volume and records it; the volume is gone when that fails.
pub async fn install(
    deps: &Deps,
    place: &Place,
    want: &Want,
    key: &str,
    cancel: watch::Receiver<bool>,
    steps: &broadcast::Sender<Step>,
) -> Result<(), Failed> {
    let started = Instant::now();
    let volume = deps.sets.new_volume(place, &want.workspace_id, key).await?;
    let container = container_name();
    let run = Run { index: &deps.index, place, want, container: &container, volume: &volume, resolve_only: false };
    let done = run
        .to_end(cancel, &mut |step| {
            steps.send(step).ok();
        })
        .await
        .and_then(|(resolved, python, log)| {
            let lock_sha256 = sha256(&resolved.lock);
            let record = Record {
                set_id: format!("set_{}", &sha256(&format!("{key} {lock_sha256}"))[..32]),
                key: key.to_owned(),
                workspace_id: want.workspace_id.clone(),
                volume: volume.clone(),
                created_at: now(),
                image_digest: place.image.clone(),
                python,
                tool: resolved.tool,
                tool_version: resolved.tool_version,
                source: resolved.source,
                requirements: want.requirements.list.iter().map(|asked| asked.text.clone()).collect(),
                lock_sha256,
                lock: resolved.lock,
                packages: resolved.packages,
                bytes: resolved.bytes,
                files: resolved.files,
                install_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                boot_id: boot_id(),
            };
            deps.sets.record(&record, &log).map_err(|failure| Failed { failure, log })
        });
    if done.is_err() {
        remove_volume(&place.docker, &volume).await;
    }
    done
}

/// Resolves without installing; its volume holds what the tools fetch meanwhile.
pub async fn resolve(
    index: &Index,
    place: &Place,
    want: &Want,
    cancel: watch::Receiver<bool>,
    told: &mut (dyn FnMut(Step) + Send),
) -> Result<Resolved, Failed> {
    let container = container_name();
    let run = Run { index, place, want, container: &container, volume: "", resolve_only: true };
    run.to_end(cancel, told).await.map(|(resolved, ..)| resolved)
}

impl Run<'_> {
    /// Runs the installer to its end: its report, the version of Python, and its log without secrets.
    async fn to_end(
        &self,
        cancel: watch::Receiver<bool>,
        told: &mut (dyn FnMut(Step) + Send),
    ) -> Result<(Resolved, String, String), Failed> {
        self.refusal().map_or(Ok(()), |refusal| Err(Failed::from(refusal)))?;
        let secrets = self.index.secrets();
        let outputs = Arc::new(tempfile::tempdir().map_err(|error| {
            Failure::new(FailureKind::HostIo, format!("cannot make a temporary folder: {error}; free space there"))
        })?);
        let limits = self.limits();
        let mounts = self.mounts();
        let request = self.request(&limits, &mounts, Arc::clone(&outputs));
        let (notices, mut received) = mpsc::channel(256);
        let mut python = String::new();
        let (report, ()) = tokio::join!(
            async {
                let report = sandbox::run(&self.place.pool, request, cancel, &notices).await;
                drop(notices);
                report
            },
            async {
                while let Some(notice) = received.recv().await {
                    match notice {
                        Notice::Ready { python: version, .. } => python = version,
                        Notice::Event(raw) => {
                            if let Some(step) = step(raw, &secrets) {
                                told(step);
                            }
                        }
                        Notice::Egress(record) => told(Step::Egress(record)),
                        _ => {}
                    }
                }
            }
        );
        let report = report?;
        let log = secrets.scrub(&read(&outputs, LOG));
        match report.outcome {
            Outcome::Succeeded(_) => {
                let resolved = parse(&read(&outputs, REPORT)).map_err(|what| Failed {
                    failure: Failure::new(
                        FailureKind::DependencyInstallFailed,
                        format!("the installer's report cannot be used: {what}"),
                    ),
                    log: log.clone(),
                })?;
                Ok((resolved, python, log))
            }
            Outcome::Cancelled(_) => Err(Failed { log, ..cancelled() }),
            Outcome::Failed(failure) => Err(Failed { failure: self.judged(failure, &secrets), log }),
        }
    }

    /// What the settings of the instance do not let this package have.
    fn refusal(&self) -> Option<Failure> {
        if !self.want.network.install.allowed {
            return None;
        }
        let (code, message) = if self.want.source_builds && self.index.has_credentials() {
            (
                "source_builds_and_credentials",
                "this package may build from source, and the index needs credentials, which a build script could read: put what must be built into the wheelhouse, or forbid source builds with `ade network set`",
            )
        } else if self.index.tool == Tool::Pip && !self.index.extra_urls.is_empty() {
            (
                "pip_mixes_indexes",
                "pip takes the highest version that any index has, so that a public package could take the place of one of yours: set ADE_INSTALLER=uv, which asks one index after the other, or take ADE_EXTRA_INDEX_URLS away",
            )
        } else {
            return None;
        };
        let detail = Some(json!({"code": code}));
        Some(Failure { detail, ..Failure::new(FailureKind::DependencyUnavailable, message) })
    }

    fn limits(&self) -> Limits {
        let timeout_ms = u64::try_from(self.index.timeout.as_millis()).unwrap_or(u64::MAX);
        Limits {
            timeout_ms,
            memory_mb: MEMORY_MB,
            scratch_mb: MEMORY_MB / 2,
            // The wall clock is the limit; all CPUs may be busy until then.
            cpu_seconds: (timeout_ms / 1000).saturating_mul(64),
            cpus: self.place.cpus,
            pids: PIDS,
            output_mb: OUTPUT_MB,
            on_job_end_ms: 1_000,
            log_lines: 2_000,
            log_bytes: 512 * 1024,
            issues_per_code: 0,
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let mut mounts = vec![Mount::NewSet { volume: self.volume.to_owned(), file_mb: self.index.max_set_mb }];
        mounts.extend(self.index.wheelhouses(&self.want.workspace_id).into_iter().map(|(wheelhouse, target)| {
            let (source, folder) = match wheelhouse {
                Wheelhouse::Folder(path) => (path.to_string_lossy().into_owned(), true),
                Wheelhouse::Volume(name) => (name, false),
            };
            Mount::Wheelhouse { source, folder, target: target.to_owned() }
        }));
        mounts
    }

    fn request<'b>(&'b self, limits: &'b Limits, mounts: &'b [Mount], outputs: Arc<TempDir>) -> Request<'b> {
        let (index, want) = (self.index, self.want);
        let ruling = &want.network.install;
        let places: Vec<&str> = mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Wheelhouse { target, .. } => Some(target.as_str()),
                _ => None,
            })
            .collect();
        let hosts = "the index and its files (ADE_INDEX_URL, ADE_EXTRA_INDEX_URLS, ADE_INDEX_FILE_HOSTS)";
        let grant = Grant::of(&want.network, Purpose::Install).only(index.hosts(), hosts.to_owned());
        let (terms, bundle) = egress_terms(&self.place.egress, &grant);
        let text = Bytes::from(want.requirements.text());
        let mut files = vec![InputFile { name: "in/requirements.txt".to_owned(), source: Source::Bytes(text) }];
        files.extend(bundle);
        let job = json!({
            "protocol": protocol::VERSION,
            "mode": "install",
            "limits": limits,
            "egress": terms,
            "install": {
                "tool": index.tool,
                "requirements": want.requirements.list,
                "index_url": index.url,
                "extra_index_urls": index.extra_urls,
                "network": ruling.allowed,
                "denial": if ruling.allowed { String::new() } else { want.network.denial(Purpose::Install) },
                "source_builds": want.source_builds,
                "wheelhouses": places,
                "resolve_only": self.resolve_only,
                "max_bytes": index.max_set_mb * 1024 * 1024,
            },
        });
        Request {
            name: self.container,
            spec: ContainerSpec {
                class: Class::new(&self.place.image, self.place.runtime.as_deref(), limits, mounts),
                uid: private_uid(),
                labels: self.place.labels.clone(),
            },
            limits,
            job,
            files,
            outputs,
            expected: OUTPUTS,
            installer: true,
            network: Arc::clone(&self.place.egress),
            egress: grant,
        }
    }

    /// What an installer's end means for the job that waits for it.
    fn judged(&self, failure: Failure, secrets: &Secrets) -> Failure {
        use FailureKind as Kind;
        let (kind, code, message) = match failure.kind {
            kind if kind.is_infrastructure() => return failure,
            Kind::RuntimeMissing => return failure,
            Kind::DependencyInstallFailed | Kind::DependencyNetworkDenied | Kind::DependencyUnavailable => {
                (failure.kind, None, secrets.scrub(&failure.message))
            }
            Kind::Timeout => (
                Kind::DependencyInstallFailed,
                Some("timeout"),
                format!(
                    "the install of the dependencies took longer than {} s: ask for less, or have the admin raise ADE_INSTALL_TIMEOUT_SECONDS",
                    self.index.timeout.as_secs()
                ),
            ),
            Kind::OutOfMemory => (
                Kind::DependencyInstallFailed,
                Some("out_of_memory"),
                format!("the install of the dependencies needed more than {MEMORY_MB} MB of memory"),
            ),
            Kind::DiskFull | Kind::OutputTooLarge => (
                Kind::DependencyInstallFailed,
                Some("disk_full"),
                "the install of the dependencies ran out of scratch space".to_owned(),
            ),
            _ => (Kind::DependencyInstallFailed, Some("installer_crashed"), secrets.scrub(&failure.message)),
        };
        let message = match failure.detail.as_ref().and_then(|detail| detail.get("code")).and_then(Value::as_str) {
            Some("set_too_large") => {
                format!("{message}: ask for less, or have the admin raise ADE_DEPS_MAX_SET_MB")
            }
            _ => message,
        };
        let mut detail = match failure.detail {
            Some(Value::Object(map)) => bounded(map, secrets),
            _ => Map::new(),
        };
        if let Some(code) = code {
            detail.insert("code".to_owned(), code.into());
        }
        Failure {
            message: plain(&message, 2000),
            pass: None,
            function: None,
            detail: (!detail.is_empty()).then_some(Value::Object(detail)),
            kind,
            ..failure
        }
    }
}

/// What an installer says of a failure besides: strings and short lists of them.
fn bounded(map: Map<String, Value>, secrets: &Secrets) -> Map<String, Value> {
    let text = |text: &str| Value::String(plain(&secrets.scrub(text), 2000));
    let bound = |value: Value| match value {
        Value::String(value) => Some(text(&value)),
        Value::Array(items) => Some(items.iter().take(20).filter_map(Value::as_str).map(text).collect()),
        Value::Number(number) => Some(Value::Number(number)),
        _ => None,
    };
    map.into_iter().take(12).filter_map(|(key, value)| Some((plain(&key, 40), bound(value)?))).collect()
}

/// An event of an installer as a step; others than these it cannot cause.
fn step(raw: RawEvent, secrets: &Secrets) -> Option<Step> {
    let event = ["deps.resolve", "deps.install", "log"].into_iter().find(|name| *name == raw.event)?;
    Some(Step::Event { event, detail: bounded(raw.detail, secrets) })
}

fn read(outputs: &TempDir, name: &str) -> String {
    read_text(&outputs.path().join(name)).unwrap_or_default()
}

fn read_text(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A report, believed as far as it can be checked.
fn parse(text: &str) -> Result<Resolved, String> {
    let resolved: Resolved = serde_json::from_str(text).map_err(|error| plain(&error.to_string(), 200))?;
    let word = |text: &str, limit: usize| {
        !text.is_empty() && text.len() <= limit && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if resolved.packages.len() > MAX_PACKAGES {
        return Err(format!("it lists {} packages", resolved.packages.len()));
    }
    if !matches!(resolved.source.as_str(), "index" | "wheelhouse")
        || !word(&resolved.tool, 20)
        || !word(&resolved.tool_version, 40)
    {
        return Err("it does not say where the packages came from".to_owned());
    }
    for package in &resolved.packages {
        let digest = package.sha256.len() == 64 && package.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !word(&package.name, 200) || !word(&package.version, 200) || !digest || package.filename.len() > 400 {
            return Err(format!("it names {:?}", plain(&package.name, 80)));
        }
    }
    Ok(resolved)
}

fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}
