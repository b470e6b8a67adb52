//! Two installations on one Docker Engine, and what the reaper takes.

use crate::api::eventually;
use crate::site::Site;
use crate::support::{Docker, Package, Running, Upload, World, image_id};
use crate::truth::{Must, assert_at_rest, assert_job};

const PAST: &str = "2025-01-01T00:00:00Z";
const FUTURE: &str = "2999-01-01T00:00:00Z";

#[test]
fn two_instances_on_one_docker_leave_each_other_alone() {
    let (one, other) = (Site::new(&["--max-concurrency", "1"]), Site::new(&["--max-concurrency", "1"]));
    let (a, b) = (one.start().ready(), other.start().ready());
    let (on_a, on_b) = (a.config("default"), b.config("default"));
    let job = a.submit(&on_a, "sleep 4");
    a.running(&job);
    let before = one.containers();
    assert_eq!(before.len(), 1);
    // B is killed in the middle of a job and starts again, which is when it reaps.
    let lost = b.submit(&on_b, "sleep 1");
    b.running(&lost);
    b.kill();
    let b = other.start().ready();
    assert_eq!(one.containers(), before);
    assert_eq!(assert_job(&b, &lost, Must::Succeed)["execution"], 2);
    assert_eq!(assert_job(&a, &job, Must::Succeed)["execution"], 1);
    assert_at_rest(&one);
    assert_at_rest(&other);
    b.stop();
    a.stop();
}

#[test]
fn a_start_reaps_what_is_its_own_and_nothing_else() {
    let site = Site::new(&[]);
    site.start().ready().stop();
    let (instance, node) = (site.instance(), site.node_id());
    let (docker, image) = (Docker::connect(), image_id());
    let plant = |name: &str, instance: &str, node: Option<&str>, deadline: &str| {
        let name = format!("ade-recovery-{}-{name}", std::process::id());
        let mut labels = vec![("dev.ade.instance", instance), ("dev.ade.deadline", deadline)];
        labels.extend(node.map(|node| ("dev.ade.node", node)));
        docker.create_ended(&name, &image, &labels);
        Planted(name)
    };
    let own = plant("own", &instance, Some(&node), FUTURE);
    let late = plant("late", &instance, Some("node_of_another"), PAST);
    let of_another_node = plant("other-node", &instance, Some("node_of_another"), FUTURE);
    let of_another_instance = plant("other-instance", "inst_other", Some(&node), PAST);
    let bystander = Planted(format!("ade-recovery-{}-bystander", std::process::id()));
    docker.create_ended(&bystander.0, &image, &[]);
    let world = World::new(&Package::attacking("import time\ntime.sleep(4)"), &[Upload::names()]);
    let run = Running::start(world, &[], |_| {});

    let running = site.start().ready();
    eventually("its own leftovers are gone", 10, || {
        docker.inspect(&own.0).is_none() && docker.inspect(&late.0).is_none()
    });
    for kept in [&of_another_node, &of_another_instance, &bystander] {
        assert!(docker.inspect(&kept.0).is_some(), "{}", kept.0);
    }
    run.wait().assert_succeeded();
    running.stop();
}

/// A container that a test made; removed when it is dropped.
struct Planted(String);

impl Drop for Planted {
    fn drop(&mut self) {
        let name = self.0.clone();
        std::thread::spawn(move || Docker::connect().remove(&name)).join().ok();
    }
}
