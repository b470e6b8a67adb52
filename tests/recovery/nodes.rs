//! Several processes on one PostgreSQL and one storage.

use crate::api::eventually;
use crate::site::{Node, Site, containers};
use crate::support::postgres::EmptyDatabase;
use crate::truth::{self, Must, assert_at_rest, assert_job};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Two sites on one database. Fields are dropped in this order.
pub struct Pair {
    pub a: Site,
    pub b: Site,
    _shared: tempfile::TempDir,
    _database: EmptyDatabase,
}

impl Pair {
    pub fn new(args: &[&str]) -> Self {
        let database = EmptyDatabase::create();
        let shared = tempfile::Builder::new().prefix("ade-recovery-shared-").tempdir().unwrap();
        let blobs = shared.path().join("blobs");
        let url = database.url().to_owned();
        let common = ["--lease-seconds", "3", "--database-url", &url, "--blob-url", blobs.to_str().unwrap()];
        let args = [&common, args].concat();
        Self { a: Site::new(&args), b: Site::new(&args), _shared: shared, _database: database }
    }

    /// Starts A, then B with A's key.
    pub fn start(&mut self) -> (Node<'_>, Node<'_>) {
        let a = self.a.start().ready();
        self.b.key = Some(std::fs::read_to_string(self.a.data().join("admin-key")).unwrap().trim().to_owned());
        let b = self.b.start().ready();
        (a, b)
    }
}

/// Submits a job and waits until `wanted` runs it; jobs that went elsewhere are cancelled.
fn job_on(node: &Node<'_>, config: &str, does: &str, wanted: &Site) -> String {
    loop {
        let job = node.submit(config, does);
        node.running(&job);
        let sql = format!("SELECT node_id FROM jobs WHERE id = '{job}'");
        if truth::Db::of(wanted).text(&sql) == wanted.node_id() {
            return job;
        }
        node.cancel(&job).unwrap().expect(202);
        node.ended(&job);
    }
}

#[test]
fn jobs_are_shared_and_each_runs_once() {
    let mut pair = Pair::new(&["--max-concurrency", "1"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let jobs: Vec<String> =
        (0..8).map(|number| if number % 2 == 0 { &a } else { &b }.submit(&config, "sleep 0.3")).collect();
    for job in &jobs {
        assert_eq!(assert_job(&a, job, Must::Succeed)["execution"], 1);
    }
    assert_at_rest(a.site);
    // Both nodes look for logs to store, and store the same ones.
    for job in &jobs {
        truth::assert_events(&b.events(job), &b.job(job));
    }
    let db = truth::Db::of(a.site);
    let by: BTreeSet<String> = db.column("SELECT DISTINCT node_id FROM jobs").into_iter().collect();
    assert_eq!(by, BTreeSet::from([a.site.node_id(), b.site.node_id()]), "both have worked");
    b.stop();
    a.stop();
}

#[test]
fn jobs_of_a_node_that_was_killed_are_finished_by_the_other() {
    let mut pair = Pair::new(&["--max-concurrency", "2"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let job = job_on(&a, &config, "sleep 3", b.site);
    let (lost, killed) = (b.site, Instant::now());
    b.kill();
    let record = assert_job(&a, &job, Must::Succeed);
    assert_eq!(record["execution"], 2, "{record:#}");
    eprintln!("finished {:?} after the kill", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_secs(15), "a lease of 3 s, and 3 s of work");
    // Its container has ended by itself. Only its own node removes it before its deadline.
    let b = lost.start().ready();
    eventually("the container is gone", 10, || lost.containers().is_empty());
    assert_at_rest(a.site);
    b.stop();
    a.stop();
}

#[test]
fn what_a_node_writes_that_was_paused_beyond_its_lease_changes_nothing() {
    let mut pair = Pair::new(&["--max-concurrency", "2"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let job = job_on(&a, &config, "sleep 4", b.site);
    b.signal(Signal::STOP);
    a.job_when(&job, "taken over", |record| record["execution"] == 2);
    // The two now run the same job at the same time.
    b.signal(Signal::CONT);
    let record = assert_job(&a, &job, Must::Succeed);
    assert_eq!(record["execution"], 2, "{record:#}");
    eventually("the late container is gone", 10, || b.site.containers().is_empty());
    assert_eq!(b.job(&job), record, "both say the same");
    // B works on.
    let next = job_on(&a, &config, "sleep 0.2", b.site);
    assert_job(&b, &next, Must::Succeed);
    assert_at_rest(a.site);
    b.stop();
    a.stop();
}

#[test]
fn a_cancel_on_one_node_stops_a_job_of_the_other_at_once() {
    let mut pair = Pair::new(&["--max-concurrency", "2"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let job = job_on(&a, &config, "sleep 60", b.site);
    let asked = Instant::now();
    a.cancel(&job).unwrap().expect(202);
    a.ended(&job);
    eprintln!("cancelled within {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_job(&b, &job, Must::Cancel);
    assert_at_rest(a.site);
    b.stop();
    a.stop();
}

#[test]
fn a_follower_on_one_node_sees_events_of_a_job_of_the_other_as_they_come() {
    let mut pair = Pair::new(&["--max-concurrency", "2"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let job = job_on(&a, &config, "sleep 2", b.site);
    let events = a.follow(&job);
    let lines: Vec<Value> = events.iter().map(|(event, _)| event.clone()).collect();
    truth::assert_events(&lines, &a.job(&job));
    let delays: Vec<i128> = events
        .iter()
        .filter(|(event, _)| event["detail"]["text"].as_str().is_some_and(|text| text.starts_with("tick")))
        .map(|(event, came)| {
            let format = &time::format_description::well_known::Rfc3339;
            let said = time::OffsetDateTime::parse(event["ts"].as_str().unwrap(), format).unwrap();
            (time::OffsetDateTime::now_utc() - came.elapsed() - said).whole_milliseconds()
        })
        .collect();
    // Those from before the follower came are old.
    let live = &delays[delays.len() / 2..];
    let worst = live.iter().max().unwrap();
    eprintln!("{} live events, the slowest after {worst} ms", live.len());
    assert!(live.len() >= 5 && *worst < 700, "{delays:?}");
    assert_job(&a, &job, Must::Succeed);
    b.stop();
    a.stop();
}

#[test]
fn settings_that_an_admin_changes_on_one_node_hold_on_the_other() {
    let mut pair = Pair::new(&["--max-concurrency", "1"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    a.put("/api/v1/system/concurrency", &json!({"max_concurrency": 0})).expect(200);
    // The other hears of it within a moment; by then it may have taken one more.
    eventually("both run nothing new", 5, || {
        let status = b.get("/api/v1/system/status").expect(200).json();
        status["nodes"].as_array().unwrap().iter().all(|node| node["max_concurrency"] == 0)
    });
    let jobs: Vec<String> = (0..4).map(|_| a.submit(&config, "sleep 0.2")).collect();
    std::thread::sleep(Duration::from_secs(2));
    assert!(jobs.iter().all(|job| b.job(job)["status"] == "queued"), "nothing is started");
    a.put("/api/v1/system/queue", &json!({"state": "paused"})).expect(200);
    a.put("/api/v1/system/concurrency", &json!({"max_concurrency": 2})).expect(200);
    std::thread::sleep(Duration::from_secs(2));
    assert!(jobs.iter().all(|job| b.job(job)["status"] == "queued"), "nothing is started while the queue is paused");
    let resumed = Instant::now();
    a.put("/api/v1/system/queue", &json!({"state": "on"})).expect(200);
    for job in &jobs {
        assert_job(&b, job, Must::Succeed);
    }
    eprintln!("4 jobs took {:?}", resumed.elapsed());
    let db = truth::Db::of(a.site);
    assert_eq!(db.number("SELECT count(DISTINCT node_id) FROM jobs"), 2, "both took jobs as soon as they could");
    assert_at_rest(a.site);
    b.stop();
    a.stop();
}

#[test]
fn two_nodes_that_start_at_the_same_time_on_a_new_database_both_come_up() {
    let pair = Pair::new(&[]);
    let mut a = pair.a.spawn(&[]);
    let mut b = pair.b.spawn(&[]);
    a.wait_until_it_answers();
    b.wait_until_it_answers();
    let (a, b) = (a.ready(), b.ready());
    let db = truth::Db::of(a.site);
    assert_eq!(db.number("SELECT count(*) FROM instance"), 1);
    assert_eq!(db.number("SELECT count(*) FROM workspaces"), 1);
    assert_eq!(db.number("SELECT count(*) FROM nodes"), 2);
    // Whoever was first made a key; one that has a key file has one that works.
    for node in [&a, &b] {
        if node.site.data().join("admin-key").exists() {
            node.get("/api/v1/whoami").expect(200);
        }
    }
    b.stop();
    a.stop();
}

#[test]
fn a_node_keeps_its_hands_off_the_containers_of_the_other() {
    let mut pair = Pair::new(&["--max-concurrency", "1"]);
    let (a, b) = pair.start();
    let config = a.config("default");
    let job = job_on(&a, &config, "sleep 5", b.site);
    let before = b.site.containers();
    assert_eq!(before.len(), 1);
    // A is killed and starts again, which is when it reaps.
    let site = a.site;
    a.kill();
    let a = site.start().ready();
    assert_eq!(b.site.containers(), before);
    let record = assert_job(&a, &job, Must::Succeed);
    assert_eq!(record["execution"], 1, "{record:#}");
    // A container is removed after the end of its job is stored.
    eventually("the job's container is removed", 10, || containers("dev.ade.job", &job).is_empty());
    assert_at_rest(a.site);
    b.stop();
    a.stop();
}

#[test]
fn an_upload_goes_on_while_another_node_starts_and_sweeps() {
    use std::io::{Read, Write};
    let mut pair = Pair::new(&[]);
    let a = pair.a.start().ready();
    let key = std::fs::read_to_string(pair.a.data().join("admin-key")).unwrap().trim().to_owned();
    pair.b.key = Some(key.clone());
    let address = std::fs::read_to_string(pair.a.data().join("address")).unwrap();
    let mut upload = std::net::TcpStream::connect(address.trim().strip_prefix("http://").unwrap()).unwrap();
    let path = "/api/v1/workspaces/default/documents?filename=a.csv";
    write!(upload, "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: text/csv\r\n")
        .unwrap();
    write!(upload, "Connection: close\r\nContent-Length: 12000000\r\n\r\n").unwrap();
    upload.write_all(&[b'x'; 6_000_000]).unwrap();
    let there = || truth::files(&truth::blob_folder(&pair.a)).iter().any(|file| file.contains("/documents/"));
    eventually("a part of the upload is on the disk", 10, there);
    let b = pair.b.start().ready();
    let gone = truth::Db::of(&pair.a).number("SELECT count(*) FROM documents");
    // B's first round of sweeping is over with its first look at the queues; what it would do, it has done.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!((gone, truth::Db::of(&pair.a).number("SELECT count(*) FROM documents")), (1, 1));
    upload.write_all(&[b'x'; 6_000_000]).unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let documents = b.get("/api/v1/workspaces/default/documents").expect(200).json();
    let id = documents["items"][0]["document_id"].as_str().unwrap();
    let content = b.get(&format!("/api/v1/workspaces/default/documents/{id}/download")).expect(200);
    assert_eq!(content.body.len(), 12_000_000);
    b.stop();
    a.stop();
}
