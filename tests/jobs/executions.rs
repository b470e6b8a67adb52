//! Executions of stored jobs, as a service runs them: by the library, with an identity, a log that goes on, and an outcome
//! that is decided between the container's end and the final files.

use crate::support::{Docker, Package, Upload, World, within};
use ade::events::Event;
use ade::job::{self, Executed, Identity, Input, JobReport, Node, Observer, Prepared, Recorder};
use ade::network::{self, Access, Layers, Switch};
use ade::packages::{Package as Opened, PackageCaps};
use ade::sandbox::protocol::Progress;
use ade::sandbox::{Caps, Failure, FailureKind, Outcome, Requested, remove};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: &Event) {}
    fn progress(&mut self, _: &Progress) {}
}

fn node() -> Node {
    within::node(within::egress(within::BOUNDS, &[]))
}

/// The third execution of the second attempt at a stored job.
fn stored(world: &World) -> Prepared {
    let package = Opened::open(&world.package, &PackageCaps::default()).unwrap();
    let manifest = job::manifest_of(&package, &Caps::default()).map_err(|refusal| refusal.failure).unwrap();
    let limits = job::limits(&manifest, Requested::default(), &Caps::default()).unwrap();
    let path = &world.inputs[0];
    let input = Input::open(path).unwrap();
    let input = Input::stored("doc_1".into(), "their name.csv".into(), input.bytes, input.sha256, path.clone());
    job::inputs_fit([input.bytes], &package, &limits, None).unwrap();
    let identity = Identity {
        workspace_id: "ws_1".into(),
        config_version_id: Some("cfgv_1".into()),
        attempt: 2,
        execution: 3,
        ..Identity::local()
    };
    let layers = Layers {
        instance: Switch::Manifest,
        workspace: Access::Inherit,
        package: Access::Inherit,
        allowed_hosts: Vec::new(),
        manifest: manifest.defaults.runtime_network_access,
    };
    Prepared::new(Arc::new(package), manifest, vec![input], limits, identity, network::decide(&layers))
}

/// Runs the job in a task of its own, which only a `Send` future can have, and concludes it with what `decide` makes of it.
fn execution(world: &World, decide: fn(&Executed<'_>) -> Outcome) -> (JobReport, Vec<Value>, Arc<tempfile::TempDir>) {
    let (node, job, staging) = (node(), stored(world), Arc::new(tempfile::tempdir().unwrap()));
    let folder = Arc::clone(&staging);
    let task = async move {
        let events = std::fs::File::create(folder.path().join("events.ndjson")).unwrap();
        let (mut silent, (_keep, cancel)) = (Silent, watch::channel(false));
        let mut recorder = Recorder::new(events, job.identity(), 41, &mut silent);
        let executed = job::execute(&node, &job, &folder, cancel, &mut recorder).await.unwrap();
        let outcome = decide(&executed);
        let report = executed.conclude(outcome, &mut recorder).await.unwrap();
        assert!(recorder.next_seq() > 41);
        recorder.finish().unwrap();
        report
    };
    let runtime = Runtime::new().unwrap();
    let report = runtime.block_on(runtime.spawn(task)).unwrap();
    let events = std::fs::read_to_string(staging.path().join("events.ndjson")).unwrap();
    (report, events.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), staging)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_execution_carries_its_identity_into_everything_it_leaves() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let (report, events, staging) = execution(&world, |executed| executed.outcome().clone());
    assert_eq!(report.outcome.state(), "succeeded", "{:?}", report.outcome);
    assert!(report.left_behind.is_none());
    assert_eq!(names(staging.path()), ["artifact.json", "events.ndjson", "normalized.xlsx", "run-request.json"]);

    let artifact = json(&staging.path().join("artifact.json"));
    let request = json(&staging.path().join("run-request.json"));
    for block in [&artifact["job"], &request] {
        assert_eq!((&block["attempt"], &block["execution"]), (&2.into(), &3.into()), "{block}");
        assert_eq!(block["job_id"], report.id.as_str());
    }
    for block in [&artifact["job"], &artifact["config"], &request["config"]] {
        assert_eq!(block["config_version_id"], "cfgv_1", "{block}");
    }
    assert_eq!(request["inputs"][0]["document_id"], "doc_1");
    assert_eq!(artifact["job"]["source_file"], "their name.csv");

    assert_eq!((&events[0]["event"], &events[0]["seq"]), (&"start".into(), &41.into()));
    for (event, seq) in events.iter().zip(41..) {
        assert_eq!(event["seq"], seq, "{event}");
        assert_eq!((&event["attempt"], &event["execution"]), (&2.into(), &3.into()), "{event}");
    }
    assert_eq!(events.last().unwrap()["event"], "exit");
}

#[test]
fn a_caller_may_decide_that_a_success_came_too_late() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let (report, events, staging) = execution(&world, |executed| {
        assert_eq!(executed.outcome().state(), "succeeded");
        assert!(executed.usage().cpu_ms.is_some() && executed.timings().create_ms > 0);
        Outcome::Cancelled(Failure::new(FailureKind::Cancelled, "cancelled while its files were being collected"))
    });
    assert_eq!(report.outcome.state(), "cancelled");
    assert_eq!(names(staging.path()), ["artifact.json", "events.ndjson", "run-request.json"]);
    assert_eq!(report.files, ["artifact.json", "events.ndjson", "run-request.json"]);
    let artifact = json(&staging.path().join("artifact.json"));
    assert_eq!(artifact["job"]["status"], "cancelled");
    assert_eq!(artifact["job"]["error"]["kind"], "cancelled");
    assert_eq!(artifact["pass_history"].as_array().unwrap().len(), 5, "what was done before stays on record");
    let last: Vec<&Value> = events.iter().rev().take(3).map(|event| &event["event"]).collect();
    assert_eq!(last, ["exit", "error", "collect"]);
}

#[test]
fn a_dropped_execution_leaves_a_container_that_can_be_removed_by_name_and_nothing_else() {
    let world = World::new(&Package::attacking("time.sleep(60)"), &[Upload::names()]);
    let (node, job, staging) = (node(), stored(&world), Arc::new(tempfile::tempdir().unwrap()));
    let (id, client) = (job.identity().job_id.clone(), node.docker.clone());
    let name = job::container_name(&id, 3);
    let folder = Arc::clone(&staging);
    let runtime = Runtime::new().unwrap();
    let task = runtime.spawn(async move {
        let (mut silent, (_keep, cancel)) = (Silent, watch::channel(false));
        let mut recorder = Recorder::new(std::io::sink(), job.identity(), 1, &mut silent);
        job::execute(&node, &job, &folder, cancel, &mut recorder).await.map(|executed| executed.outcome().clone())
    });

    let docker = Docker::connect();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !docker.is_running(&name) {
        assert!(!task.is_finished() && Instant::now() < deadline, "the container comes up");
        std::thread::sleep(Duration::from_millis(20));
    }
    let labels = docker.containers_of(id.as_str()).remove(0).labels.unwrap();
    for (label, value) in
        [("node", "node_of_the_test"), ("instance", "ade-test"), ("workspace", "ws_1"), ("attempt", "2.3")]
    {
        assert_eq!(labels[&format!("dev.ade.{label}")], value, "{labels:?}");
    }
    std::thread::sleep(Duration::from_millis(300));
    task.abort();
    assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    runtime.block_on(remove(&client, &name)).unwrap();
    assert!(docker.containers_of(id.as_str()).is_empty());
    drop(runtime);
    assert_eq!(names(staging.path()), ["run-request.json"]);
}

#[test]
fn what_could_not_be_started_is_an_outcome_that_the_caller_may_try_again() {
    let world = World::new(&Package::new(), &[Upload::names()]);
    let (mut node, job, staging) = (node(), stored(&world), Arc::new(tempfile::tempdir().unwrap()));
    node.image_digest = format!("sha256:{}", "0".repeat(64));
    let folder = Arc::clone(&staging);
    let runtime = Runtime::new().unwrap();
    let kind = runtime.block_on(async {
        let (mut silent, (_keep, cancel)) = (Silent, watch::channel(false));
        let mut recorder = Recorder::new(std::io::sink(), job.identity(), 1, &mut silent);
        let executed = job::execute(&node, &job, &folder, cancel, &mut recorder).await.unwrap();
        executed.outcome().failure().unwrap().kind
    });
    assert_eq!(kind, FailureKind::ImageMissing);
    assert!(kind.is_infrastructure());
    assert_eq!(names(staging.path()), ["run-request.json"]);
}
