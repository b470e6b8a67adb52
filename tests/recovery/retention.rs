//! What is past its age or quota goes, with its files; by default nothing does.

use crate::api::eventually;
use crate::site::Site;
use crate::truth::{self, Db, Must, assert_at_rest, assert_job};
use serde_json::{Value, json};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Four finished jobs and a waiting one, all of it as if of ten days ago but the last finished job.
fn old_site(site: &Site) -> (Vec<String>, String) {
    let node = site.start().ready();
    let config = node.config("default");
    let finished: Vec<String> =
        (0..4).map(|number| node.submit(&config, if number == 1 { "fail" } else { "Ada" })).collect();
    for (number, job) in finished.iter().enumerate() {
        assert_job(&node, job, if number == 1 { Must::Fail } else { Must::Succeed });
    }
    node.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    let waiting = node.submit(&config, "Ada");
    assert_at_rest_but_for_the_waiting(site);
    node.stop();
    let db = Db::of(site);
    let old = finished[..3].iter().map(|job| format!("'{job}'")).collect::<Vec<_>>().join(",");
    let ago = 10 * DAY_MS;
    assert_eq!(db.execute(&format!("UPDATE jobs SET completed_at = completed_at - {ago} WHERE id IN ({old})")), 3);
    let newest = &finished[3];
    db.execute(&format!(
        "UPDATE documents SET created_at = created_at - {ago} \
         WHERE id NOT IN (SELECT document_id FROM job_documents WHERE job_id = '{newest}')"
    ));
    (finished, waiting)
}

fn assert_at_rest_but_for_the_waiting(site: &Site) {
    let db = Db::of(site);
    eventually("the logs are stored", 20, || {
        db.number("SELECT count(*) FROM jobs WHERE events_stored = 0 AND completed_at IS NOT NULL") == 0
    });
}

fn documents(node: &crate::api::Api) -> Vec<Value> {
    node.get("/api/v1/workspaces/default/documents").expect(200).json()["items"].as_array().unwrap().clone()
}

#[test]
fn by_default_everything_is_kept() {
    let site = Site::new(&[]);
    let (finished, _) = old_site(&site);
    let node = site.start().ready();
    // The first round comes with the start; once storage is known to work it is long over.
    for (number, job) in finished.iter().enumerate() {
        assert_job(&node, job, if number == 1 { Must::Fail } else { Must::Succeed });
    }
    assert_eq!(documents(&node).len(), 5);
    node.stop();
}

#[test]
fn jobs_and_documents_past_their_age_go_with_their_files_and_what_is_in_use_stays() {
    let site = Site::new(&["--retention-jobs-days", "5", "--retention-documents-days", "5"]);
    let (finished, waiting) = {
        // Made under the same settings: what is new stays.
        old_site(&site)
    };
    let node = site.start();
    for job in &finished[..3] {
        eventually("an old job is gone", 10, || {
            node.get(&format!("/api/v1/workspaces/default/jobs/{job}")).status == 404
        });
    }
    eventually("old documents are gone", 10, || documents(&node).len() == 2);
    // Who submitted what outlives what was submitted, each in its place; retention is nobody, and has no entry.
    let audit = node.get("/api/v1/system/audit?action=job.submit,document.delete").expect(200).json();
    let targets: Vec<&str> =
        audit["items"].as_array().unwrap().iter().map(|entry| entry["target_id"].as_str().unwrap()).collect();
    let submitted: Vec<&str> = finished.iter().chain([&waiting]).rev().map(String::as_str).collect();
    assert_eq!(targets, submitted);
    assert!(audit["items"].as_array().unwrap().iter().all(|entry| entry["key_name"] == "first admin"), "{audit}");
    assert_job(&node, &finished[3], Must::Succeed);
    node.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    assert_job(&node, &waiting, Must::Succeed);
    eventually("no file is left of what is gone", 40, || {
        let left = truth::files(&truth::blob_folder(&site));
        finished[..3].iter().all(|job| !left.iter().any(|file| file.contains(job.as_str())))
            && left.iter().filter(|file| file.contains("/documents/")).count() == 2
    });
    node.stop();
}

#[test]
fn quotas_keep_the_newest_jobs_and_documents() {
    let site = Site::new(&["--quota-jobs", "1"]);
    let (finished, waiting) = old_site(&site);
    let node = site.start();
    for job in &finished[..3] {
        eventually("a job beyond the quota is gone", 10, || {
            node.get(&format!("/api/v1/workspaces/default/jobs/{job}")).status == 404
        });
    }
    assert_job(&node, &finished[3], Must::Succeed);
    assert_eq!(node.job(&waiting)["status"], "queued");
    assert_eq!(documents(&node).len(), 5, "documents have their own quota");
    // The counts of claims include jobs that are gone.
    node.stop();
    let site_again = site.start_with(&["--quota-documents-mb", "1"]);
    let big = vec![b'x'; 700_000];
    for _ in 0..3 {
        site_again.upload("default", "big.csv", big.clone()).unwrap().expect(201);
    }
    site_again.stop();
    let node = site.start_with(&["--quota-documents-mb", "1"]);
    eventually("documents beyond the quota are gone", 10, || documents(&node).len() == 2);
    let left: Vec<i64> = documents(&node).iter().map(|document| document["bytes"].as_i64().unwrap()).collect();
    assert_eq!(left.iter().filter(|bytes| **bytes == 700_000).count(), 1, "the newest: {left:?}");
    node.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    assert_job(&node, &waiting, Must::Succeed);
    node.stop();
}

#[test]
fn logs_past_their_age_go_and_their_jobs_stay() {
    let site = Site::new(&["--retention-events-days", "5"]);
    let (finished, _) = old_site(&site);
    let node = site.start();
    let logs =
        || truth::files(&truth::blob_folder(&site)).iter().filter(|file| file.ends_with("events.ndjson")).count();
    eventually("old logs are gone", 10, || logs() == 1);
    for job in &finished[..3] {
        let record = node.job(job);
        truth::assert_outputs(&node, job, &record);
        assert_eq!(node.events(job), Vec::<Value>::new());
    }
    assert_job(&node, &finished[3], Must::Succeed);
    assert_eq!(logs(), 1);
    node.stop();
}

#[test]
fn an_idempotency_key_whose_job_is_gone_can_be_used_again() {
    let site = Site::new(&["--quota-jobs", "1"]);
    let node = site.start().ready();
    let config = node.config("default");
    let document = node.upload("default", "a.csv", b"Name\nAda\n".to_vec()).unwrap().expect(201).json();
    let submit = |node: &crate::api::Api| {
        let body = json!({"config_id": config, "document_id": document["document_id"], "input_hash": "same"});
        let headers = [("content-type", "application/json".to_owned()), ("idempotency-key", "once".to_owned())];
        let path = "/api/v1/workspaces/default/jobs";
        let answer = node.try_send("POST", path, &headers, Some(body.to_string().into_bytes())).unwrap();
        answer.expect(202).json()["job_id"].as_str().unwrap().to_owned()
    };
    let first = submit(&node);
    assert_eq!(submit(&node), first);
    node.ended(&first);
    let newest = node.submit(&config, "Ada");
    node.ended(&newest);
    assert_at_rest(&site);
    node.stop();
    let node = site.start();
    eventually("the older job is gone", 10, || {
        node.get(&format!("/api/v1/workspaces/default/jobs/{first}")).status == 404
    });
    let second = submit(&node);
    assert_ne!(second, first);
    assert_job(&node, &second, Must::Succeed);
    node.stop();
}
