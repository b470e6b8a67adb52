//! What may be done to a job in which state, and how files get in and out of a container.

use crate::support::Package;
use crate::support::server::{Database, Server, eventually, shared};
use serde_json::json;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A socket in front of Docker's that remembers what was asked; it ends when nobody holds a connection any more.
fn eavesdrop(socket: &Path) -> Arc<Mutex<Vec<u8>>> {
    let docker = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    let docker = docker.unwrap_or_else(|| "unix:///var/run/docker.sock".into());
    let docker = docker.strip_prefix("unix://").expect("this test needs Docker on a socket").to_owned();
    let (listener, heard) = (UnixListener::bind(socket).unwrap(), Arc::new(Mutex::new(Vec::new())));
    let all = Arc::clone(&heard);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(mut client), Ok(mut engine)) = (client, UnixStream::connect(&docker)) else { return };
            let (mut back, mut front) = (engine.try_clone().unwrap(), client.try_clone().unwrap());
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    all.lock().unwrap().extend(&buffer[..read]);
                    if engine.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                engine.shutdown(std::net::Shutdown::Write).ok();
            });
            std::thread::spawn(move || {
                std::io::copy(&mut back, &mut front).ok();
                front.shutdown(std::net::Shutdown::Write).ok();
            });
        }
    });
    heard
}

#[test]
fn a12_nothing_is_put_into_or_taken_out_of_a_container_as_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let heard = eavesdrop(&socket);
    let url = format!("unix://{}", socket.display());
    let server = Server::start_on(Database::Sqlite, &[], &[("DOCKER_HOST", &url)]);
    let tenant = server.tenant();
    let document = tenant.names();
    let done = tenant.job(&tenant.config(&Package::new()), &document);
    assert_eq!(tenant.end(&done)["status"], "succeeded");
    let cancelled = tenant.job(&tenant.config(&Package::attacking("time.sleep(60)")), &document);
    tenant.running(&cancelled);
    tenant.editor.post(tenant.path(&format!("/jobs/{cancelled}/cancel"))).send().expect(202);
    tenant.end(&cancelled);
    let heard = heard.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&heard);
    let requests: Vec<&str> =
        text.split("\r\n").filter_map(|line| line.rfind(" HTTP/1.1").map(|end| &line[..end])).collect();
    let of_containers: Vec<&&str> = requests.iter().filter(|request| request.contains("/containers/")).collect();
    assert!(of_containers.iter().any(|request| request.contains("/attach")), "the ear hears: {requests:#?}");
    for word in ["/archive", "/exec", "/export", "/copy", "/build", "/commit"] {
        assert!(!requests.iter().any(|request| request.contains(word)), "{word}: {requests:#?}");
    }
    assert!(!text.to_ascii_lowercase().contains("content-encoding:"), "nothing compressed");
}

#[test]
fn a13_what_does_not_fit_the_state_of_a_job_is_refused_and_changes_nothing() {
    let server = shared();
    let tenant = server.tenant();
    let document = tenant.names();
    let refused = |job: &str, method: &str, route: &str, status: u16, code: &str| {
        let before = tenant.record(job);
        let api = &tenant.editor;
        api.call(method, tenant.path(&format!("/jobs/{job}/{route}"))).send().problem(status, code);
        let after = tenant.record(job);
        assert_eq!(
            (&after["status"], &after["completed_at"], &after["error"]),
            (&before["status"], &before["completed_at"], &before["error"])
        );
    };
    tenant.pause(true);
    let job = tenant.job(&tenant.config(&Package::attacking("time.sleep(120)")), &document);
    let unfinished = |job: &str| {
        for route in ["output", "artifact", "run-request", "outputs/normalized.xlsx"] {
            refused(job, "GET", route, 409, "job_not_finished");
        }
        refused(job, "POST", "retry", 409, "job_not_finished");
        let gone = tenant.editor.delete(tenant.path(&format!("/documents/{document}"))).send();
        gone.problem(409, "document_in_use");
    };
    unfinished(&job);
    tenant.pause(false);
    tenant.running(&job);
    unfinished(&job);
    // No route writes into a job, whatever its state.
    for route in ["output", "artifact", "run-request", "outputs", "outputs/normalized.xlsx", "events", ""] {
        for method in ["PUT", "PATCH", "DELETE"] {
            let path = tenant.path(&format!("/jobs/{job}/{route}"));
            let path = path.trim_end_matches('/');
            tenant.owner.call(method, path).json(&json!({})).send().problem(405, "method_not_allowed");
        }
    }
    tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
    tenant.end(&job);
    refused(&job, "GET", "output", 404, "not_found");

    let done = tenant.finished();
    refused(&done, "POST", "cancel", 409, "job_finished");
    let failed = tenant.job(&tenant.config(&Package::attacking("raise ValueError('no')")), &document);
    tenant.end(&failed);
    refused(&failed, "POST", "cancel", 409, "job_finished");
    refused(&failed, "GET", "output", 404, "not_found");
    eventually("nothing of the workspace runs or waits", || {
        let workspace = tenant.viewer.get(&tenant.base).send().expect(200).json();
        workspace["queued"] == 0 && workspace["running"] == 0
    });
}

#[test]
fn a13_a_cancel_at_any_moment_ends_as_cancelled_or_is_refused() {
    let server = shared();
    let tenant = server.tenant();
    let (config, document) = (tenant.config(&Package::new()), tenant.names());
    let mut ends = std::collections::BTreeMap::new();
    for round in 0..8_u64 {
        let body =
            json!({"config_version_id": config.version, "document_id": document, "input_hash": format!("{round}")});
        let job = tenant.submit(&body).expect(202).json()["job_id"].as_str().unwrap().to_owned();
        // Moments over the life of a job, from its first to past its last.
        std::thread::sleep(std::time::Duration::from_millis(round * 130));
        let answer = tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send();
        let record = tenant.end(&job);
        match answer.status {
            202 => assert_eq!(record["status"], "cancelled", "{record:#}"),
            _ => {
                assert_eq!(answer.status, 409, "{answer}");
                assert_eq!(record["status"], "succeeded", "{record:#}");
            }
        }
        *ends.entry(record["status"].to_string()).or_insert(0) += 1;
        let log = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
        let exits = log.lines().filter(|line| line.contains("\"event\":\"exit\"")).count();
        assert_eq!(exits, 1, "{log}");
    }
    assert!(ends.contains_key("\"cancelled\""), "{ends:?}");
}
