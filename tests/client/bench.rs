//! `ade bench`: what it says, and that nothing is left of it.

use super::service::{Service, end, names, object, signal, text};
use super::support::{Docker, ade, image_id};
use ade::bench::FIGURES;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A benchmark whose temporary files are in this folder.
fn bench(temporary: &Path, args: &[&str]) -> Command {
    image_id();
    let mut command = ade();
    command.args(["bench", "--quick", "--json"]).args(args).env("TMPDIR", temporary);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The instance of a service that a running benchmark has just now, if it has one.
fn instance(temporary: &Path) -> Option<String> {
    let folder = names(temporary).into_iter().find(|name| temporary.join(name).join("data/address").exists())?;
    let mut asking = ade();
    asking.args(["system", "status", "--json"]).env("ADE_DATA_DIR", temporary.join(folder).join("data"));
    let said: Value = serde_json::from_slice(&asking.output().unwrap().stdout).ok()?;
    Some(said["instance_id"].as_str()?.to_owned())
}

/// Notes the instances of a benchmark until it ends, or has one that `enough` is said of.
fn watch(process: &mut Child, temporary: &Path, mut enough: impl FnMut(&str) -> bool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while process.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it does not end");
        if let Some(instance) = instance(temporary) {
            let done = enough(&instance);
            seen.insert(instance);
            if done {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    seen
}

#[track_caller]
fn assert_nothing_is_left(temporary: &Path, instances: &BTreeSet<String>) {
    assert!(names(temporary).is_empty(), "{:?}", names(temporary));
    assert!(!instances.is_empty());
    let docker = Docker::connect();
    for instance in instances {
        assert!(docker.containers_of_instance(instance).is_empty(), "{instance}");
    }
    let of_peers = docker.containers_of_instance("cli").into_iter().filter_map(|container| container.names);
    assert!(!of_peers.flatten().any(|name| name.contains("ade-bench-")));
}

#[test]
fn every_figure_is_measured_and_nothing_is_left() {
    let temporary = tempfile::tempdir().unwrap();
    let mut process = bench(temporary.path(), &["--followers", "20"]).spawn().unwrap();
    let instances = watch(&mut process, temporary.path(), |_| false);
    let (code, stdout, stderr) = end(process);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let said: Value = serde_json::from_str(&stdout).unwrap();
    let figures = said["figures"].as_array().unwrap();
    let ids: Vec<&str> = figures.iter().map(|figure| figure["id"].as_str().unwrap()).collect();
    let all = FIGURES.iter().map(|kind| kind.id).filter(|id| !id.starts_with("rows.million"));
    assert_eq!(ids, all.collect::<Vec<_>>());
    for figure in figures {
        let kind = FIGURES.iter().find(|kind| kind.id == figure["id"]).unwrap();
        assert_eq!((&figure["unit"], &figure["what"]), (&json!(kind.unit), &json!(kind.what)));
        assert!(figure["value"].is_f64() && figure["detail"].is_string(), "{figure}");
        assert_eq!(figure["reached"], Value::Null, "a quick run says nothing about it: {figure}");
        // Less than the clock shows is possible for what an idle service takes, and for a wait.
        let may_be_none = ["%", "×"].contains(&kind.unit) || kind.id == "fairness.wait";
        assert!(may_be_none || figure["value"].as_f64().unwrap() > 0.0, "{figure}");
    }
    let wanted = |id: &str| &figures.iter().find(|figure| figure["id"] == id).unwrap()["wanted"];
    assert_eq!(*wanted("latency.ratio"), json!({"at_most": 0.15}));
    assert_eq!(*wanted("throughput.ratio"), json!({"at_least": 1.5}));
    assert_eq!((wanted("latency.p50"), wanted("rows.rate")), (&Value::Null, &Value::Null), "too few rows to tell");
    assert_eq!((&said["quick"], &said["notes"]), (&json!(true), &json!([])));
    for key in ["version", "debug", "cpus", "concurrency", "kernel", "image"] {
        assert!(!said["machine"][key].is_null(), "{key}: {said}");
    }
    assert_nothing_is_left(temporary.path(), &instances);
}

#[test]
fn an_interrupt_leaves_nothing_and_a_kill_takes_the_service_with_it() {
    let temporary = tempfile::tempdir().unwrap();
    let docker = Docker::connect();
    let busy = |instance: &str| !docker.containers_of_instance(instance).is_empty();
    let start = || bench(temporary.path(), &["throughput"]).spawn().unwrap();

    let mut process = start();
    let instances = watch(&mut process, temporary.path(), busy);
    signal(&process, "INT");
    let (code, stdout, stderr) = end(process);
    assert_eq!((code, stderr.as_str()), (Some(130), ""), "{stdout}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["error"]["kind"], "interrupted");
    assert_nothing_is_left(temporary.path(), &instances);

    let mut process = start();
    let instances = watch(&mut process, temporary.path(), busy);
    signal(&process, "KILL");
    process.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while instances.iter().any(|instance| busy(instance)) || instance(temporary.path()).is_some() {
        assert!(Instant::now() < deadline, "the service goes on");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_service_that_goes_on_gets_back_what_it_was_given() {
    let service = Service::start();
    let address = service.address();
    let call = |args: &[&str]| {
        let mut command = service.command(&[&["bench", "--quick", "--json", "--server", &address][..], args].concat());
        command.output().unwrap()
    };
    let said = object(&call(&[]), 0);
    let ids: Vec<&str> =
        said["figures"].as_array().unwrap().iter().filter_map(|figure| figure["id"].as_str()).collect();
    for id in ["latency.overhead", "throughput.jobs", "throughput.half_ratio", "rows.wall"] {
        assert!(ids.contains(&id), "{id}: {ids:?}");
    }
    let local = ["latency.ratio", "throughput.of_ceiling", "idle.memory", "fairness.wait"];
    assert!(local.iter().all(|id| !ids.contains(id)), "{ids:?}");
    assert_eq!((said["notes"].as_array().unwrap().len(), &said["machine"]["server"]), (2, &json!(address)), "{said}");
    assert_eq!(said["machine"]["cpus"], Value::Null, "of a machine that may be another");

    object(&call(&["fairness"]), 0);
    for workspace in ["default", "ade-bench-heavy", "ade-bench-light"] {
        let listed = |what: &[&str]| service.json(&[what, &["--workspace", workspace]].concat(), 0)["items"].clone();
        assert_eq!(listed(&["documents", "list"]), json!([]), "{workspace}");
        let configs = listed(&["config", "list"]);
        assert!(configs.as_array().unwrap().iter().all(|config| config["archived_at"].is_string()), "{configs}");
        assert_eq!(listed(&["jobs", "list", "--status", "queued,running,cancelling"]), json!([]), "{workspace}");
    }

    assert_eq!(object(&call(&["idle"]), 2)["error"]["kind"], "local_only");
    assert_eq!(object(&call(&["--api-key", "nonsense"]), 2)["error"]["kind"], "unauthorized");
    let key = service.json(&["keys", "create", "--name", "see", "--role", "viewer", "--workspace", "default"], 0);
    assert_eq!(object(&call(&["--api-key", key["key"].as_str().unwrap()]), 2)["error"]["kind"], "forbidden");
}

#[test]
fn what_is_missing_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let call = |args: &[&str]| bench(temporary.path(), args).output().unwrap();
    let no_docker = object(&call(&["--docker-host", "unix:///nonexistent/docker.sock"]), 3);
    assert_eq!(no_docker["error"]["kind"], "engine_unavailable");
    assert_eq!(object(&call(&["--image", "ade-test/nowhere:none"]), 3)["error"]["kind"], "image_missing");
    let nobody = call(&["--server", "http://127.0.0.1:9", "--api-key", "ade_x"]);
    assert_eq!(object(&nobody, 3)["error"]["kind"], "server_unreachable");
    // A service that does not start: here, because of a setting that is handed on to it.
    let refused = object(&call(&["--runtime", "no-such-runtime", "latency"]), 3);
    assert!(
        ["service_not_started", "bench_job_failed"].contains(&refused["error"]["kind"].as_str().unwrap()),
        "{refused}"
    );
    let wrong = call(&["speed"]);
    assert!(wrong.status.code() == Some(2) && text(&wrong.stderr).contains("fairness"), "{}", text(&wrong.stderr));
    assert!(names(temporary.path()).is_empty());
}
