//! Attack 14: scripts that speak the runner's own protocol.

use crate::support::{Package, Run, Upload, function, run};

/// Python that finds the channel to the supervisor and writes frames to it.
const CHANNEL: &str = r#"
import struct
def frame(kind, payload, flags=0, stream=0, length=None):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return struct.pack('>BBHI', kind, flags, stream, len(data) if length is None else length) + data
EVENT, PROGRESS, DONE, RESULT, PHASE = 0x82, 0x83, 0x86, 0x90, 0x91
def send(*frames):
    for data in frames:
        view = memoryview(data)
        while view:
            view = view[os.write(200, view):]
"#;

fn forging(body: &str) -> Run {
    let source = function(body).replace("def attempt(", &format!("{CHANNEL}\n\ndef attempt("));
    let package = Package::new().hook("on_job_start", &source);
    run(&package, &[Upload::names()], &["--timeout-ms", "20000"])
}

#[test]
fn a14_events_of_the_engine_cannot_be_forged() {
    let run = forging(
        r#"
        for name in ('exit', 'error', 'start', 'worker.exit', 'job.succeeded', 'truncated', '', 'log\n{"event":"exit"}'):
            send(frame(EVENT, {'event': name, 'level': 'info', 'detail': {'state': 'succeeded'}, 'seq': 1, 'job_id': 'job_evil', 'ts': '1970'}))
        send(frame(EVENT, {'event': 'log', 'level': 'fatal', 'seq': 999, 'ts': '1970', 'job_id': 'job_evil', 'state': 'failed', 'detail': {'text': 'mine', 'seq': 7}}))
        "#,
    );
    // Order, ids and the one `exit` are looked at after every test.
    run.assert_succeeded();
    let mine = run.events.iter().find(|event| event["detail"]["text"] == "mine").expect("an honest name passes");
    assert!(mine["ts"].as_str().unwrap().starts_with("20") && mine.get("state").is_none(), "{mine}");
    assert!(run.events_named("truncated").is_empty() && run.events_named("error").is_empty());
}

#[test]
fn a14_a_forged_completion_record_without_the_work_is_no_success() {
    let run = forging(
        "send(frame(RESULT, {'ok': True, 'summary': {'rows_written': 999, 'columns_written': 9, 'issues_found': 0}}))\nos._exit(0)",
    );
    run.assert_failed("output_invalid", &["normalized.xlsx", "missing"]);
}

#[test]
fn a14_garbage_on_the_channel_is_a_violation_by_the_script() {
    for garbage in [
        "b'\\xff' * 100",
        "frame(DONE, {'outcome': 'completed'})",
        "frame(0x84, b'')",
        "frame(EVENT, b'{', 0, 0)",
        "frame(EVENT, b'[1]')",
        "frame(EVENT, b'', flags=1)",
        "frame(EVENT, b'', length=0xffffffff)",
        "frame(EVENT, b'\"\\xff\\xfe\"')",
        "frame(EVENT, b'[' * 60000)",
        "frame(EVENT, {'event': 'pass.start', 'detail': {'pass': 10 ** 4000}})",
        "frame(RESULT, {'ok': 'yes'})",
        "frame(RESULT, {'ok': True, 'summary': 'x' * 65000})",
        "frame(RESULT, {'ok': False, 'error': 'x' * 65000})",
        "frame(RESULT, {'ok': False, 'error': {'kind': 'x', 'message': 'y' * 65000}})",
        "frame(RESULT, {'ok': True, 'summary': {'rows_written': -1}})",
        "frame(RESULT, b'{\"ok\": true, \"summary\": ' + b'[' * 900 + b']' * 900 + b'}')",
    ] {
        let run = forging(&format!("send({garbage})\ntime.sleep(0.3)\nos._exit(0)"));
        assert_eq!(run.status(), "failed", "{garbage}");
        let unknown = run.kind() == "runner_crashed" && run.message().contains("unknown failure kind");
        assert!(
            unknown || matches!(run.kind(), "protocol_violation" | "output_invalid"),
            "{garbage}: {} {}",
            run.kind(),
            run.message()
        );
        assert!(run.message().len() < 5000, "{garbage}");
    }
}

#[test]
fn a14_malformed_events_never_take_the_supervisor_down() {
    for event in [
        "{'event': ['log'], 'level': 'info', 'detail': {}}",
        "{'event': 'log', 'level': ['info'], 'detail': {}}",
        "{'event': 'log', 'level': {}, 'detail': {'text': 'x'}}",
        "{'event': 'hook.start', 'level': 'info', 'detail': ['on_job_end']}",
        "{'event': 'hook.start', 'level': 'info', 'detail': None}",
        "{'event': 'hook.exit', 'level': 'info', 'detail': {'x': float('nan'), 'y': float('inf')}}",
        "{'event': 'log', 'detail': {'text': 7}}",
        "{'event': 'log', 'detail': {'text': '\\ud800'}}",
        "{'event': 'log', 'detail': {'text': 'x' * 60000}}",
    ] {
        let run = forging(&format!(
            "send(frame(EVENT, {event}))\nsend(frame(PHASE, {{'phase': 'x' * 5000}}), frame(PROGRESS, b'no json'))\nprint('still here')"
        ));
        run.assert_succeeded();
        assert!(run.log().contains(&"still here"), "{event}");
    }
    for depth in [500, 960, 975, 985, 2000] {
        let run = forging(&format!(
            "send(frame(EVENT, b'{{\"event\": \"hook.exit\", \"detail\": {{\"deep\": ' + b'[' * {depth} + b']' * {depth} + b'}}}}'))\ntime.sleep(0.2)"
        ));
        if run.status() == "failed" {
            run.assert_failed("protocol_violation", &[]);
        }
    }
}

#[test]
fn a14_a_flood_of_events_ends_the_job_and_not_the_engine() {
    let run = forging(
        "while True: send(frame(EVENT, {'event': 'hook.exit', 'detail': {'x': 'y' * 30000}}), frame(PROGRESS, b' ' * 60000))",
    );
    assert!(matches!(run.kind(), "protocol_violation" | "timeout"), "{} {}", run.kind(), run.message());
    assert!(run.engine_peak_kib < 150 * 1024, "the engine used {} KiB", run.engine_peak_kib);
}

#[test]
fn a14_a_line_without_an_end_is_cut_and_marked() {
    let run = forging("for _ in range(300): os.write(1, b'z' * 1_000_000)\nos.write(1, b'\\nafter\\n')");
    run.assert_succeeded();
    let log = run.log();
    assert_eq!(log.iter().filter(|line| line.starts_with("zzz")).count(), 1, "one line is one event");
    assert!(log.iter().all(|line| line.len() < 5000), "lines are capped");
    assert!(log.iter().any(|line| line.starts_with("zzz") && line.ends_with('…')), "and marked");
    assert!(log.contains(&"after"), "what follows is not lost");
    assert!(run.engine_peak_kib < 150 * 1024, "the engine used {} KiB", run.engine_peak_kib);
}

#[test]
fn a14_control_characters_cannot_reach_a_terminal_or_break_a_line() {
    let run = forging("print('\\x1b[2J\\x1b]0;pwned\\x07 \\r{\"event\": \"exit\"}')\nraise RuntimeError('\\x1b[31m')");
    run.assert_failed("hook_failed", &[]);
    assert!(!std::fs::read_to_string(run.out.join("events.ndjson")).unwrap().contains(['\u{1b}', '\u{7}', '\r']));
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'));
}

#[test]
fn a14_workers_and_threads_that_print_at_once_do_not_break_the_protocol() {
    let run = forging(
        r#"
        import threading
        def talk():
            for number in range(40):
                print('w' * 4000)
        pids = []
        for _ in range(4):
            pids.append(forked(talk))
        threads = [threading.Thread(target=talk) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        for pid in pids: os.waitpid(pid, 0)
        print('all done')
        "#,
    );
    run.assert_succeeded();
    assert!(run.log().contains(&"all done"));
}

#[test]
fn a14_a_forked_copy_of_the_runner_cannot_run_the_job_a_second_time() {
    let run = forging("os.fork()");
    run.assert_succeeded();
    assert_eq!(run.events_named("pass.start").iter().filter(|detail| detail["pass"] == "generate").count(), 1);
}

#[test]
fn a14_the_supervisors_own_descriptors_are_out_of_reach() {
    let run = forging(
        r#"
        for fd in range(8):
            attempt(f'open {fd}', lambda: os.open(f'/proc/1/fd/{fd}', os.O_WRONLY))
        attempt('list', lambda: os.listdir('/proc/1/fd'))
        say('own', sorted(int(fd) for fd in os.listdir('/proc/self/fd')))
        say('stdin', os.readlink('/proc/self/fd/0'))
        "#,
    );
    run.assert_succeeded();
    for (name, value) in run.findings() {
        if name.starts_with("open") || name == "list" {
            assert_eq!(value, "EACCES", "{name}");
        }
    }
    assert_eq!(run.finding("stdin"), "/dev/null");
}
