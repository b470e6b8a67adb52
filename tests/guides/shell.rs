//! A reader with a shell: does what a page says, one command after the other, and looks at what comes of it.

use super::Start;
use super::compose::Composed;
use super::page::{Block, Note, Page, root, shows};
use super::support::postgres::EmptyDatabase;
use super::support::server::{Database, Server};
use super::support::{Docker, Sets, ade, image_id, real_index};
use sqlx::{Connection, Row, SqliteConnection};
use std::fmt::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest page, from its first command to the end of what it started; and one that builds images.
const PATIENCE: Duration = Duration::from_secs(300);
const PATIENCE_WITH_BUILDS: Duration = Duration::from_secs(900);

/// A page, a folder to follow it in, and what it starts from.
pub struct Shell<'a> {
    page: &'a Page,
    folder: tempfile::TempDir,
    sets: Sets,
    index: bool,
    service: Option<Server>,
    database: Option<EmptyDatabase>,
    composed: Option<Composed>,
}

impl<'a> Shell<'a> {
    pub fn new(page: &'a Page, start: Start) -> Self {
        image_id();
        let sets = Sets::default();
        let folder = tempfile::Builder::new().prefix("ade-test-guide-").tempdir().unwrap();
        for name in ["bin", "tmp", "srv", "steps"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ade"), folder.path().join("bin/ade")).unwrap();
        copy(&root().join("docs"), &folder.path().join("work/docs"));
        let deps = sets.folder().to_str().unwrap();
        let service =
            (start == Start::Service).then(|| Server::start_on(Database::Sqlite, &[], &[("ADE_DEPS_DIR", deps)]));
        let database = (start == Start::Postgres).then(EmptyDatabase::create);
        let composed = (start == Start::Compose)
            .then(|| Composed::prepare(&folder.path().join("work"), &folder.path().join("bin")));
        Self { page, folder, sets, index: start == Start::Index, service, database, composed }
    }

    /// Does what the page says.
    ///
    /// # Panics
    /// When a command ends otherwise or prints something else than the page shows.
    pub fn follow(&self) {
        // A port that is free here, and the reader's own temporary folder.
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let address = match (&self.service, &self.composed) {
            (Some(service), _) => service.admin.address.clone(),
            (_, Some(composed)) => composed.address.clone(),
            _ => free(),
        };
        let folder = self.folder.path().display();
        let here = |text: &str| {
            let text = text.replace("127.0.0.1:8700", &address);
            let text = text.replace("/tmp/", &format!("{folder}/tmp/")).replace("/srv/", &format!("{folder}/srv/"));
            self.composed.as_ref().map_or(text.clone(), |composed| composed.rename(&text))
        };
        let mut script = String::from("set -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n");
        let mut typed = Vec::new();
        for block in &self.page.blocks {
            match &block.note {
                Some(Note::File(path)) => self.file(path, block, &here, &mut script),
                Some(Note::NotRun(_)) => {}
                _ if block.language == "console" => {
                    for command in block.typed() {
                        let step = self.step(typed.len());
                        std::fs::write(&step, here(&command.command) + "\n").unwrap();
                        let step = step.display();
                        writeln!(script, ". {step} >{step}.out 2>&1 </dev/null; echo $? >{step}.code").unwrap();
                        writeln!(script, "[ \"$(cat {step}.code)\" = {} ] || exit 1", command.code).unwrap();
                        typed.push(command);
                    }
                }
                _ => {}
            }
        }
        let script_file = self.folder.path().join("script");
        std::fs::write(&script_file, script).unwrap();
        let mut group = Group(self.command(&script_file).process_group(0).spawn().expect("bash starts"));
        let finished = group.wait(if self.composed.is_some() { PATIENCE_WITH_BUILDS } else { PATIENCE });
        for (number, command) in typed.iter().enumerate() {
            let read = |what: &str| {
                let path = self.step(number).with_extension(format!("step.{what}"));
                String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
            };
            let (code, printed) = (read("code"), read("out"));
            let place = format!("{}:{}: $ {}", self.page.path, command.line, command.command);
            let code = code.trim();
            let finished = if code.is_empty() && !finished { "it did not end in time" } else { "" };
            assert_eq!(code, command.code.to_string(), "{place}\n{finished}\n{printed}\n{}", self.log());
            let printed: Vec<&str> = printed.lines().collect();
            let shown: Vec<String> = command.output.iter().map(|line| here(line)).collect();
            assert!(
                shown.is_empty() || shows(&shown, &printed),
                "{place}\nshown:\n{}\n\nprinted:\n{}",
                shown.join("\n"),
                printed.join("\n")
            );
        }
        assert!(finished, "{}: what it started did not end", self.page.path);
        let left = self.composed.as_ref().map(Composed::left).unwrap_or_default();
        assert!(left.is_empty(), "{}: its last commands have left {left:?}", self.page.path);
    }

    fn step(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("steps/{number:03}.step"))
    }

    /// A file of the page: one that is there must hold what is shown, another is written when its turn comes.
    fn file(&self, path: &str, block: &Block, here: &dyn Fn(&str) -> String, script: &mut String) {
        let text = &block.text;
        if let Ok(content) = std::fs::read_to_string(self.home().join(path)) {
            assert!(
                content.contains(text.as_str()),
                "{}: {path} does not hold what is shown of it:\n{text}",
                self.page.path
            );
            return;
        }
        let kept = self.folder.path().join(format!("steps/line-{}.file", block.line));
        std::fs::write(&kept, here(text)).unwrap();
        let target = here(path);
        writeln!(script, "mkdir -p \"$(dirname {target})\" && cp {} {target}", kept.display()).unwrap();
    }

    fn home(&self) -> PathBuf {
        self.page.home(&self.folder.path().join("work"))
    }

    fn command(&self, script: &Path) -> Command {
        let binaries = self.folder.path().join("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        // The environment of every test of the program, and no `ADE_` setting beyond it.
        let mut command = Command::new("bash");
        command.env_clear();
        command.envs(ade().get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.arg("--noprofile").arg("--norc").arg(script).current_dir(self.home());
        command.env("PATH", format!("{}:{path}", binaries.display())).env("HOME", self.folder.path());
        command.env("TMPDIR", self.folder.path().join("tmp")).env("NO_COLOR", "1").env("LC_ALL", "C.UTF-8");
        command.env("ADE_DEPS_DIR", self.sets.folder());
        if self.index {
            command.envs(real_index());
        }
        if let Some(service) = &self.service {
            command.env("ADE_SERVER", format!("http://{}", service.admin.address));
            command.env("ADE_API_KEY", service.admin.key.as_deref().unwrap());
        }
        if self.composed.is_some() {
            command.env("ADE_BINARY", env!("CARGO_BIN_EXE_ade"));
        }
        if let Some(database) = &self.database {
            command.env("DATABASE", database.url());
        }
        let output = std::fs::File::create(self.folder.path().join("output")).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        command
    }

    /// What services of the page have said, where it keeps that.
    fn log(&self) -> String {
        let kept = files(self.folder.path(), "log").into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
        kept.chain(self.composed.as_ref().map(Composed::log)).collect()
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        // What a service of the page has left, when it could not end in peace.
        let databases = files(self.folder.path(), "ade.db");
        std::panic::catch_unwind(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for database in databases {
                let instance = runtime.block_on(instance_of(&database));
                if let Ok(instance) = instance {
                    Docker::connect().remove_of_instance(&instance);
                }
            }
        })
        .ok();
    }
}

async fn instance_of(database: &Path) -> Result<String, sqlx::Error> {
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", database.display())).await?;
    let row = sqlx::query("SELECT id FROM instance").fetch_one(&mut connection).await?;
    row.try_get(0)
}

/// A process and everything that it started.
struct Group(Child);

impl Group {
    /// Whether it came to an end in time.
    fn wait(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        self.0.wait().ok();
    }
}

/// Files of a name, however deep.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
}

/// A folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
