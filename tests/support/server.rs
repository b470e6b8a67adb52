//! `ade serve`, the real binary, with a data directory of its own.

use super::docker::Docker;
use super::http::{Answer, Api, form};
use super::package::Package;
use super::postgres::EmptyDatabase;
use super::run::{ade, image_id};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Where the server keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    /// A database of its own on the server of `ADE_TEST_DATABASE_URL`.
    Postgres,
}

/// A server that runs; dropping it, also in a panic, ends it and removes its containers, files and database.
pub struct Server {
    child: Mutex<Option<Child>>,
    folder: tempfile::TempDir,
    postgres: Option<EmptyDatabase>,
    environment: Vec<(String, String)>,
    /// The server with the first admin's key.
    pub admin: Api,
    instance: String,
}

impl Server {
    /// Starts one on the embedded database, with further arguments of `ade serve`, and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::start_on(Database::Sqlite, args, &[])
    }

    /// Like [`start`](Self::start), on either database and with an environment.
    pub fn start_on(database: Database, args: &[&str], environment: &[(&str, &str)]) -> Self {
        image_id();
        let folder = tempfile::Builder::new().prefix("ade-test-serve-").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        let postgres = (database == Database::Postgres).then(EmptyDatabase::create);
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self {
            child: Mutex::new(None),
            folder,
            postgres,
            environment,
            admin: Api { address: String::new(), key: None },
            instance: String::new(),
        };
        server.boot(args);
        server.instance = server.status()["instance_id"].as_str().unwrap().to_owned();
        server
    }

    fn boot(&mut self, args: &[&str]) {
        let address_file = self.data().join("address");
        std::fs::remove_file(&address_file).ok();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command: Command = ade();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(self.data());
        // Tests ask as fast as they can; the one about the limit sets its own.
        if !args.contains(&"--rate-limit") {
            command.args(["--rate-limit", "0"]);
        }
        command.args(args).env("TMPDIR", self.folder.path().join("tmp"));
        if let Some(postgres) = &self.postgres {
            command.env("ADE_DATABASE_URL", postgres.url());
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null()).stderr(log);
        *self.lock() = Some(command.spawn().expect("ade starts"));
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ended = self.lock().as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "ade serve ended with {ended:?}: {}", self.log());
            if let Ok(address) = std::fs::read_to_string(&address_file) {
                self.admin.address = address.trim().trim_start_matches("http://").to_owned();
                if self.admin.anonymous().get("/readyz").send().status == 200 {
                    break;
                }
            }
            assert!(Instant::now() < deadline, "ade serve is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        let key = std::fs::read_to_string(self.data().join("admin-key")).expect("the first admin's key is there");
        self.admin.key = Some(key.trim().to_owned());
    }

    /// Ends it with SIGTERM and waits for it; its exit code.
    pub fn stop(&self) -> Option<i32> {
        let mut child = self.lock().take()?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        child.wait().unwrap().code()
    }

    /// Stops it and starts it again over the same data.
    pub fn restart(&mut self, args: &[&str]) {
        assert_eq!(self.stop(), Some(0), "it ends in peace: {}", self.log());
        self.boot(args);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its temporary folder.
    pub fn temporary(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// A line of `/proc/PID/status`, in KiB: `VmRSS`, or `VmHWM` for the most there ever was.
    pub fn memory_kib(&self, line: &str) -> u64 {
        let pid = self.lock().as_ref().unwrap().id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// `/system/status`.
    pub fn status(&self) -> Value {
        self.admin.get("/api/v1/system/status").send().expect(200).json()
    }

    /// Every file of documents, packages and jobs, with its size.
    pub fn blobs(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut folders = vec![self.data().join("blobs")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    // What the probe of /readyz writes comes and goes.
                    Ok(_) if entry.path().to_string_lossy().contains("probe") => {}
                    Ok(metadata) => found.push((entry.path(), metadata.len())),
                    Err(_) => {}
                }
            }
        }
        found.sort();
        found
    }

    /// A new workspace with a key of every role.
    pub fn tenant(&self) -> Tenant {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let slug = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let made = self.admin.post("/api/v1/workspaces").json(&json!({"slug": slug})).send().expect(201).json();
        let id = made["workspace_id"].as_str().unwrap().to_owned();
        let base = format!("/api/v1/workspaces/{id}");
        let key = |role: &str| {
            let asked = json!({"name": format!("the {role}"), "role": role});
            let made = self.admin.post(format!("{base}/keys")).json(&asked).send().expect(201).json();
            self.admin.with_key(made["key"].as_str().unwrap())
        };
        let (owner, editor, viewer) = (key("owner"), key("editor"), key("viewer"));
        Tenant { admin: self.admin.clone(), id, slug, base, owner, editor, viewer }
    }

    /// Sets the state of the queue.
    pub fn queue(&self, state: &str) {
        self.admin.put("/api/v1/system/queue").json(&json!({"state": state})).send().expect(200);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if let Some(mut child) = self.lock().take() {
            child.kill().ok();
            child.wait().ok();
        }
        // Docker may be what failed the test; cleaning up must not panic in a panic.
        let instance = std::mem::take(&mut self.instance);
        let deps = self.data().join("deps");
        std::panic::catch_unwind(move || {
            if !instance.is_empty() {
                Docker::connect().remove_of_instance(&instance);
            }
            super::sets::remove_all(&deps);
        })
        .ok();
        self.postgres.take();
        let log = self.log();
        if panicking {
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the end of the server's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        } else {
            assert!(!log.contains("panicked"), "the server panicked: {log}");
            assert!(!log.contains("ERROR"), "the server met an error: {log}");
        }
    }
}

/// One server for all tests that run at the same time; it ends with the last of them.
pub fn shared() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start(&["--max-concurrency", "3"]));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// The same on PostgreSQL.
pub fn shared_on_postgres() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start_on(Database::Postgres, &["--max-concurrency", "3"], &[]));
        *shared = Arc::downgrade(&server);
        server
    })
}

/// A workspace and its people.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub admin: Api,
    pub id: String,
    pub slug: String,
    /// `/api/v1/workspaces/{id}`.
    pub base: String,
    pub owner: Api,
    pub editor: Api,
    pub viewer: Api,
}

/// A config and its first version.
#[derive(Debug, Clone)]
pub struct Registered {
    pub config: String,
    pub version: String,
}

impl Tenant {
    /// A path below the workspace.
    pub fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.base)
    }

    /// Registers a package, or shows why not.
    pub fn register(&self, slug: &str, zip: &[u8]) -> Answer {
        let (content_type, body) = form(&[("slug", None, slug.as_bytes()), ("package", Some("package.zip"), zip)]);
        self.owner.post(self.path("/configs")).body(&content_type, body).send()
    }

    /// Registers a package under a slug that nobody has.
    #[track_caller]
    pub fn config(&self, package: &Package) -> Registered {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let slug = format!("config-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let made = self.register(&slug, &package.zip()).expect(201).json();
        Registered {
            config: made["config_id"].as_str().unwrap().to_owned(),
            version: made["latest_version"]["config_version_id"].as_str().unwrap().to_owned(),
        }
    }

    /// Uploads a document; its id.
    #[track_caller]
    pub fn document(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let call = self.editor.post(self.path(&format!("/documents?filename={name}")));
        let made = call.body("text/csv", content).send().expect(201).json();
        made["document_id"].as_str().unwrap().to_owned()
    }

    /// A document with two names.
    #[track_caller]
    pub fn names(&self) -> String {
        self.document("names.csv", "Name\nAda Lovelace\nGrace Hopper\n")
    }

    /// Submits.
    pub fn submit(&self, body: &Value) -> Answer {
        self.editor.post(self.path("/jobs")).json(body).send()
    }

    /// Submits a version over a document; the job's id.
    #[track_caller]
    pub fn job(&self, registered: &Registered, document: &str) -> String {
        let body = json!({"config_version_id": registered.version, "document_ids": [document]});
        let made = self.submit(&body).expect(202).json();
        made["job_id"].as_str().unwrap().to_owned()
    }

    /// A job's record.
    #[track_caller]
    pub fn record(&self, job: &str) -> Value {
        self.viewer.get(self.path(&format!("/jobs/{job}"))).send().expect(200).json()
    }

    /// Waits until `done` says so of a job's record.
    #[track_caller]
    pub fn until(&self, job: &str, done: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        let mut etag = String::from("\"none\"");
        loop {
            let call = self.viewer.get(self.path(&format!("/jobs/{job}"))).header("Prefer", "wait=20");
            let answer = call.header("If-None-Match", &etag).send();
            if answer.status == 200 {
                let record = answer.json();
                if done(&record) {
                    return record;
                }
                etag = answer.header("etag").unwrap().to_owned();
                assert!(!is_final(&record), "{job} ended before: {record:#}");
            }
            assert!(Instant::now() < deadline, "{job} takes too long: {}", self.record(job));
        }
    }

    /// Waits for the end of a job.
    #[track_caller]
    pub fn end(&self, job: &str) -> Value {
        self.until(job, is_final)
    }

    /// Waits until a job's scripts run.
    #[track_caller]
    pub fn running(&self, job: &str) -> Value {
        self.until(job, |record| record["phase"] == "running")
    }

    /// A finished job of a small package.
    #[track_caller]
    pub fn finished(&self) -> String {
        let job = self.job(&self.config(&Package::new()), &self.names());
        assert_eq!(self.end(&job)["status"], "succeeded", "{}", self.record(&job));
        job
    }

    /// Stops handing out this workspace's jobs, or goes on.
    pub fn pause(&self, paused: bool) {
        self.admin.patch(&self.base).json(&json!({"paused": paused})).send().expect(200);
    }

    /// Ids of the workspace's jobs, newest first, at most 200.
    pub fn jobs(&self) -> Vec<String> {
        let page = self.viewer.get(self.path("/jobs?limit=200")).send().expect(200).json();
        ids(&page, "job_id")
    }
}

/// The ids of a page.
pub fn ids(page: &Value, member: &str) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
}

fn is_final(record: &Value) -> bool {
    matches!(record["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

/// Waits until something is so; panics with `what` when it does not come.
#[track_caller]
pub fn eventually(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether any file below a folder has these bytes in it.
pub fn holds(folder: &Path, text: &str) -> Option<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if std::fs::read(entry.path())
                .unwrap_or_default()
                .windows(text.len())
                .any(|part| part == text.as_bytes())
            {
                return Some(entry.path());
            }
        }
    }
    None
}
