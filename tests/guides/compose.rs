//! An installation with docker-compose beside all others of the machine: names, images and a port of its own, as a reader who has one
//! already would choose them in `.env`.

use super::page::root;
use super::shell::copy;
use super::support::Docker;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// What it is called; dropped, also in a panic, it takes everything with it that it has on the engine.
#[derive(Debug)]
pub struct Composed {
    project: String,
    pub address: String,
}

impl Composed {
    /// A checkout in this folder, with an `ade` where a release build would be, and programs that readers have on their `PATH`.
    pub fn prepare(checkout: &Path, binaries: &Path) -> Self {
        // Not `ade-test-…`: another run of the tests removes images that are called so.
        let composed = Self { project: format!("ade-guide-{}", std::process::id()), address: free_address() };
        composed.remove();
        std::fs::copy(root().join("docker-compose.yml"), checkout.join("docker-compose.yml")).unwrap();
        copy(&root().join("images"), &checkout.join("images"));
        std::fs::create_dir_all(checkout.join("target/release")).unwrap();
        symlink(env!("CARGO_BIN_EXE_ade"), checkout.join("target/release/ade")).unwrap();
        let (project, address) = (&composed.project, &composed.address);
        let settings = [
            format!("COMPOSE_PROJECT_NAME={project}"),
            format!("ADE_SERVICE_IMAGE={project}-service"),
            format!("ADE_POSTGRES_IMAGE={project}-postgres:17"),
            format!("ADE_PUBLISH={address}\n"),
        ];
        std::fs::write(checkout.join(".env"), settings.join("\n")).unwrap();
        if Command::new("docker-compose").arg("version").output().is_err() {
            // The page says to write `docker compose` then.
            let plugin = binaries.join("docker-compose");
            std::fs::write(&plugin, "#!/bin/sh\nexec docker compose \"$@\"\n").unwrap();
            std::fs::set_permissions(plugin, PermissionsExt::from_mode(0o755)).unwrap();
        }
        composed
    }

    /// A text of the page with the names that are this installation's.
    pub fn rename(&self, text: &str) -> String {
        let Self { project, .. } = self;
        text.replace("ade-service", &format!("{project}-service"))
            .replace("ade-postgres", &format!("{project}-postgres"))
    }

    /// What containers of it print.
    pub fn log(&self) -> String {
        let logs = |container: &String| {
            let done =
                Command::new("docker").args(["logs", "--tail", "50", container]).output().expect("docker starts");
            [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
        };
        self.list("ps").iter().map(logs).collect()
    }

    /// What is there of it: containers, volumes, networks and images.
    pub fn left(&self) -> Vec<String> {
        ["ps", "volume", "network", "image"].iter().flat_map(|kind| self.list(kind)).collect()
    }

    fn list(&self, kind: &str) -> Vec<String> {
        let label = format!("label=com.docker.compose.project={}", self.project);
        let images = format!("reference={}-*", self.project);
        let said = match kind {
            "ps" => docker(&["ps", "--all", "--quiet", "--filter", &label]),
            "image" => docker(&["image", "ls", "--filter", &images, "--format", "{{.Repository}}:{{.Tag}}"]),
            _ => docker(&[kind, "ls", "--quiet", "--filter", &label]),
        };
        said.lines().map(str::to_owned).collect()
    }

    /// Removes what is there of it, however far it came.
    fn remove(&self) {
        // Job containers are not the project's: only the database knows whose they are.
        let of_database = format!("label=com.docker.compose.project={}", self.project);
        let database = docker(&[
            "ps",
            "--quiet",
            "--filter",
            &of_database,
            "--filter",
            "label=com.docker.compose.service=postgres",
        ]);
        let query = "SELECT id FROM instance";
        let instance = docker(&["exec", database.trim(), "psql", "-U", "ade", "-tAc", query]);
        // What Docker was still making comes a moment later.
        for round in 0..20 {
            for (kind, removal) in [
                ("ps", &["rm", "--force", "--volumes"][..]),
                ("volume", &["volume", "rm", "--force"]),
                ("network", &["network", "rm"]),
                ("image", &["image", "rm", "--force"]),
            ] {
                for name in self.list(kind) {
                    docker(&[removal, &[&name]].concat());
                }
            }
            if round > 0 && self.left().is_empty() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        if !instance.trim().is_empty() {
            Docker::connect().remove_of_instance(instance.trim());
        }
        // Builds that a later one has replaced have no name any more.
        docker(&["image", "prune", "--force", "--filter", "label=dev.ade.image.part"]);
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        self.remove();
    }
}

/// What `docker` says, and nothing when it refuses.
fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().expect("docker starts");
    if done.status.success() { String::from_utf8_lossy(&done.stdout).into_owned() } else { String::new() }
}

/// A free port, for minutes: below those that the kernel gives to whoever asks for any, and below those of `tests/postgres`.
fn free_address() -> String {
    let first = 10_000 + std::process::id() % 9_000;
    (first..20_000)
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .expect("a free port")
}
