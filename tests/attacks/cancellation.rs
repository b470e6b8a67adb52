//! A caller who goes away: interrupts at every moment, an engine that is killed, and what the next run clears up.

use crate::support::{Docker, Package, Run, Upload, World, function, run, start};
use std::time::{Duration, Instant};

fn patient() -> Package {
    Package::attacking("print('begun')\ntime.sleep(30)")
}

#[track_caller]
fn assert_interrupted(run: &Run, when: &str) {
    // Before the handler is in place the signal itself ends the program, which a shell also shows as 130.
    assert!(run.code == Some(130) || run.signal == Some(2), "{when}: {:?} {:?} {} {}", run.code, run.signal, run.stdout, run.stderr);
    assert!(!run.out.join("normalized.xlsx").exists(), "{when}");
    if run.json.is_object() {
        assert_eq!(run.kind(), "cancelled", "{when}: {}", run.stdout);
    }
}

#[test]
fn a19_an_interrupt_at_any_moment_leaves_no_container_and_no_half_written_file() {
    std::thread::scope(|scope| {
        let moments = [0, 20, 60, 120, 200, 300, 450, 700, 1100, 1600, 2500];
        for lane in 0..2 {
            scope.spawn(move || {
                for after in moments.iter().skip(lane).step_by(2) {
                    let running = start(&patient(), &[Upload::names()], &[]);
                    std::thread::sleep(Duration::from_millis(*after));
                    running.signal("INT");
                    let run = running.wait();
                    assert_interrupted(&run, &format!("after {after} ms"));
                    assert!(run.elapsed < Duration::from_secs(20), "after {after} ms: {:?}", run.elapsed);
                }
            });
        }
    });
}

#[test]
fn a19_a_cancelled_job_still_runs_its_last_hook_and_keeps_its_artifact() {
    let package = patient().hook("on_job_end", &function("say('told', (_.get('error') or {}).get('kind'))"));
    let running = start(&package, &[Upload::names()], &[]);
    running.container();
    std::thread::sleep(Duration::from_millis(1500));
    running.signal("TERM");
    let run = running.wait();
    assert_interrupted(&run, "while a script ran");
    assert_eq!(run.finding("told"), "cancelled");
    assert_eq!(run.artifact.as_ref().unwrap()["job"]["status"], "cancelled");
    assert_eq!(run.events_named("cancel").len(), 1);
}

#[test]
fn a19_a_second_interrupt_does_not_skip_the_removal() {
    let running = start(&patient(), &[Upload::names()], &[]);
    running.container();
    for _ in 0..5 {
        running.signal("INT");
        std::thread::sleep(Duration::from_millis(30));
    }
    assert_interrupted(&running.wait(), "five times");
}

#[test]
fn a17_a_killed_engine_leaves_no_running_container() {
    let docker = Docker::connect();
    // A script that ignores everything does not keep its container alive either.
    let package = Package::attacking("import signal\nfor number in range(1, 32):\n    try: signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nfor _ in range(5): forked(lambda: (os.setsid(), time.sleep(1000)))\ntime.sleep(1000)");
    let running = start(&package, &[Upload::names()], &[]);
    let container = running.container();
    std::thread::sleep(Duration::from_millis(800));
    running.signal("KILL");
    let killed = Instant::now();
    while docker.is_running(&container) {
        assert!(killed.elapsed() < Duration::from_secs(5), "the container outlives its engine");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The world removes it by its job id, as the next run after its deadline would.
    let run = running.wait_unchecked();
    assert_eq!(run.signal, Some(9));
    assert!(docker.inspect(&container).is_some(), "nobody was there to remove it");
    assert!(!run.out.join("normalized.xlsx").exists() && !run.out.join("artifact.json").exists());
}

/// Containers that a test made itself, removed again in any case.
struct Crafted<'a>(&'a Docker, Vec<String>);

impl Drop for Crafted<'_> {
    fn drop(&mut self) {
        for name in &self.1 {
            self.0.remove(name);
        }
    }
}

#[test]
fn a17_the_next_run_removes_what_a_killed_one_left_and_nothing_else() {
    let docker = Docker::connect();
    let first = run(&Package::new(), &[Upload::names()], &[]);
    let image = first.assert_succeeded().artifact.as_ref().unwrap()["runtime"]["image_digest"].as_str().unwrap().to_owned();
    let mark = format!("ade-test-{}", std::process::id());
    let (past, future) = ("2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z");
    let cases = [
        ("past", vec![("dev.ade.instance", "cli"), ("dev.ade.job", "job_test"), ("dev.ade.deadline", past)], false),
        ("future", vec![("dev.ade.instance", "cli"), ("dev.ade.job", "job_test"), ("dev.ade.deadline", future)], true),
        ("other", vec![("dev.ade.instance", "somebody-else"), ("dev.ade.job", "job_test"), ("dev.ade.deadline", past)], true),
        ("foreign", vec![("com.example.deadline", past)], true),
    ];
    let crafted = Crafted(&docker, cases.iter().map(|(name, ..)| format!("{mark}-{name}")).collect());
    for (name, labels, _) in &cases {
        docker.create_ended(&format!("{mark}-{name}"), &image, labels);
    }
    run(&Package::new(), &[Upload::names()], &[]).assert_succeeded();
    for (name, _, survives) in &cases {
        assert_eq!(docker.inspect(&format!("{mark}-{name}")).is_some(), *survives, "{name}");
    }
    drop(crafted);
}

#[test]
fn a19_an_output_folder_of_an_earlier_job_is_replaced_whole_or_not_at_all() {
    let world = World::new(&patient(), &[Upload::names()]);
    std::fs::create_dir(world.out()).unwrap();
    for name in ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json"] {
        std::fs::write(world.out().join(name), format!("earlier {name}")).unwrap();
    }
    let running = crate::support::Running::start(world, &[], |_| {});
    std::thread::sleep(Duration::from_millis(150));
    running.signal("KILL");
    let run = running.wait_unchecked();
    for name in ["normalized.xlsx", "artifact.json", "events.ndjson", "run-request.json"] {
        assert_eq!(std::fs::read_to_string(run.out.join(name)).unwrap(), format!("earlier {name}"));
    }
}
