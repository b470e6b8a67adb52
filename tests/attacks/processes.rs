//! Attacks 15 to 24: processes that multiply, hide, refuse to end, or end too early.

use crate::support::{Package, Run, Upload, beside_neighbours, function, run};
use std::time::Duration;

/// Runs an attack under a wall-clock limit of three seconds.
fn bounded(body: &str) -> Run {
    run(&Package::attacking(body), &[Upload::names()], &["--timeout-ms", "3000", "--memory-mb", "256"])
}

#[track_caller]
fn assert_timeout(run: &Run) {
    run.assert_failed("timeout", &["3000 ms", "timeout_ms", "--timeout-ms"]);
    assert!(run.elapsed < Duration::from_secs(25), "the job ended only after {:?}", run.elapsed);
    assert_eq!(run.events_named("worker.timeout").len(), 1);
}

#[test]
fn a15_a_fork_bomb_meets_the_process_limit_and_no_neighbour_notices() {
    let (bomb, neighbours) = beside_neighbours(|| {
        bounded(
            r#"
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
            "#,
        )
    });
    // A copy of the runner may reach its end or the wall clock; in no case is the job a success or the host disturbed.
    assert!(matches!(bomb.kind(), "timeout" | "cpu_limit" | "out_of_memory"), "{} {}", bomb.kind(), bomb.message());
    assert!(bomb.elapsed < Duration::from_secs(30), "{:?}", bomb.elapsed);
    assert!(!neighbours.is_empty());
}

#[test]
fn a15_the_process_limit_is_the_one_that_was_set() {
    let run = run(
        &Package::attacking(
            r#"
            count = 0
            try:
                while True:
                    if os.fork() == 0:
                        time.sleep(60); os._exit(0)
                    count += 1
            except OSError as fault:
                say('stopped by', errno.errorcode[fault.errno])
            say('forked', count)
            "#,
        ),
        &[Upload::names()],
        &["--worker-pids", "32"],
    );
    run.assert_succeeded();
    assert_eq!(run.finding("stopped by"), "EAGAIN");
    let forked: u32 = run.finding("forked").parse().unwrap();
    assert!((20..32).contains(&forked), "{forked}");
}

#[test]
fn a16_signals_that_are_ignored_do_not_keep_a_job_alive() {
    assert_timeout(&bounded(
        r#"
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            time.sleep(1000)
        "#,
    ));
}

#[test]
fn a17_a_daemon_that_left_its_session_dies_with_the_job() {
    let run = bounded(
        r#"
        import signal
        def daemon():
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                for fd in range(256):
                    try: os.close(fd)
                    except OSError: pass
                while True: time.sleep(1000)
        for _ in range(20): forked(daemon)
        time.sleep(0.3)
        "#,
    );
    run.assert_succeeded();
}

#[test]
fn a17_survivors_of_one_hook_are_gone_before_the_last_one_runs_alone() {
    // After a timeout `on_job_end` runs in a fresh process, and sees nothing but the supervisor and itself.
    let package = Package::attacking("for _ in range(10): forked(lambda: (os.setsid(), time.sleep(1000)))\ntime.sleep(1000)")
        .hook("on_job_end", &function("say('processes', sorted(int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()))"));
    let run = run(&package, &[Upload::names()], &["--timeout-ms", "2000"]);
    run.assert_failed("timeout", &["2000 ms"]);
    assert_eq!(run.finding("processes"), "[1]");
}

#[test]
fn a18_a_job_that_stops_itself_is_ended_by_the_hosts_clock() {
    assert_timeout(&bounded("import signal\nos.kill(os.getpid(), signal.SIGSTOP)"));
}

#[test]
fn a18_processes_that_stop_each_other_are_ended_too() {
    assert_timeout(&bounded(
        "import signal\nchild = forked(lambda: time.sleep(1000))\nos.kill(child, signal.SIGSTOP)\nforked(lambda: os.kill(os.getppid(), signal.SIGSTOP))\ntime.sleep(1000)",
    ));
}

#[test]
fn a19_a_timeout_leaves_an_artifact_and_nothing_else() {
    let run = bounded("time.sleep(1000)");
    assert_timeout(&run);
    let artifact = run.artifact.as_ref().unwrap();
    assert_eq!((artifact["job"]["status"].as_str(), run.code), (Some("failed"), Some(1)));
    assert!(!run.out.join("normalized.xlsx").exists());
}

#[test]
fn a19_the_last_hook_has_a_budget_of_its_own_and_no_more() {
    let package = Package::new().hook(
        "on_job_end",
        &function("import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(1)"),
    );
    let run = run(&package, &[Upload::names()], &["--timeout-ms", "5000"]);
    // The work was done in time: a hook that hangs behind it is recorded and changes nothing.
    run.assert_succeeded();
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
    assert!(
        run.events_named("hook.exit")
            .iter()
            .any(|detail| detail["stage"] == "on_job_end" && detail["error"] == "timeout")
    );
}

#[test]
fn a20_sleeping_under_the_cpu_limit_does_not_evade_the_wall_clock() {
    let package = Package::attacking("while True: time.sleep(0.01)");
    let run = run(&package, &[Upload::names()], &["--timeout-ms", "3000", "--worker-cpu-seconds", "60"]);
    assert_timeout(&run);
}

#[test]
fn a21_a_background_process_that_holds_the_output_open_does_not_hold_the_job() {
    let run = run(
        &Package::attacking(
            "import subprocess\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\nprint('started')",
        ),
        &[Upload::names()],
        &["--timeout-ms", "60000"],
    );
    run.assert_succeeded();
    assert!(run.elapsed < Duration::from_secs(30), "{:?}", run.elapsed);
    assert!(run.log().contains(&"started"));
}

#[test]
fn a22_no_output_is_lost_however_fast_a_job_ends() {
    const LINES: usize = 600;
    let print = format!("os.write(1, b''.join(b'line %d\\n' % number for number in range({LINES})))");
    let orderly = Package::attacking(&print);
    let abrupt = Package::attacking(&format!("{print}\nos._exit(0)"));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (orderly, abrupt) = (&orderly, &abrupt);
            scope.spawn(move || {
                for turn in 0..10 {
                    let (package, status) = if turn % 2 == 0 { (orderly, "succeeded") } else { (abrupt, "failed") };
                    let run = run(package, &[Upload::names()], &["--memory-mb", "128"]);
                    assert_eq!(run.status(), status, "run {turn} of worker {worker}: {}", run.stdout);
                    let lines: Vec<&str> = run.log().into_iter().filter(|line| line.starts_with("line ")).collect();
                    assert_eq!(lines.len(), LINES, "run {turn} of worker {worker}");
                    assert!(
                        lines.iter().enumerate().all(|(number, line)| *line == format!("line {number}")),
                        "in order"
                    );
                }
            });
        }
    });
}

#[test]
fn a23_a_process_that_ends_early_is_never_a_success() {
    for (end, kind) in [
        ("os._exit(0)", "script_error"),
        ("os._exit(70)", "runner_crashed"),
        ("os.kill(os.getpid(), 9)", "script_error"),
        ("os.execv(sys.executable, [sys.executable, '-c', 'pass'])", "script_error"),
        ("ctypes.string_at(0)", "script_error"),
        ("sys.exit(0)", "hook_failed"),
        ("raise KeyboardInterrupt", "hook_failed"),
    ] {
        let run = bounded(end);
        run.assert_failed(kind, &[]);
        assert_eq!((run.status(), run.code), ("failed", Some(1)), "{end}");
    }
}

#[test]
fn a23_outputs_that_were_deleted_fail_the_job() {
    let package = Package::new().hook("on_job_end", &function("os.remove('/job/out/normalized.xlsx')"));
    run(&package, &[Upload::names()], &[]).assert_failed("output_invalid", &["normalized.xlsx", "missing"]);
    let all = Package::new().hook("on_job_end", &function("import shutil\nshutil.rmtree('/job/out')\nos._exit(0)"));
    run(&all, &[Upload::names()], &[]).assert_failed("output_invalid", &["/job/out"]);
}

#[test]
fn a24_killing_every_process_kills_only_the_job_itself() {
    // The kernel spares the caller and PID 1; a worker takes the job's process down with it.
    let run =
        bounded("child = forked(lambda: time.sleep(1000))\nos.kill(-1, 9)\nsay('worker', os.waitpid(child, 0)[1])");
    assert_eq!(run.assert_succeeded().finding("worker"), "9");
    let run = bounded("forked(lambda: os.kill(-1, 9))\ntime.sleep(1000)");
    run.assert_failed("script_error", &["signal 9"]);
    assert!(run.artifact.is_some(), "the supervisor lived and told");
}

#[test]
fn a24_signals_to_the_supervisor_do_nothing() {
    let run = bounded(
        r#"
        for number in (2, 15, 1, 10, 12, 17, 3, 13, 14, 19, 20, 9, 11, 34):
            attempt(f'signal {number}', lambda: os.kill(1, number))
            attempt(f'thread signal {number}', lambda: ctypes.CDLL(None).tgkill(1, 1, number))
        time.sleep(0.5)
        "#,
    );
    run.assert_succeeded();
}

#[test]
fn a24_the_supervisors_memory_and_secrets_are_out_of_reach() {
    let run = bounded(
        r#"
        for name in ('fd', 'map_files', 'task/1/fd'):
            attempt(name, lambda: os.listdir(f'/proc/1/{name}'))
        for name in ('environ', 'mem', 'auxv', 'maps', 'stack', 'syscall', 'io', 'personality', 'pagemap', 'smaps'):
            attempt(name, lambda: open(f'/proc/1/{name}', 'rb').read(1))
        for name in ('oom_score_adj', 'coredump_filter', 'comm', 'timerslack_ns', 'clear_refs', 'mem'):
            attempt('write ' + name, lambda: os.write(os.open(f'/proc/1/{name}', os.O_WRONLY), b'1'))
        for name in ('cwd', 'root', 'exe', 'ns/mnt'):
            attempt(name, lambda: os.readlink(f'/proc/1/{name}'))
        libc = ctypes.CDLL(None, use_errno=True)
        def traced():
            if libc.ptrace(16, 1, 0, 0) != 0: raise OSError(ctypes.get_errno(), 'ptrace')
        attempt('ptrace', traced)
        attempt('priority', lambda: os.setpriority(os.PRIO_PROCESS, 1, -5))
        attempt('affinity', lambda: os.sched_setscheduler(1, os.SCHED_FIFO, os.sched_param(1)))
        "#,
    );
    run.assert_succeeded();
    for (name, value) in run.findings() {
        assert!(matches!(value, "EACCES" | "EPERM" | "ENOENT" | "ENOSYS"), "{name}: {value}");
    }
    assert_eq!(run.findings().len(), 26, "every probe reported");
}
