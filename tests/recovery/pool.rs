//! Parked containers: each for one job, and never in a job's way, whatever happens to them.

use crate::api::eventually;
use crate::proxy::Proxy;
use crate::site::{Node, Site, containers};
use crate::support::{Docker, Package, Running, Upload, World};
use crate::truth::{Must, assert_job};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

fn site() -> Site {
    Site::new(&["--max-concurrency", "2", "--pool-min", "1", "--pool-max", "3"])
}

/// Waits until so many containers are parked, and nothing else is there; their names.
#[track_caller]
fn parked(site: &Site, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    eventually("containers are parked", 30, || {
        names = site.containers();
        let docker = Docker::connect();
        // What is being made is not parked yet.
        names.len() == count && names.iter().all(|name| name.starts_with("ade-parked-") && docker.is_running(name))
    });
    // From running to parked it takes the supervisor a moment.
    std::thread::sleep(Duration::from_millis(1500));
    names
}

fn docker(command: &str, container: &str) {
    let done = Command::new("docker").args([command, container]).output().expect("the tests need the docker command");
    assert!(done.status.success(), "docker {command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Where the container of a job came from.
fn origin(node: &Node<'_>, job: &str) -> Value {
    let events = node.events(job);
    let spawned: Vec<&Value> = events.iter().filter(|event| event["event"] == "worker.spawn").collect();
    assert_eq!(spawned.len(), 1, "{events:#?}");
    spawned[0]["detail"]["container"].clone()
}

/// The value of a sample.
fn metric(node: &Node<'_>, sample: &str) -> f64 {
    let text = String::from_utf8_lossy(&node.get("/metrics").expect(200).body).into_owned();
    let line = text.lines().find(|line| line.starts_with(sample) && line[sample.len()..].starts_with(' '));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn a_parked_container_is_nobodys_and_then_one_jobs_and_then_gone() {
    let site = site();
    let node = site.start().ready();
    let first = parked(&site, 1).remove(0);
    let client = Docker::connect();
    let waiting = client.inspect(&first).unwrap();
    let labels = waiting.config.clone().unwrap().labels.unwrap();
    assert!(!labels.keys().any(|label| label.contains("job") || label.contains("workspace")), "{labels:?}");
    assert_eq!(waiting.mounts.clone().unwrap_or_default().len(), 0);
    let environment = waiting.config.clone().unwrap().env.unwrap_or_default().join(" ");
    assert!(!environment.contains("ADE"), "{environment}");

    let config = node.config("default");
    let job = node.submit(&config, "sleep 3");
    node.running(&job);
    let name = format!("ade-{}-1", job.to_lowercase().replace('_', "-"));
    eventually("the container has the name of its job", 5, || client.inspect(&name).is_some());
    let adopted = client.inspect(&name).unwrap();
    assert_eq!(adopted.id, waiting.id);
    assert_job(&node, &job, Must::Succeed);
    assert_eq!(origin(&node, &job), "parked");
    eventually("the container is gone", 10, || client.inspect(waiting.id.as_deref().unwrap()).is_none());

    let second = parked(&site, 1).remove(0);
    assert_ne!(second, first);
    let job = node.submit(&config, "Ada");
    assert_job(&node, &job, Must::Succeed);
    assert_eq!(origin(&node, &job), "parked");
    assert_eq!(metric(&node, "ade_pool_adoptions_total{result=\"hit\"}"), 2.0);
    assert_eq!(metric(&node, "ade_pool_adoption_seconds_count"), 2.0);
    let node_id = site.node_id();
    node.stop();
    assert_eq!(containers("dev.ade.node", &node_id), Vec::<String>::new(), "nothing is left after the end");
}

#[test]
fn a_pool_grows_with_what_is_asked_for_up_to_its_bound() {
    let site = site();
    let node = site.start().ready();
    parked(&site, 1);
    let config = node.config("default");
    let jobs: Vec<String> = (0..5).map(|_| node.submit(&config, "sleep 1")).collect();
    for job in &jobs {
        assert_job(&node, job, Must::Succeed);
    }
    // Two were asked for at once, as many as may run.
    parked(&site, 2);
    assert!(metric(&node, "ade_pool_adoptions_total{result=\"miss\"}") >= 1.0);
    node.stop();
}

#[test]
fn jobs_that_find_none_take_what_is_being_made_and_what_is_left_over_is_parked() {
    let site = Site::new(&["--max-concurrency", "3", "--pool-min", "0", "--pool-max", "3"]);
    let node = site.start().ready();
    assert_eq!(site.containers(), Vec::<String>::new(), "nobody has asked for one");
    let config = node.config("default");
    let jobs: Vec<String> = (0..3).map(|_| node.submit(&config, "sleep 2")).collect();
    for job in &jobs {
        assert_eq!(assert_job(&node, job, Must::Succeed)["execution"], 1);
        assert_eq!(origin(&node, job), "new");
    }
    parked(&site, 3);
    assert_eq!(metric(&node, "ade_pool_adoptions_total{result=\"miss\"}"), 3.0);
    assert_eq!(metric(&node, "ade_pool_adoptions_total{result=\"failed\"}"), 0.0);
    assert_eq!(metric(&node, "ade_pool_retired_total{reason=\"surplus\"}"), 0.0, "none was made for nothing");
    let job = node.submit(&config, "Ada");
    assert_job(&node, &job, Must::Succeed);
    assert_eq!(origin(&node, &job), "parked");
    node.stop();
}

#[test]
fn a_parked_container_that_has_died_is_replaced_and_no_job_notices() {
    let site = site();
    let node = site.start().ready();
    let config = node.config("default");
    let name = parked(&site, 1).remove(0);
    docker("kill", &name);
    let job = node.submit(&config, "Ada");
    assert_eq!(assert_job(&node, &job, Must::Succeed)["execution"], 1);
    parked(&site, 1);
    // One that dies while nobody asks is noticed as well.
    let name = parked(&site, 1).remove(0);
    docker("kill", &name);
    eventually("another takes its place", 30, || {
        let names = site.containers();
        names.len() == 1 && names[0] != name
    });
    assert!(metric(&node, "ade_pool_retired_total{reason=\"unhealthy\"}") >= 1.0);
    node.stop();
}

#[test]
fn a_parked_container_whose_child_has_died_makes_another_when_its_job_comes() {
    let site = site();
    let node = site.start().ready();
    let config = node.config("default");
    let name = parked(&site, 1).remove(0);
    let listed =
        Command::new("docker").args(["top", &name, "-eo", "pid"]).output().expect("the tests need the docker command");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let pids: Vec<i64> = listed.lines().skip(1).map(|line| line.trim().parse().expect("a process")).collect();
    assert_eq!(pids.len(), 2, "a supervisor and a child that waits: {listed}");
    let supervisor = Docker::connect().inspect(&name).unwrap().state.unwrap().pid.unwrap();
    let child = pids.iter().find(|pid| **pid != supervisor).unwrap();
    let child = rustix::process::Pid::from_raw(i32::try_from(*child).unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL)
        .expect("tests that kill what is in containers run as root");
    let job = node.submit(&config, "Ada");
    assert_eq!(assert_job(&node, &job, Must::Succeed)["execution"], 1);
    assert_eq!(origin(&node, &job), "parked");
    node.stop();
}

#[test]
fn a_parked_container_that_is_stuck_costs_its_job_seconds_and_nothing_else() {
    let site = site();
    let node = site.start().ready();
    let config = node.config("default");
    let name = parked(&site, 1).remove(0);
    docker("pause", &name);
    let began = Instant::now();
    let job = node.submit(&config, "Ada");
    let record = assert_job(&node, &job, Must::Succeed);
    assert_eq!((&record["execution"], origin(&node, &job)), (&json!(1), json!("new")));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(metric(&node, "ade_pool_adoptions_total{result=\"failed\"}"), 1.0);
    let client = Docker::connect();
    eventually("the stuck one is gone", 10, || client.inspect(&name).is_none());
    node.stop();
}

#[test]
fn what_a_killed_process_had_parked_ends_by_itself_and_goes_with_the_next_start() {
    let site = site();
    let node = site.start().ready();
    let name = parked(&site, 1).remove(0);
    node.kill();
    let client = Docker::connect();
    eventually("its stdin has closed, and it has ended", 10, || !client.is_running(&name));
    let node = site.start().ready();
    eventually("it is gone", 10, || client.inspect(&name).is_none());
    parked(&site, 1);
    node.stop();
}

#[test]
fn while_docker_is_gone_nothing_parked_is_handed_out_and_afterwards_there_is_a_new_pool() {
    let sockets = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
    let proxy = Proxy::to_docker(sockets.path());
    let site =
        Site::new(&["--max-concurrency", "1", "--pool-min", "1", "--pool-max", "2", "--docker-host", &proxy.address]);
    let node = site.start().ready();
    let config = node.config("default");
    let before = parked(&site, 1);
    proxy.cut();
    let job = node.submit(&config, "Ada");
    std::thread::sleep(Duration::from_secs(2));
    proxy.mend();
    assert_job(&node, &job, Must::Succeed);
    let client = Docker::connect();
    eventually("what was parked before is gone", 20, || client.inspect(&before[0]).is_none());
    parked(&site, 1);
    node.stop();
}

/// Starts `ade run` next to a service.
fn command(site: &Site, script: &str) -> Running {
    let world = World::new(&Package::attacking(script), &[Upload::names()]);
    let data = site.data();
    Running::start(world, &[], |command| {
        command.env("ADE_DATA_DIR", data);
    })
}

#[test]
fn a_command_on_the_same_machine_borrows_a_parked_container() {
    let site = site();
    let node = site.start().ready();
    let waiting = Docker::connect().inspect(&parked(&site, 1)[0]).unwrap().id.unwrap();
    let run = command(&site, "import time\ntime.sleep(2)");
    let name = run.container();
    assert_eq!(Docker::connect().inspect(&name).unwrap().id.as_ref(), Some(&waiting));
    let run = run.wait_unchecked();
    run.assert_succeeded();
    let spawned = run.events.iter().find(|event| event["event"] == "worker.spawn").unwrap();
    assert_eq!(spawned["detail"]["container"], "parked");
    let client = Docker::connect();
    eventually("its container is gone", 10, || client.inspect(&waiting).is_none());
    // One that asks for another class starts its own.
    parked(&site, 1);
    let world = World::new(&Package::new(), &[Upload::names()]);
    let run = Running::start(world, &["--memory-mb", "300"], |command| {
        command.env("ADE_DATA_DIR", site.data());
    });
    let run = run.wait();
    run.assert_succeeded();
    let spawned = run.events.iter().find(|event| event["event"] == "worker.spawn").unwrap();
    assert_eq!(spawned["detail"]["container"], "new");
    node.stop();
    assert!(!site.data().join("pool.sock").exists());
}

#[test]
fn what_was_borrowed_goes_with_its_command_and_the_command_hears_of_the_end_of_the_service() {
    let site = site();
    let node = site.start().ready();
    parked(&site, 1);
    let run = command(&site, "import time\ntime.sleep(60)");
    let name = run.container();
    let client = Docker::connect();
    run.signal("KILL");
    eventually("its container is gone", 10, || client.inspect(&name).is_none());
    assert_eq!(run.wait_unchecked().signal, Some(9));

    parked(&site, 1);
    let run = command(&site, "import time\ntime.sleep(60)");
    let name = run.container();
    node.kill();
    let run = run.wait_unchecked();
    assert_eq!(run.json["error"]["kind"], "engine_unavailable", "{}", run.json);
    eventually("it has ended", 10, || !client.is_running(&name));
    client.remove(&name);
}
