//! Many jobs that need one set, and installs that die (attack 66); sets within their budget.

use crate::index::Index;
use crate::site::{Site, asking, block};
use crate::support::server::{Database, Server, Tenant, eventually};
use crate::support::{Docker, Package, Run, image_id};
use crate::wheel::Wheel;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn events(tenant: &Tenant, job: &str) -> Vec<Value> {
    let text = tenant.viewer.get(tenant.path(&format!("/jobs/{job}/events"))).send().expect(200).text();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A workspace whose installs may use the network.
fn tenant(server: &Server) -> Tenant {
    let tenant = server.tenant();
    tenant.admin.put(tenant.path("/network")).json(&json!({"access": "install_only"})).send().expect(200);
    tenant
}

fn sets_of(server: &Server) -> Vec<Value> {
    crate::support::sets::records_in(&server.data().join("deps"))
}

/// A document like no other, as the same job over the same document is one job.
fn document(tenant: &Tenant, number: usize) -> String {
    tenant.document(&format!("{number}.csv"), format!("Name\nAda {number}\n"))
}

/// Containers that have a volume of these sets.
fn installers(volumes: &[String]) -> Vec<String> {
    let docker = Docker::connect();
    let users = volumes.iter().flat_map(|volume| docker.users_of(volume));
    users.filter(|name| name.starts_with("ade-install-")).collect()
}

#[test]
fn a66_twenty_jobs_that_need_one_new_set_install_it_once() {
    let alpha = Wheel::new("alpha", "1.0");
    let index = Index::start().with(std::slice::from_ref(&alpha));
    index.delay_files(Duration::from_secs(3));
    Site::of(&index).install(&asking("alpha", "import alpha")).assert_succeeded();
    let once = index.downloads(&alpha.filename());

    let args = ["--max-concurrency", "20", "--max-executions", "20"];
    let server = Server::start_on(Database::Sqlite, &args, &Site::of(&index).environment());
    let tenant = tenant(&server);
    tenant.pause(true);
    let config = tenant.config(&asking("alpha", "import alpha"));
    let jobs: Vec<String> = (0..20).map(|number| tenant.job(&config, &document(&tenant, number))).collect();
    tenant.pause(false);
    let (mut seen, mut states) = (BTreeSet::new(), Vec::new());
    for job in &jobs {
        let record = tenant.end(job);
        assert_eq!(record["status"], "succeeded", "{record:#}");
        let ready = events(&tenant, job).into_iter().find(|event| event["event"] == "deps.ready").unwrap();
        seen.insert(ready["detail"]["set_id"].as_str().unwrap().to_owned());
        states.push(ready["detail"]["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.len(), 1, "all have one set");
    assert_eq!(states.iter().filter(|state| *state == "installed").count(), 1, "{states:?}");
    assert_eq!(jobs.iter().collect::<BTreeSet<_>>().len(), 20);
    assert_eq!(index.downloads(&alpha.filename()), 2 * once, "one install more");
    assert_eq!(sets_of(&server).len(), 1);
}

#[test]
fn a66_two_processes_that_need_one_new_set_install_it_once() {
    let alpha = Wheel::new("alpha", "1.0");
    let index = Index::start().with(std::slice::from_ref(&alpha));
    index.delay_files(Duration::from_secs(3));
    let site = Site::of(&index);
    let package = asking("alpha", "import alpha");
    let args = ["--network", "install_only"];
    let (one, other) = (site.start(&package, &args), site.start(&package, &args));
    let ended: [Run; 2] = [one.wait(), other.wait()];
    let mut states: Vec<&str> = ended.iter().map(|run| block(run)["status"].as_str().unwrap()).collect();
    for run in &ended {
        run.assert_succeeded();
    }
    states.sort_unstable();
    assert_eq!(states, ["cached", "installed"]);
    assert_eq!(block(&ended[0])["set_id"], block(&ended[1])["set_id"]);
    site.sets.assert_at_rest();
    assert_eq!(site.sets.records().len(), 1);
}

#[test]
fn a66_an_install_that_is_killed_leaves_nothing_that_looks_whole_and_the_next_run_clears_it_away() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    index.delay_files(Duration::from_secs(20));
    let site = Site::of(&index);
    let package = asking("alpha", "import alpha");
    for signal in ["KILL", "INT"] {
        let fetched = index.downloads(".whl");
        let running = site.start(&package, &["--network", "install_only"]);
        eventually("the installer runs", || {
            installers(&site.sets.volumes()).iter().any(|name| Docker::connect().is_running(name))
        });
        // The first one's installer may not have noticed yet that nobody is there.
        eventually("it fetches", || index.downloads(".whl") > fetched);
        running.signal(signal);
        let run = running.wait_unchecked();
        assert_eq!(site.sets.records(), Vec::<Value>::new());
        if signal == "INT" {
            assert_eq!(run.status(), "cancelled");
            site.sets.assert_at_rest();
        }
    }
    index.delay_files(Duration::ZERO);
    let running = site.start(&package, &["--network", "install_only"]);
    let run = running.wait();
    run.assert_succeeded();
    assert_eq!(block(&run)["status"], "installed");
    site.sets.assert_at_rest();
}

#[test]
fn a66_a_cancelled_job_does_not_end_the_install_of_the_others_and_the_last_one_does() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0"), Wheel::new("beta", "1.0")]);
    index.delay_files(Duration::from_secs(8));
    let args = ["--max-concurrency", "4", "--max-executions", "4"];
    let server = Server::start_on(Database::Sqlite, &args, &Site::of(&index).environment());
    let tenant = tenant(&server);
    let deps = server.data().join("deps");
    let volumes = || crate::support::sets::volumes_of(&deps);
    let cancel = |job: &str| tenant.editor.post(tenant.path(&format!("/jobs/{job}/cancel"))).send().expect(202);
    let config = tenant.config(&asking("alpha", "import alpha"));
    let jobs: Vec<String> = (0..3).map(|number| tenant.job(&config, &document(&tenant, number))).collect();
    eventually("it fetches", || index.downloads(".whl") > 0);
    eventually("all three wait", || jobs.iter().all(|job| tenant.record(job)["phase"] == "installing"));
    cancel(&jobs[0]);
    cancel(&jobs[1]);
    assert_eq!(tenant.end(&jobs[0])["status"], "cancelled");
    assert_eq!(tenant.end(&jobs[1])["status"], "cancelled");
    assert_eq!(installers(&volumes()).len(), 1, "the install goes on");
    assert_eq!(tenant.end(&jobs[2])["status"], "succeeded");
    assert_eq!(sets_of(&server).len(), 1);

    index.delay_files(Duration::from_secs(60));
    let config = tenant.config(&asking("beta", "import beta"));
    let jobs: Vec<String> = (0..2).map(|number| tenant.job(&config, &document(&tenant, number))).collect();
    eventually("it fetches", || index.downloads("beta-1.0-py3-none-any.whl") > 0);
    eventually("both wait", || jobs.iter().all(|job| tenant.record(job)["phase"] == "installing"));
    for job in &jobs {
        cancel(job);
        assert_eq!(tenant.end(job)["status"], "cancelled");
    }
    eventually("the installer is gone, and its volume", || volumes().len() == 1 && installers(&volumes()).is_empty());
    assert_eq!(sets_of(&server).len(), 1);
}

#[test]
fn a_set_that_is_pruned_takes_its_parked_containers_with_it_and_none_comes_back() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let site = Site::of(&index);
    let server = Server::start_on(Database::Sqlite, &["--pool-min", "0", "--pool-max", "2"], &site.environment());
    let tenant = tenant(&server);
    let deps = server.data().join("deps");
    let volumes = || crate::support::sets::volumes_of(&deps);
    let config = tenant.config(&asking("alpha", "import alpha"));
    let run = |number| tenant.end(&tenant.job(&config, &document(&tenant, number)))["status"].clone();
    assert_eq!(run(0), "succeeded");
    let volume = volumes().remove(0);
    let users = || Docker::connect().users_of(&volume);
    eventually("one is parked that mounts the set", || users().iter().any(|name| name.starts_with("ade-parked-")));
    let said = site.with("ADE_DEPS_DIR", deps.to_str().unwrap()).json(&["deps", "prune", "--all"], 0);
    assert_eq!((&said["in_use"], said["removed"].as_array().unwrap().len()), (&json!([]), 1), "{said}");
    assert_eq!((users(), volumes()), (vec![], vec![]));
    // By then the pool has looked what is missing.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!((users(), volumes()), (vec![], vec![]), "a container for a set that is gone has an empty one");
    assert_eq!(run(1), "succeeded");
}

/// A wheel of some size.
pub fn heavy(name: &str, mb: usize) -> Wheel {
    let noise: Vec<u8> = (0..mb << 20).map(|at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Wheel::new(name, "1.0").file(&format!("{name}_data.bin"), noise)
}

fn requirements(site: &Site) -> Vec<String> {
    let mut names: Vec<String> =
        site.sets.records().iter().map(|record| record["requirements"][0].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_least_recently_used_sets_go_when_the_budget_is_spent_and_never_one_in_use() {
    let index = Index::start().with(&[heavy("one", 4), heavy("two", 4), heavy("three", 4), heavy("four", 4)]);
    let site = Site::of(&index).with("ADE_DEPS_BUDGET_MB", "10");
    let plain = |name: &str| -> Package { asking(name, &format!("import {name}")) };
    site.install(&plain("one")).assert_succeeded();
    site.install(&plain("two")).assert_succeeded();
    // Used again, so that two is the one that goes.
    assert_eq!(block(&site.install(&plain("one")))["status"], "cached");
    site.install(&plain("three")).assert_succeeded();
    assert_eq!(requirements(&site), ["one", "three"]);

    let busy = asking(
        "one",
        "say('first', os.path.isfile('/deps/site/one_data.bin'))\ntime.sleep(12)\nimport one\nsay('size', os.path.getsize('/deps/site/one_data.bin'))",
    );
    let running = site.start(&busy, &["--network", "install_only"]);
    running.container();
    site.install_beside(&plain("three")).assert_succeeded();
    site.install_beside(&plain("four")).assert_succeeded();
    assert_eq!(requirements(&site), ["four", "one"], "one is the least recently used, and in use");
    let run = running.wait();
    run.assert_succeeded();
    assert_eq!(run.finding("size"), (4 << 20).to_string());
    site.sets.assert_at_rest();
}

#[test]
fn a_set_that_is_larger_than_the_budget_serves_its_job_all_the_same() {
    let index = Index::start().with(&[heavy("one", 4)]);
    let site = Site::of(&index).with("ADE_DEPS_BUDGET_MB", "1");
    site.install(&asking("one", "import one")).assert_succeeded();
}

#[test]
fn a_volume_that_is_removed_behind_our_back_is_installed_anew() {
    let index = Index::start().with(&[Wheel::new("alpha", "1.0")]);
    let site = Site::of(&index);
    let package = asking("alpha", "import alpha");
    let first = site.install(&package);
    first.assert_succeeded();
    for volume in site.sets.volumes() {
        Docker::connect().remove_volume(&volume);
    }
    let again = site.install(&package);
    again.assert_succeeded();
    assert_eq!(block(&again)["status"], "installed");
    assert_eq!(block(&again)["set_id"], block(&first)["set_id"], "the same lock is the same set");
    // One of the same name that somebody made instead is no set.
    for volume in site.sets.volumes() {
        Docker::connect().remove_volume(&volume);
        Docker::connect().create_volume(&volume, &image_id(), tar::Builder::new(Vec::new()).into_inner().unwrap());
    }
    let again = site.install(&package);
    again.assert_succeeded();
    assert_eq!(block(&again)["status"], "installed");
    // A service does not look at its start only.
    let server = Server::start_on(Database::Sqlite, &[], &site.environment());
    let tenant = tenant(&server);
    let config = tenant.config(&package);
    for number in 0..2 {
        let job = tenant.job(&config, &document(&tenant, number));
        assert_eq!(tenant.end(&job)["status"], "succeeded");
        for volume in crate::support::sets::volumes_of(&server.data().join("deps")) {
            Docker::connect().remove_volume(&volume);
        }
    }
}

#[test]
fn a_workspace_finds_its_own_wheelhouse_and_no_other() {
    let houses = tempfile::Builder::new().prefix("ade-test-wheels-").tempdir().unwrap();
    let place = houses.path().to_str().unwrap();
    let server = Server::start(&["--workspace-wheelhouses", place]);
    let (rich, poor) = (server.tenant(), server.tenant());
    let house = houses.path().join(&rich.id);
    std::fs::create_dir(&house).unwrap();
    for folder in [houses.path(), &house] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    Wheel::new("alpha", "1.0").write_to(&house);
    let end =
        |tenant: &Tenant| tenant.end(&tenant.job(&tenant.config(&asking("alpha", "import alpha")), &tenant.names()));
    let record = end(&rich);
    assert_eq!(record["status"], "succeeded", "{record:#}");
    let record = end(&poor);
    assert_eq!(record["error"]["kind"], "dependency_network_denied", "{record:#}");
    assert_eq!(record["error"]["detail"]["code"], "network_denied");
}
