//! SIGTERM: no new jobs, a grace for those that run, and an end that loses nothing.

use crate::api::eventually;
use crate::site::Site;
use crate::support::postgres::EmptyDatabase;
use crate::truth::{self, Must, assert_at_rest, assert_job};
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn jobs_that_run_may_finish_and_new_ones_are_refused() {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    let long = node.submit(&config, "sleep 3");
    let waits = node.submit(&config, "Ada");
    node.running(&long);
    node.signal(Signal::TERM);
    eventually("/readyz says so", 2, || node.not_ready() == ["process"]);
    let refused = node.try_submit("default", &config, "Ada", &json!({})).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "draining"));
    assert!(refused.headers.contains_key("retry-after"));
    let events = node.follow(&long);
    assert_eq!(events.last().unwrap().0["state"], "succeeded", "whoever follows sees the end");
    assert_eq!(node.exit_within(20), Some(0));
    assert!(!site.data().join("address").exists() && site.containers().is_empty());
    let node = site.start();
    assert_eq!(assert_job(&node, &long, Must::Succeed)["execution"], 1);
    assert_eq!(assert_job(&node, &waits, Must::Succeed)["execution"], 1);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_is_longer_than_the_grace_goes_back_and_finishes_after_the_restart() {
    // One lost execution would be one too many: being drained is none.
    let site = Site::new(&["--drain-seconds", "1", "--max-executions", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 4");
    node.running(&job);
    node.signal(Signal::TERM);
    let asked = Instant::now();
    assert_eq!(node.exit_within(20), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert!(site.containers().is_empty());
    let db = truth::Db::of(&site);
    let sql = format!("SELECT state || ' ' || losses FROM jobs WHERE id = '{job}'");
    assert_eq!(db.text(&sql), "queued 0");
    db.assert_counters();
    let node = site.start();
    assert_eq!(assert_job(&node, &job, Must::Succeed)["execution"], 2);
    let events = node.events(&job);
    let requeue = events.iter().find(|event| event["event"] == "requeue").unwrap();
    assert_eq!(requeue["detail"]["reason"], "drained");
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::new(&["--drain-seconds", "600"]);
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 60");
    node.running(&job);
    node.signal(Signal::INT);
    eventually("it drains", 2, || node.not_ready() == ["process"]);
    let asked = Instant::now();
    node.signal(Signal::INT);
    assert_eq!(node.exit_within(15), Some(0));
    eprintln!("ended {:?} after the second signal", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let node = site.start();
    node.cancel(&job).unwrap().expect(202);
    assert_job(&node, &job, Must::Cancel);
    assert_at_rest(&site);
    node.stop();
}

/// SIGTERM comes while a claim waits for the queue's lock; what it then claims comes `late` after the signal.
fn a_claim_under_way(drain_seconds: &str, late: Duration) -> (String, Site, EmptyDatabase) {
    let database = EmptyDatabase::create();
    let url = database.url().to_owned();
    let site = Site::new(&["--database-url", &url, "--drain-seconds", drain_seconds, "--max-executions", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    node.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    let job = node.submit(&config, "sleep 2");
    let db = truth::Db::of(&site);
    let held = db.hold("UPDATE instance SET queue_state = 'on'");
    db.until_blocked("%FROM instance FOR UPDATE");
    node.signal(Signal::TERM);
    eventually("it drains", 2, || node.not_ready() == ["process"]);
    std::thread::sleep(late);
    db.until_blocked("%FROM instance FOR UPDATE");
    held.commit();
    assert_eq!(node.exit_within(30), Some(0));
    assert!(site.containers().is_empty());
    db.assert_counters();
    (job, site, database)
}

#[test]
fn a_job_whose_claim_is_under_way_when_draining_begins_may_finish_too() {
    let (job, site, _database) = a_claim_under_way("20", Duration::from_secs(2));
    let node = site.start();
    assert_eq!(assert_job(&node, &job, Must::Succeed)["execution"], 1);
    let lines = node.events(&job);
    assert!(lines.iter().all(|event| event["event"] != "requeue"), "{lines:?}");
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_whose_claim_comes_after_the_grace_goes_back_and_has_lost_nothing() {
    let (job, site, _database) = a_claim_under_way("1", Duration::from_secs(2));
    let db = truth::Db::of(&site);
    assert_eq!(db.text(&format!("SELECT state || ' ' || losses FROM jobs WHERE id = '{job}'")), "queued 0");
    let node = site.start();
    let record = assert_job(&node, &job, Must::Succeed);
    assert!(record["execution"].as_u64() <= Some(2), "{record:#}");
    assert_at_rest(&site);
    node.stop();
}
