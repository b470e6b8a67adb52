//! Who is next, with real containers.

use crate::site::Site;
use crate::truth::{Must, assert_at_rest, assert_job};
use serde_json::{Value, json};

fn time(record: &Value, key: &str) -> time::OffsetDateTime {
    let format = &time::format_description::well_known::Rfc3339;
    time::OffsetDateTime::parse(record[key].as_str().unwrap(), format).unwrap()
}

#[test]
fn a_workspace_with_many_jobs_delays_the_one_of_another_by_one_job_at_most() {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    node.post("/api/v1/workspaces", &json!({"slug": "quiet", "title": "Quiet"})).expect(201);
    let (busy, quiet) = (node.config("default"), node.config("quiet"));
    let many: Vec<String> = (0..6).map(|_| node.submit(&busy, "sleep 1")).collect();
    node.running(&many[0]);
    let one = node.submit_to("quiet", &quiet, "Ada", &json!({}));
    let record = node.job_in_when("quiet", &one, "ended", |record| record["status"] == "succeeded");
    let before = many.iter().filter(|job| {
        let other = node.job(job);
        other["started_at"].is_string() && time(&other, "started_at") < time(&record, "started_at")
    });
    // The one that ran when it came; a second one only if that had just ended.
    let before = before.count();
    assert!(before <= 2, "{before} of the busy workspace's jobs went first");
    let waited = (time(&record, "started_at") - time(&record, "queued_at")).as_seconds_f64();
    eprintln!("the single job waited {waited:.1} s");
    for job in &many {
        node.cancel(job).unwrap();
        node.ended(job);
    }
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_higher_priority_goes_first() {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    node.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    let submit = |priority: i64| node.submit_to("default", &config, "Ada", &json!({"priority": priority}));
    let (low, normal, high) = (submit(-5), submit(0), submit(5));
    node.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    let [low, normal, high] =
        [low, normal, high].map(|job| time(&assert_job(&node, &job, Must::Succeed), "started_at"));
    assert!(high < normal && normal < low);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_workspace_runs_no_more_at_once_than_it_may() {
    let site = Site::new(&["--max-concurrency", "4"]);
    let node = site.start().ready();
    node.patch("/api/v1/workspaces/default", &json!({"max_running": 1})).expect(200);
    let config = node.config("default");
    let jobs: Vec<String> = (0..4).map(|_| node.submit(&config, "sleep 0.2")).collect();
    let mut spans: Vec<_> = jobs
        .iter()
        .map(|job| {
            let record = assert_job(&node, job, Must::Succeed);
            (time(&record, "started_at"), time(&record, "completed_at"))
        })
        .collect();
    spans.sort();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{spans:?}");
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_waits_for_too_long_fails() {
    let site = Site::new(&["--max-concurrency", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    let long = node.submit(&config, "sleep 4");
    let short_of_time = node.submit_to("default", &config, "Ada", &json!({"queue_timeout_seconds": 1}));
    let record = node.ended(&short_of_time);
    assert_eq!((&record["status"], &record["error"]["kind"]), (&json!("failed"), &json!("queue_timeout")));
    assert_eq!(record["execution"], 0);
    crate::truth::assert_events(&node.events(&short_of_time), &record);
    assert_job(&node, &long, Must::Succeed);
    assert_at_rest(&site);
    node.stop();
}
