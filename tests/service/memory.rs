//! Memory for packages that requests work on: bounded for a node, and half of it for one workspace.

use crate::support::http::{Answer, form};
use crate::support::server::{Registered, Server, Tenant, eventually};
use crate::support::{Docker, Package};
use serde_json::{Value, json};
use std::thread;

/// Room for two of the largest packages that are published at once, and one of a workspace.
const LEAST: &[&str] = &["--package-memory-mb", "272"];

/// A package of the largest size, whose hash is its own.
fn largest(name: &str) -> Package {
    of_size(name, (32 << 20) - (1 << 16))
}

fn of_size(name: &str, half: usize) -> Package {
    let half = vec![7; half];
    Package::new().file("resources/name", name).file("resources/a.bin", &half).file("resources/b.bin", &half)
}

fn publish(tenant: &Tenant, config: &Registered, zip: &[u8]) -> Answer {
    let (content_type, body) = form(&[("package", Some("package.zip"), zip)]);
    tenant.editor.post(tenant.path(&format!("/configs/{}/versions", config.config))).body(&content_type, body).send()
}

fn refused(answer: &Answer, scope: &str) {
    let problem = answer.problem(429, "packages_busy");
    assert_eq!((&problem["scope"], &problem["retry_after"]), (&json!(scope), &json!(10)));
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert!(problem["detail"].as_str().unwrap().contains("ADE_PACKAGE_MEMORY_MB"), "{problem}");
}

fn is_empty(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn many_large_packages_at_once_take_no_more_memory_than_there_is_for_them() {
    let server = Server::start(LEAST);
    let before = server.memory_kib("VmHWM");
    let tenants: Vec<Tenant> = (0..4).map(|_| server.tenant()).collect();
    let configs: Vec<Registered> = tenants.iter().map(|tenant| tenant.config(&Package::new())).collect();
    let answers: Vec<Answer> = thread::scope(|scope| {
        let sent: Vec<_> = (0..8)
            .map(|number| {
                let (tenant, config) = (&tenants[number % 4], &configs[number % 4]);
                scope.spawn(move || publish(tenant, config, &largest(&number.to_string()).zip()))
            })
            .collect();
        sent.into_iter().map(|sent| sent.join().unwrap()).collect()
    });
    let most = (server.memory_kib("VmHWM") - before) / 1024;
    let taken = answers.iter().filter(|answer| answer.status == 201).count();
    assert!(taken > 0, "some are published");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(429, "packages_busy");
    }
    // Without a bound, it is 130 MiB for each.
    assert!(most < 272 + 64, "{most} MiB for {taken} of 8 that were taken");
    // What was refused is welcome afterwards, and nothing is left of it.
    let later = largest("later").zip();
    for (tenant, config) in tenants.iter().zip(&configs) {
        publish(tenant, config, &later).expect(201);
    }
    eventually("nothing is left of them", || is_empty(&server.temporary()) && is_empty(&server.data().join("scratch")));
}

#[test]
fn a_workspace_that_holds_its_half_waits_for_itself_and_others_do_not() {
    // The one container is that of the dry run.
    let server = Server::start(&[LEAST, &["--pool-max", "0"]].concat());
    let (tenant, neighbour) = (server.tenant(), server.tenant());
    let (config, other) = (tenant.config(&Package::new()), neighbour.config(&Package::new()));
    let instance = server.status()["instance_id"].as_str().unwrap().to_owned();
    let draft = |tenant: &Tenant, config: &Registered| -> Value {
        let drafts = tenant.path(&format!("/configs/{}/drafts", config.config));
        tenant.editor.post(drafts).json(&json!({})).send().expect(201).json()
    };
    // More than what is left beside the largest.
    publish(&tenant, &config, &of_size("draft", 20 << 20).zip()).expect(201);
    let draft = draft(&tenant, &config);
    let drafted = tenant.path(&format!("/configs/{}/drafts/{}", config.config, draft["draft_id"].as_str().unwrap()));
    // It is held for as long as it is tried out.
    let slow = "import time\ntime.sleep(7.5)\ndef transform(values, **_):\n    return {'values': values}\n";
    let zip = largest("slow").column("a", slow).zip();
    let (content_type, body) = form(&[("package", Some("package.zip"), &zip)]);
    let (another, neighbours) = (of_size("another", 20 << 20).zip(), largest("neighbour").zip());
    thread::scope(|scope| {
        let validation = scope.spawn(|| {
            tenant.editor.post(tenant.path("/configs/validate")).body(&content_type, &body).send().expect(200).json()
        });
        eventually("it is tried out", || !Docker::connect().containers_of_instance(&instance).is_empty());
        // What is small goes on; not behind what waits, as who came first is served first.
        publish(&tenant, &config, &Package::new().file("resources/x", "x").zip()).expect(201);
        let busy: Vec<_> = [
            scope.spawn(|| publish(&tenant, &config, &another)),
            scope.spawn(|| tenant.editor.post(format!("{drafted}/publish")).json(&json!({})).send()),
        ]
        .into();
        // What is another workspace's goes on as well.
        let neighbours = scope.spawn(|| publish(&neighbour, &other, &neighbours));
        for refusal in busy {
            refused(&refusal.join().unwrap(), "workspace");
        }
        assert!(!validation.is_finished(), "they were refused before it ended");
        neighbours.join().unwrap().expect(201);
        assert_eq!(validation.join().unwrap()["dry_run"], true);
    });
    publish(&tenant, &config, &another).expect(201);
    let published = tenant.editor.post(format!("{drafted}/publish")).json(&json!({})).send().expect(201).json();
    let zip = tenant.viewer.get(format!("{drafted}/download")).send().expect(200);
    assert_eq!(json!(zip.body.len()), published["package_bytes"]);
    eventually("nothing is left of them", || is_empty(&server.data().join("scratch")));
}
