//! Running jobs through the `ade` binary.

use super::docker::Docker;
use super::package::Package;
use super::world::{Upload, World};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The binary under test, with no more of the environment than it needs.
pub fn ade() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ade"));
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME", "DOCKER_HOST", "ADE_IMAGE", "ADE_DEBIAN_MIRROR", "ADE_BASE_IMAGE", "ADE_CA_BUNDLE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Builds the image unless it is there, so that no test times its building, interrupts it, or does it again.
fn build_image_once() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        if !ade().args(["image", "show", "--json"]).output().is_ok_and(|shown| shown.status.success()) {
            let built = ade().args(["image", "build", "--json"]).output().expect("ade starts");
            assert!(built.status.success(), "the image is built: {}", String::from_utf8_lossy(&built.stdout));
        }
    });
}

/// The id of the image, for tests that run jobs without the binary.
pub fn image_id() -> String {
    build_image_once();
    let shown = ade().args(["image", "show", "--json"]).output().expect("ade starts");
    serde_json::from_slice::<Value>(&shown.stdout).unwrap()["id"].as_str().unwrap().to_owned()
}

/// Runs a package over inputs with further arguments of `ade run`, to the end.
pub fn run(package: &Package, uploads: &[Upload], args: &[&str]) -> Run {
    start(package, uploads, args).wait()
}

/// Like [`run`], for a package that is a file of this name and content.
pub fn run_file(name: &str, content: &[u8], args: &[&str]) -> Run {
    let world = World::with_file(name, content, &[Upload::names()]);
    Running::start(world, args, |_| {}).wait()
}

/// Starts a job and does not wait.
pub fn start(package: &Package, uploads: &[Upload], args: &[&str]) -> Running {
    Running::start(World::new(package, uploads), args, |_| {})
}

/// A job that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    world: World,
    began: Instant,
}

impl Running {
    /// Starts `ade run --json` in a world of its own; `prepare` may change the command.
    pub fn start(world: World, args: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        build_image_once();
        let mut command = ade();
        command
            .args(["run", "--json", "--out"])
            .arg(world.out())
            .args(args)
            .arg("--")
            .arg(&world.package)
            .args(&world.inputs);
        command.env("ADE_DEPS_DIR", world.sets.folder());
        command.env("TMPDIR", world.root().join("tmp")).current_dir(world.root());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command);
        Self { child: command.spawn().expect("ade starts"), world, began: Instant::now() }
    }

    /// Sends a signal by its name, such as `INT`, to `ade`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(status.is_ok_and(|status| status.success()), "the signal is sent");
    }

    /// Waits until the job's container runs and gives its name.
    pub fn container(&self) -> String {
        let docker = Docker::connect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            for job in self.world.staged_jobs() {
                for container in docker.containers_of(&job) {
                    let name =
                        container.names.and_then(|names| Some(names.first()?.trim_start_matches('/').to_owned()));
                    if let Some(name) = name
                        && docker.is_running(&name)
                    {
                        return name;
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no container of the job came up");
    }

    /// Path of an input on the host, counted from 0.
    pub fn input(&self, index: usize) -> PathBuf {
        self.world.inputs[index].clone()
    }

    /// The process id of `ade`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end and asserts that the job left nothing behind but its files.
    pub fn wait(self) -> Run {
        let run = self.wait_unchecked();
        run.world.assert_untouched(run.job_id(), run.json.get("status").and_then(Value::as_str));
        run.assert_events_are_the_engines();
        run
    }

    /// Waits for the end and asserts nothing: for tests that kill `ade` itself.
    pub fn wait_unchecked(mut self) -> Run {
        let (mut stdout, mut stderr) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).ok();
            text
        });
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).ok();
            text
        });
        let mut peak = 0;
        let status = loop {
            peak = peak.max(peak_memory_kib(self.child.id()));
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let elapsed = self.began.elapsed();
        self.world.abandoned = status.signal() == Some(9);
        let stdout = output.join().unwrap();
        let out = self.world.out();
        let text = std::fs::read_to_string(out.join("events.ndjson")).unwrap_or_default();
        Run {
            code: status.code(),
            signal: status.signal(),
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            events: text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            artifact: std::fs::read(out.join("artifact.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()),
            out,
            stdout,
            stderr: errors.join().unwrap(),
            elapsed,
            engine_peak_kib: peak,
            world: self.world,
        }
    }
}

/// The most memory that a process has used so far, KiB; 0 once it has ended.
fn peak_memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// A job that has ended.
#[derive(Debug)]
pub struct Run {
    /// Exit code of `ade`.
    pub code: Option<i32>,
    /// The signal that killed `ade`.
    pub signal: Option<i32>,
    /// What it printed, parsed; null when that was not JSON.
    pub json: Value,
    /// `events.ndjson`.
    pub events: Vec<Value>,
    /// `artifact.json`.
    pub artifact: Option<Value>,
    /// The output folder.
    pub out: PathBuf,
    /// What it printed.
    pub stdout: String,
    /// What it printed on stderr.
    pub stderr: String,
    /// From its start to its end.
    pub elapsed: Duration,
    /// The most memory that `ade` itself used, KiB.
    pub engine_peak_kib: u64,
    /// The host around it.
    pub world: World,
}

impl Run {
    /// `succeeded`, `failed` or `cancelled`.
    pub fn status(&self) -> &str {
        self.json["status"].as_str().unwrap_or_else(|| panic!("no status: {} {}", self.stdout, self.stderr))
    }

    /// The error's kind, or what it printed when there is no error.
    pub fn kind(&self) -> &str {
        self.json["error"]["kind"]
            .as_str()
            .unwrap_or_else(|| panic!("no error: {} {} {:?}", self.stdout, self.stderr, self.log()))
    }

    /// The error's message.
    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }

    /// The id of the job, when it came to have one.
    pub fn job_id(&self) -> Option<&str> {
        self.json["job_id"].as_str()
    }

    /// Asserts that the job succeeded.
    #[track_caller]
    pub fn assert_succeeded(&self) -> &Self {
        assert_eq!(
            (self.status(), self.code),
            ("succeeded", Some(0)),
            "{} {:?} {}",
            self.json["error"],
            self.log(),
            self.stderr
        );
        self
    }

    /// Asserts that the job failed with this kind, and that the message has all these parts: the thing, the limit, the
    /// way out.
    #[track_caller]
    pub fn assert_failed(&self, kind: &str, parts: &[&str]) -> &Self {
        assert_eq!(self.kind(), kind, "{} {:?} {}", self.message(), self.log(), self.stderr);
        for part in parts {
            assert!(self.message().contains(part), "{part:?} is not in: {}", self.message());
        }
        self
    }

    /// An output file as text.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.out.join(name)).unwrap_or_else(|error| panic!("{name}: {error}; {}", self.stdout))
    }

    /// An output file as JSON.
    #[track_caller]
    pub fn json_file(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    /// The details of all events of a name, in order.
    pub fn events_named(&self, name: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["event"] == name).map(|event| &event["detail"]).collect()
    }

    /// What scripts printed, line by line.
    pub fn log(&self) -> Vec<&str> {
        self.events_named("log").into_iter().filter_map(|detail| detail["text"].as_str()).collect()
    }

    /// The lines `name: value` that a probe printed.
    pub fn findings(&self) -> BTreeMap<&str, &str> {
        self.log().into_iter().filter_map(|line| line.split_once(": ")).collect()
    }

    /// One finding of a probe.
    #[track_caller]
    pub fn finding(&self, name: &str) -> &str {
        self.findings()
            .get(name)
            .copied()
            .unwrap_or_else(|| panic!("the probe did not report {name}: {:?} {}", self.log(), self.json["error"]))
    }

    /// Sequence numbers without gaps, one job, one end: whatever a container says, the log is the engine's.
    fn assert_events_are_the_engines(&self) {
        for (index, event) in self.events.iter().enumerate() {
            assert_eq!(event["seq"].as_u64(), Some(index as u64 + 1), "{event}");
            assert_eq!(event["job_id"].as_str(), self.job_id(), "{event}");
        }
        if let Some(last) = self.events.last() {
            assert_eq!((last["event"].as_str(), last["state"].as_str()), (Some("exit"), self.json["status"].as_str()));
            assert_eq!(self.events_named("exit").len(), 1, "a job ends once");
        }
    }
}

/// How late the engine had the lines `at: SECONDS` that a probe printed with the time of its clock, milliseconds, the
/// latest last.
pub fn lateness(events: &[Value]) -> Vec<f64> {
    let late = events.iter().filter_map(|event| {
        let printed: f64 = event["detail"]["text"].as_str()?.strip_prefix("at: ")?.parse().ok()?;
        let seen = time::OffsetDateTime::parse(event["ts"].as_str()?, &time::format_description::well_known::Rfc3339);
        let seen = seen.ok()?.unix_timestamp_nanos() / 1_000_000;
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in an f64")]
        Some(seen as f64 - printed * 1000.0)
    });
    let mut late: Vec<f64> = late.collect();
    late.sort_by(f64::total_cmp);
    late
}

/// Runs `attack` while well-behaved jobs run next to it, one after the other, and asserts that each of them succeeds with
/// the right result. Gives what the attack gave, and the neighbours.
pub fn beside_neighbours<T: Send>(attack: impl FnOnce() -> T + Send) -> (T, Vec<Run>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
            over.store(true, Ordering::SeqCst);
            result
        });
        let mut neighbours = Vec::new();
        while neighbours.is_empty() || (!over.load(Ordering::SeqCst) && neighbours.len() < 5) {
            // The attack gets a head start, so that the neighbour meets it at work.
            std::thread::sleep(Duration::from_millis(1200));
            let work = "began = time.monotonic()\nsay('sum', sum(range(2_000_000)))\nsay('work_ms', int((time.monotonic() - began) * 1000))";
            let neighbour =
                run(&Package::attacking(work), &[Upload::names()], &["--memory-mb", "128", "--timeout-ms", "60000"]);
            neighbour.assert_succeeded();
            assert_eq!(neighbour.finding("sum"), "1999999000000");
            neighbours.push(neighbour);
        }
        match attack.join().unwrap() {
            Ok(result) => (result, neighbours),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
