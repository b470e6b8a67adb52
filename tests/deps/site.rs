//! An installation of `ade` as one test has it: its index, its settings and its dependency sets.

use super::index::Index;
use crate::support::{Package, Run, Running, Sets, Upload, World, ade, image_id, real_index};
use serde_json::Value;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

/// Both installers.
pub const TOOLS: [&str; 2] = ["uv", "pip"];

/// Settings and sets that several runs share.
#[derive(Debug, Clone, Default)]
pub struct Site {
    pub sets: Arc<Sets>,
    environment: Vec<(String, String)>,
}

impl Site {
    /// One that gets packages from an index.
    pub fn of(index: &Index) -> Self {
        Self::default().with("ADE_INDEX_URL", &index.url()).with("ADE_EGRESS_ALLOW_CIDRS", "127.0.0.1/32")
    }

    /// One that gets them from the real index, whatever its addresses are here.
    pub fn real() -> Self {
        real_index().iter().fold(Self::default(), |site, (name, value)| site.with(name, value))
    }

    /// The same with a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The settings.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Runs a command that is no job to its end.
    pub fn call(&self, args: &[&str]) -> Output {
        image_id();
        let mut command = ade();
        command.args(args).env("ADE_DEPS_DIR", self.sets.folder()).envs(self.environment());
        command.output().expect("ade starts")
    }

    /// The same for programs: the one JSON object that it prints, and nothing beside it.
    #[track_caller]
    pub fn json(&self, args: &[&str], code: i32) -> Value {
        let said = self.call(&[args, &["--json"]].concat());
        let (stdout, stderr) = (text(&said.stdout), text(&said.stderr));
        assert_eq!((said.status.code(), stderr.as_str()), (Some(code), ""), "{args:?}: {stdout}");
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }

    /// The same for people: what it prints on stdout.
    #[track_caller]
    pub fn told(&self, args: &[&str], code: i32) -> String {
        let said = self.call(args);
        assert_eq!(said.status.code(), Some(code), "{args:?}: {} {}", text(&said.stdout), text(&said.stderr));
        text(&said.stdout)
    }

    /// Starts a job.
    pub fn start(&self, package: &Package, args: &[&str]) -> Running {
        let mut world = World::new(package, &[Upload::names()]);
        world.sets = Arc::clone(&self.sets);
        Running::start(world, args, |command| {
            command.envs(self.environment());
        })
    }

    /// Runs a job to its end; whatever has become of it, every volume is a whole set.
    pub fn run(&self, package: &Package, args: &[&str]) -> Run {
        let run = self.start(package, args).wait();
        self.sets.assert_at_rest();
        run
    }

    /// Runs a job whose install may use the network.
    pub fn install(&self, package: &Package) -> Run {
        self.run(package, &["--network", "install_only"])
    }

    /// The same while other jobs run.
    pub fn install_beside(&self, package: &Package) -> Run {
        self.start(package, &["--network", "install_only"]).wait()
    }
}

/// A package that asks for these requirements and does this.
pub fn asking(requirements: &str, body: &str) -> Package {
    Package::attacking(body).file("requirements.txt", requirements)
}

/// The `dependencies` block of a job's artifact.
#[track_caller]
pub fn block(run: &Run) -> &Value {
    let artifact = run.artifact.as_ref().unwrap_or_else(|| panic!("no artifact: {} {}", run.stdout, run.stderr));
    &artifact["dependencies"]
}

/// Names and versions in a block.
pub fn packages(block: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    block["packages"].as_array().unwrap().iter().map(|one| (text(&one["name"]), text(&one["version"]))).collect()
}

/// A path as text.
pub fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a program printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
