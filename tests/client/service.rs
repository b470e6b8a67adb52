//! A service of a test's own, and commands on it.

use super::support::{Package, ade, image_id};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// `ade serve` on a free port, with a data folder of its own. Ends with it.
pub struct Service {
    process: Child,
    folder: tempfile::TempDir,
}

impl Service {
    pub fn start() -> Self {
        image_id();
        let folder = tempfile::Builder::new().prefix("ade-test-").tempdir().unwrap();
        Self { process: serve(folder.path(), "127.0.0.1:0"), folder }
    }

    /// Where tests may put files.
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    pub fn address(&self) -> String {
        std::fs::read_to_string(self.data().join("address")).unwrap().trim().to_owned()
    }

    /// A command that finds the service as one on this machine does.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = ade();
        command.args(args).env("ADE_DATA_DIR", self.data()).current_dir(self.root());
        command
    }

    pub fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command with `--json` and gives what it says.
    #[track_caller]
    pub fn json(&self, args: &[&str], code: i32) -> Value {
        object(&self.call(&[args, &["--json"]].concat()), code)
    }

    /// Registers a package, and gives its slug's config.
    #[track_caller]
    pub fn register(&self, slug: &str, package: &Package) -> Value {
        let folder = self.root().join(format!("package-{slug}"));
        package.write_to(&folder);
        self.json(&["config", "push", folder.to_str().unwrap(), "--config", slug], 0)
    }

    /// Submits a job over a small workbook that is its own; gives its id.
    #[track_caller]
    pub fn submit(&self, slug: &str) -> String {
        let name = format!("input-{}.csv", ulid::Ulid::new());
        std::fs::write(self.root().join(&name), format!("Name\nAda {name}\n")).unwrap();
        let said = self.json(&["jobs", "submit", "--config", slug, &name], 0);
        said["job_id"].as_str().unwrap().to_owned()
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub fn wait_until(&self, job: &str, state: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.json(&["jobs", "get", job], 0)["status"] != state {
            assert!(Instant::now() < deadline, "{job} does not become {state}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn stop(&mut self) {
        signal(&self.process, "INT");
        self.process.wait().unwrap();
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self, address: &str) {
        self.process = serve(self.root(), address);
    }
}

fn serve(root: &Path, listen: &str) -> Child {
    let mut command = ade();
    command.args(["serve", "--listen", listen, "--drain-seconds", "0"]).env("ADE_DATA_DIR", root.join("data"));
    let log = std::fs::File::options().create(true).append(true).open(root.join("log")).unwrap();
    let process = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !root.join("data/address").exists() {
        assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(root.join("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Twice: what runs is stopped, not waited for.
            signal(&self.process, "INT");
            signal(&self.process, "INT");
            self.process.wait().ok();
        }
    }
}

/// Sends a signal by its name.
pub fn signal(process: &Child, name: &str) {
    Command::new("sh").args(["-c", &format!("kill -{name} {}", process.id())]).status().unwrap();
}

/// Waits for the end of a process whose output is piped; stdout and stderr.
pub fn end(mut process: Child) -> (Option<i32>, String, String) {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    process.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (process.wait().unwrap().code(), stdout, stderr)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The one JSON object on stdout; stderr is empty.
#[track_caller]
pub fn object(output: &Output, code: i32) -> Value {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{stdout} {stderr}");
    assert_eq!(stderr, "", "with --json nothing is said beside it");
    assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "one line: {stdout}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
