//! A service of the benchmark's own.

use super::connection::Connection;
use crate::auth::ADMIN_KEY_FILE;
use crate::client::{Blame, Client, ClientError};
use crate::service::{ADDRESS_FILE, FIRST_WORKSPACE};
use crate::settings::{ClientSettings, ServeSettings, Target};
use crate::text::plain;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to be ready for jobs.
const READY: Duration = Duration::from_secs(120);
/// How long it may take to end, with its containers.
const ENDING: Duration = Duration::from_secs(60);

/// How a service is started.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where its folder is made.
    pub parent: PathBuf,
    /// Further arguments.
    pub arguments: Vec<OsString>,
    /// Containers at once.
    pub concurrency: u32,
}

/// A process of `ade serve` with a data folder of its own, on a free port, with no bounds but what the machine has. When it is
/// dropped it ends, with its containers, and its folder goes.
pub struct Service {
    process: Child,
    folder: TempDir,
    address: String,
    key: String,
}

fn not_started(why: &str) -> ClientError {
    ClientError::new(
        Blame::Environment,
        "service_not_started",
        format!("the service of the benchmark did not start: {why}; `ade doctor` checks this machine"),
    )
}

impl Service {
    /// Starts one and waits until it is ready. Must be called on the main thread: the service ends when the thread does that
    /// started it.
    ///
    /// # Errors
    /// `service_not_started`, with what it said.
    pub async fn start(setup: &Setup) -> Result<Self, ClientError> {
        let unwritable = |error: std::io::Error| ClientError::unwritable(&setup.parent, error);
        let folder = tempfile::Builder::new().prefix("ade-bench-").tempdir_in(&setup.parent).map_err(unwritable)?;
        let log = std::fs::File::create(folder.path().join("log")).map_err(unwritable)?;
        let mut command = Command::new(&setup.program);
        // Nothing that is set for a service of this machine is meant for this one.
        for argument in ServeSettings::augment_args(clap::Command::new("ade")).get_arguments() {
            if let Some(variable) = argument.get_env() {
                command.env_remove(variable);
            }
        }
        command
            .args(["serve", "--end-with-parent", "--listen", "127.0.0.1:0", "--log", "warn", "--drain-seconds", "0"]);
        command.args(["--rate-limit", "0", "--max-streams-per-key", "1000000", "--max-connections", "1000000"]);
        command.args(["--queue-size", "10000000", "--workspace-queue-size", "10000000"]);
        command
            .args(["--max-concurrency", &setup.concurrency.to_string(), "--data-dir"])
            .arg(folder.path().join("data"));
        command.args(&setup.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // What a terminal interrupts is the benchmark, which then ends it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn().map_err(|error| not_started(&error.to_string()))?;
        let mut service = Self { process, folder, address: String::new(), key: String::new() };
        service.ready().await?;
        Ok(service)
    }

    async fn ready(&mut self) -> Result<(), ClientError> {
        let data = self.folder.path().join("data");
        let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default().trim().to_owned();
        let deadline = Instant::now() + READY;
        let mut why = "it has not said where it listens".to_owned();
        loop {
            if matches!(self.process.try_wait(), Ok(Some(_))) {
                return Err(not_started(&self.last_words()));
            }
            let (address, key) = (read(ADDRESS_FILE), read(ADMIN_KEY_FILE));
            if !address.is_empty() && !key.is_empty() {
                self.address = address.trim_start_matches("http://").to_owned();
                self.key = key;
                match self.call("GET", "/readyz", None).await {
                    Ok(_) => return Ok(()),
                    Err(error) => why = error.message,
                }
            }
            if Instant::now() > deadline {
                return Err(not_started(&format!("it is not ready: {why} {}", self.last_words())));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        plain(&lines[lines.len().saturating_sub(5)..].join(" "), 1_000)
    }

    /// A connection to it, with an admin's key.
    ///
    /// # Errors
    /// `connection_lost`.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        Connection::open(&self.address, &self.key).await
    }

    /// One request.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<serde_json::Value, ClientError> {
        self.connect().await?.call(method, path, body).await
    }

    /// A client of it, with an admin's key.
    ///
    /// # Errors
    /// As [`Client::find`].
    pub fn client(&self) -> Result<Client, ClientError> {
        let target = Target {
            server: Some(format!("http://{}", self.address)),
            api_key: Some(self.key.clone()),
            workspace: Some(FIRST_WORKSPACE.to_owned()),
        };
        Client::find(&ClientSettings { target, data_dir: None }, None)
    }

    /// Resident memory, now and at most, MB.
    #[must_use]
    pub fn memory_mb(&self) -> (f64, f64) {
        let status = self.proc("status");
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1024.0
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    /// CPU time since its start, seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        /// Linux counts for programs in hundredths of a second, whatever the kernel's own clock is.
        const TICKS: f64 = 100.0;
        let stat = self.proc("stat");
        // Behind the name, which may have anything in it: the state, and from there the 12th and 13th.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
    }

    fn proc(&self, name: &str) -> String {
        std::fs::read_to_string(Path::new("/proc").join(self.process.id().to_string()).join(name)).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).ok();
        let deadline = Instant::now() + ENDING;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Its containers end by themselves then: their stdin closes.
                self.process.kill().ok();
                self.process.wait().ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
