//! Docker gone, the database gone, the disk full: said at once, survived, and over by itself.

use crate::api::eventually;
use crate::proxy::Proxy;
use crate::site::{Node, Site};
use crate::support::postgres::EmptyDatabase;
use crate::truth::{self, Must, assert_at_rest, assert_job};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn while_docker_is_gone_jobs_wait_and_those_that_ran_begin_again() {
    let sockets = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
    let proxy = Proxy::to_docker(sockets.path());
    let site = Site::new(&["--max-concurrency", "1", "--docker-host", &proxy.address]);
    let node = site.start().ready();
    let config = node.config("default");
    let ran = node.submit(&config, "sleep 2");
    let waits = node.submit(&config, "Ada");
    node.running(&ran);
    proxy.cut();
    eventually("/readyz says so", 10, || node.not_ready() == ["docker", "image"]);
    let accepted = node.submit(&config, "Ada");
    node.job_when(&ran, "waiting again", |record| record["status"] == "queued");
    std::thread::sleep(Duration::from_secs(3));
    for job in [&waits, &accepted] {
        let record = node.job(job);
        assert_eq!((&record["status"], &record["execution"]), (&json!("queued"), &json!(0)), "{record:#}");
    }
    proxy.mend();
    eventually("/readyz says so", 10, || node.not_ready().is_empty());
    assert_eq!(assert_job(&node, &ran, Must::Succeed)["execution"], 2);
    let events = node.events(&ran);
    let requeue = events.iter().find(|event| event["event"] == "requeue").unwrap();
    assert_eq!(requeue["detail"]["reason"], "engine_unavailable");
    for job in [&waits, &accepted] {
        assert_job(&node, job, Must::Succeed);
    }
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_job_that_loses_docker_every_time_fails_in_the_end() {
    let sockets = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
    let proxy = Proxy::to_docker(sockets.path());
    let site = Site::new(&["--max-executions", "2", "--docker-host", &proxy.address]);
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 60");
    for execution in 1..=2 {
        node.job_when(&job, "running", |record| record["phase"] == "running" && record["execution"] == execution);
        proxy.cut();
        node.job_when(&job, "no longer running", |record| record["status"] != "running");
        proxy.mend();
    }
    let record = node.ended(&job);
    assert_eq!((&record["status"], &record["error"]["kind"]), (&json!("failed"), &json!("engine_unavailable")));
    truth::assert_events(&node.events(&job), &record);
    eventually("the service is ready", 10, || node.not_ready().is_empty());
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn while_docker_is_gone_a_process_stops_in_time_and_loses_nothing() {
    let sockets = tempfile::Builder::new().prefix("ade-recovery-").tempdir().unwrap();
    let proxy = Proxy::to_docker(sockets.path());
    let site = Site::new(&["--drain-seconds", "1", "--docker-host", &proxy.address]);
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 3");
    node.running(&job);
    proxy.cut();
    node.signal(rustix::process::Signal::TERM);
    assert_eq!(node.exit_within(20), Some(0));
    proxy.mend();
    let node = site.start();
    assert_job(&node, &job, Must::Succeed);
    assert_at_rest(&site);
    node.stop();
}

/// A site whose PostgreSQL is behind a proxy.
fn behind_a_proxy() -> (Site, Proxy, EmptyDatabase) {
    let database = EmptyDatabase::create();
    let proxy = Proxy::to(database.address());
    let site = Site::new(&[
        "--max-concurrency",
        "2",
        "--lease-seconds",
        "3",
        "--database-url",
        &database.url_at(&proxy.address),
    ]);
    (site, proxy, database)
}

/// The database goes while a job runs that ends meanwhile, and one that does not.
fn survives(node: &Node<'_>, proxy: &Proxy, gone: impl Fn()) {
    let config = node.config("default");
    let ends_meanwhile = node.submit(&config, "sleep 1");
    let goes_on = node.submit(&config, "sleep 14");
    node.running(&ends_meanwhile);
    node.running(&goes_on);
    let waits = node.submit(&config, "Ada");
    gone();
    let asked = Instant::now();
    let refused = node.try_submit("default", &config, "Ada", &json!({})).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "database_unavailable"));
    eprintln!("refused after {:?}", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(12), "{:?}", asked.elapsed());
    eventually("/readyz says so", 12, || node.not_ready() == ["database"]);
    proxy.mend();
    eventually("/readyz says so", 20, || node.not_ready().is_empty());
    for job in [&ends_meanwhile, &goes_on, &waits] {
        assert_eq!(assert_job(node, job, Must::Succeed)["execution"], 1, "it was not begun again");
    }
}

#[test]
fn while_the_database_is_gone_jobs_run_on_and_their_ends_are_stored_when_it_is_back() {
    let (site, proxy, _database) = behind_a_proxy();
    let node = site.start().ready();
    survives(&node, &proxy, || proxy.cut());
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn a_database_that_no_longer_answers_is_as_one_that_is_gone() {
    let (site, proxy, _database) = behind_a_proxy();
    let node = site.start().ready();
    survives(&node, &proxy, || proxy.silence());
    assert_at_rest(&site);
    node.stop();
}

/// A small file system; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where nobody may mount.
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output().ok()?;
        if !mounted.status.success() {
            eprintln!("skipped: nothing can be mounted here: {}", String::from_utf8_lossy(&mounted.stderr));
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Fills it to the last byte with a file.
    fn fill(&self) -> PathBuf {
        use std::io::Write;
        let path = self.0.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}

#[test]
fn a_full_disk_refuses_uploads_keeps_jobs_and_is_over_when_there_is_room() {
    let mut site = Site::new(&["--max-concurrency", "1"]);
    let Some(disk) = SmallDisk::mount(&site.root().join("disk"), 24) else { return };
    site.data_dir = Some(disk.0.join("data"));
    let node = site.start().ready();
    let config = node.config("default");
    let job = node.submit(&config, "sleep 3");
    node.running(&job);
    let before = truth::files(&truth::blob_folder(&site)).len();

    // Larger than what is left: refused half-way, and nothing of it is kept.
    let refused = node.upload("default", "big.csv", vec![b'x'; 30_000_000]).unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (503, "storage_full"));
    assert_eq!(truth::files(&truth::blob_folder(&site)).len(), before);

    let ballast = disk.fill();
    let mut refusals = Vec::new();
    let mut accepted = vec![job];
    let full = Instant::now();
    while full.elapsed() < Duration::from_secs(8) {
        let answer = node.try_submit("default", &config, "Ada", &json!({})).unwrap();
        if answer.status == 202 {
            accepted.push(answer.json()["job_id"].as_str().unwrap().to_owned());
        } else {
            assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(&answer.body));
            refusals.push(answer.code());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    refusals.dedup();
    eprintln!("{} accepted, refused as {refusals:?}, not ready: {:?}", accepted.len(), node.not_ready());
    assert!(!refusals.is_empty());
    assert!(
        refusals.iter().all(|code| ["storage_full", "storage_unavailable", "database_unavailable"].contains(&&**code))
    );

    std::fs::remove_file(ballast).unwrap();
    eventually("/readyz says that all is well", 20, || node.not_ready().is_empty());
    for job in &accepted {
        assert_job(&node, job, Must::Succeed);
    }
    let after = node.submit(&config, "Ada");
    assert_job(&node, &after, Must::Succeed);
    assert_at_rest(&site);
    node.stop();
}

#[test]
fn while_the_storage_is_full_jobs_wait_and_lose_nothing() {
    let site = Site::new(&[]);
    let Some(disk) = SmallDisk::mount(&site.root().join("disk"), 8) else { return };
    let blobs = disk.0.join("blobs").to_str().unwrap().to_owned();
    let node = site.start_with(&["--blob-url", &blobs, "--max-concurrency", "1"]).ready();
    let config = node.config("default");
    let documents: Vec<String> = (0..3)
        .map(|_| {
            let answer = node.upload("default", "a.csv", b"Name\nAda\n".to_vec()).unwrap().expect(201);
            answer.json()["document_id"].as_str().unwrap().to_owned()
        })
        .collect();
    let ran = node.submit(&config, "sleep 1");
    node.running(&ran);
    let ballast = disk.fill();
    let waiting: Vec<String> = documents
        .iter()
        .enumerate()
        .map(|(number, document)| {
            let hash = format!("full-{number}");
            let body = json!({"config_id": config, "document_id": document, "input_hash": hash});
            let answer = node.post("/api/v1/workspaces/default/jobs", &body).expect(202);
            answer.json()["job_id"].as_str().unwrap().to_owned()
        })
        .collect();
    node.job_when(&ran, "waiting again", |record| record["status"] == "queued");
    assert_eq!(node.not_ready(), ["storage"]);
    // Longer than it takes to lose three executions.
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(node.not_ready(), ["storage"]);
    for job in &waiting {
        assert_eq!(node.job(job)["execution"], 0);
    }
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(assert_job(&node, &ran, Must::Succeed)["execution"], 2);
    for job in &waiting {
        assert_eq!(assert_job(&node, job, Must::Succeed)["execution"], 1);
    }
    eventually("/readyz says that all is well", 10, || node.not_ready().is_empty());
    truth::Db::of(&site).assert_counters();
    node.stop();
}
