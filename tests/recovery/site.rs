//! A data directory and the processes that run in it.

use crate::api::{Api, eventually};
use crate::support::{ade, image_id};
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

/// A data directory with what its processes need. Dropping it, also in a panic, removes its containers and the folder.
pub struct Site {
    folder: tempfile::TempDir,
    pub args: Vec<String>,
    /// Where the data is, when it is not in the folder.
    pub data_dir: Option<PathBuf>,
    /// The key of another site on the same database.
    pub key: Option<String>,
    /// Its processes' node id, once there was one: the folder may be gone when it is wanted.
    known: std::sync::OnceLock<String>,
}

impl Site {
    pub fn new(args: &[&str]) -> Self {
        image_id();
        let folder = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { folder, args, data_dir: None, key: None, known: std::sync::OnceLock::new() }
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn data(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn command(&self, more: &[&str]) -> std::process::Command {
        let mut command = ade();
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "info,ade::api=warn", "--data-dir"])
            .arg(self.data());
        // What is parked beside jobs has tests of its own.
        if !self.args.iter().any(|arg| arg == "--pool-max") {
            command.args(["--pool-max", "0"]);
        }
        command.args(&self.args).args(more).env("TMPDIR", self.folder.path());
        command
    }

    /// Starts a process and waits until it answers.
    #[track_caller]
    pub fn start(&self) -> Node<'_> {
        self.start_with(&[])
    }

    #[track_caller]
    pub fn start_with(&self, more: &[&str]) -> Node<'_> {
        let mut node = self.spawn(more);
        node.wait_until_it_answers();
        node
    }

    /// Starts a process, and does not wait.
    pub fn spawn(&self, more: &[&str]) -> Node<'_> {
        std::fs::remove_file(self.data().join("address")).ok();
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let child = self.command(more).stdout(Stdio::null()).stderr(log).spawn().expect("ade starts");
        Node { site: self, child, api: None }
    }

    /// Runs a process that is expected to end by itself.
    pub fn refused(&self, more: &[&str]) -> Output {
        self.command(more).output().expect("ade starts")
    }

    pub fn instance(&self) -> String {
        crate::truth::Db::of(self).text("SELECT id FROM instance")
    }

    pub fn node_id(&self) -> String {
        std::fs::read_to_string(self.data().join("node-id")).unwrap_or_default().trim().to_owned()
    }

    /// Names of this node's containers, running or not.
    pub fn containers(&self) -> Vec<String> {
        containers("dev.ade.node", &self.node_id())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(12_000).map_or(0, |(at, _)| at);
            eprintln!("--- end of the log of {}\n{}", self.folder.path().display(), &log[from..]);
        }
        let node = self.known.get().cloned().unwrap_or_else(|| self.node_id());
        if node.is_empty() {
            return;
        }
        // What Docker was asked for by a process that was killed may still come.
        std::thread::spawn(move || {
            for _ in 0..3 {
                remove_containers("dev.ade.node", &node);
                std::thread::sleep(Duration::from_millis(50));
            }
        })
        .join()
        .ok();
    }
}

/// A process; killed when it is dropped.
pub struct Node<'a> {
    pub site: &'a Site,
    child: Child,
    api: Option<Api>,
}

impl Node<'_> {
    #[track_caller]
    pub fn wait_until_it_answers(&mut self) {
        let path = self.site.data().join("address");
        let mut address = String::new();
        eventually("the service listens", 30, || {
            assert_eq!(self.child.try_wait().unwrap(), None, "ade serve ended: {}", self.site.log());
            address = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            !address.is_empty()
        });
        let key = self.site.key.clone().unwrap_or_else(|| {
            std::fs::read_to_string(self.site.data().join("admin-key")).unwrap_or_default().trim().to_owned()
        });
        self.site.known.get_or_init(|| self.site.node_id());
        self.api = Some(Api::new(&address, &key));
    }

    /// Waits until `/readyz` says yes.
    #[track_caller]
    pub fn ready(self) -> Self {
        eventually("the service is ready", 30, || self.not_ready().is_empty());
        self
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub fn exit_within(mut self, seconds: u64) -> Option<i32> {
        let mut code = None;
        eventually("the process ends", seconds, || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code())
    }

    /// SIGTERM, and everything as it should be.
    #[track_caller]
    pub fn stop(self) {
        self.signal(rustix::process::Signal::TERM);
        assert_eq!(self.exit_within(60), Some(0));
    }
}

impl std::ops::Deref for Node<'_> {
    type Target = Api;

    fn deref(&self) -> &Api {
        self.api.as_ref().expect("the process was waited for")
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn with_docker<T>(work: impl AsyncFnOnce(bollard::Docker) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let docker = match std::env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => bollard::Docker::connect_with_host(&host),
            _ => bollard::Docker::connect_with_local_defaults(),
        };
        work(docker.expect("these tests need Docker")).await
    })
}

/// Names of containers with a label.
pub fn containers(label: &str, value: &str) -> Vec<String> {
    let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    let found = with_docker(async |docker| docker.list_containers(Some(options)).await).expect("Docker lists");
    let names = found.into_iter().flat_map(|container| container.names.unwrap_or_default());
    names.map(|name| name.trim_start_matches('/').to_owned()).collect()
}

pub fn remove_containers(label: &str, value: &str) {
    for name in containers(label, value) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        with_docker(async |docker| docker.remove_container(&name, Some(options)).await).ok();
    }
}
