//! What becomes of a container after its job, also with a Docker that does not remove what it is told to remove.

use crate::support::{Docker, Package, Running, Upload, World, ade};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::SystemTime;

/// Listens at `path` and hands everything on to the real Docker, but for requests to remove a container, which fail.
fn stubborn_docker(path: &Path) {
    let real = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let real = real.unwrap_or_else(|| "unix:///var/run/docker.sock".into());
    let real = real.strip_prefix("unix://").expect("this test needs Docker on a Unix socket").to_owned();
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = UnixStream::connect(&real).unwrap();
            let (answers, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || hand_on(answers, to_client, false));
            std::thread::spawn(move || hand_on(client, server, true));
        }
    });
}

fn hand_on(mut from: UnixStream, mut to: UnixStream, refuse: bool) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if refuse && buffer.starts_with(b"DELETE ") {
            let answer = r#"{"message":"device or resource busy"}"#;
            let head = "HTTP/1.1 500 No\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length";
            write!(from, "{head}: {}\r\n\r\n{answer}", answer.len()).ok();
            break;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Write).ok();
    if refuse {
        from.shutdown(Shutdown::Both).ok();
    }
}

/// Removes the one container that a job has left, and gives its name.
fn clean_up(job_id: &str) -> String {
    let docker = Docker::connect();
    let left = docker.containers_of(job_id);
    assert_eq!(left.len(), 1, "one container is left");
    let name = left[0].names.as_ref().unwrap()[0].trim_start_matches('/').to_owned();
    docker.remove(&name);
    name
}

#[test]
fn a_container_that_docker_keeps_is_named_and_changes_no_outcome() {
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("docker.sock");
    stubborn_docker(&socket);
    let host = format!("unix://{}", socket.display());

    let world = World::new(&Package::new(), &[Upload::names()]);
    let run = Running::start(world, &["--docker-host", &host], |_| {}).wait_unchecked();
    let name = clean_up(run.json["job_id"].as_str().unwrap());
    assert_eq!((run.code, run.status()), (Some(0), "succeeded"), "{} {}", run.stdout, run.stderr);
    let said = run.json["left_behind"].as_str().unwrap();
    assert!(said.contains(&name) && said.contains("device or resource busy"), "{said}");
    assert!(run.out.join("normalized.xlsx").exists());

    let out = run.world.root().join("for people");
    let people = ade()
        .args(["run", "--quiet", "--docker-host", &host, "--out"])
        .arg(&out)
        .arg(&run.world.package)
        .args(&run.world.inputs)
        .output()
        .unwrap();
    let request: Value = serde_json::from_slice(&std::fs::read(out.join("run-request.json")).unwrap()).unwrap();
    let name = clean_up(request["job_id"].as_str().unwrap());
    assert!(people.status.success());
    let said = String::from_utf8(people.stderr).unwrap();
    assert!(said.starts_with("warning:") && said.contains(&name), "{said}");
}

#[test]
fn a_container_whose_job_is_done_ends_by_itself_and_is_not_killed() {
    let begun = SystemTime::now();
    let world = World::new(&Package::new(), &[Upload::names()]);
    let run = Running::start(world, &[], |_| {}).wait();
    let actions = Docker::connect().actions_of(run.json["job_id"].as_str().unwrap(), begun);
    assert_eq!(actions, ["create", "attach", "start", "die", "destroy"]);
}
