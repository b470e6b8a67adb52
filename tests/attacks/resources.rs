//! Attacks 25 to 33: memory, disk, inodes, descriptors, output, CPU.

use crate::support::{Package, Run, Upload, beside_neighbours, function, run};
use std::time::Duration;

/// Runs an attack in 128 MB, of which 64 MB are scratch space.
fn small(body: &str) -> Run {
    run(&Package::attacking(body), &[Upload::names()], &["--memory-mb", "128", "--timeout-ms", "30000"])
}

#[test]
fn a25_a_memory_hog_is_out_of_memory_and_no_neighbour_notices() {
    let (hog, _) = beside_neighbours(|| small("hoard = []\nwhile True: hoard.append(bytearray(4_000_000))"));
    hog.assert_failed("out_of_memory", &["128 MB", "memory_mb", "--memory-mb"]);
    assert!(hog.artifact.is_some(), "the supervisor lived and told");
}

#[test]
fn a25_memory_that_is_hidden_from_the_kernels_choice_is_out_of_memory_too() {
    for hide in [
        // Spread over processes, each smaller than the supervisor, none of them preferred any more.
        "def eat():\n    open('/proc/self/oom_score_adj', 'w').write('0')\n    b = bytearray(b'x') * 6_000_000\n    time.sleep(20)\nfor _ in range(60): forked(eat)\ntime.sleep(20)",
        // Owned by no process: a System V segment.
        "libc = ctypes.CDLL(None, use_errno=True)\nlibc.shmat.restype = ctypes.c_void_p\nfor _ in range(40):\n    at = libc.shmat(libc.shmget(0, 8 << 20, 0o1666), None, 0)\n    ctypes.memset(ctypes.c_void_p(at), 1, 8 << 20)\ntime.sleep(20)",
        // Files without a name.
        "for _ in range(40):\n    fd = os.memfd_create('x')\n    os.write(fd, b'x' * (8 << 20))\ntime.sleep(20)",
    ] {
        small(hide).assert_failed("out_of_memory", &["128 MB"]);
    }
}

#[test]
fn a25_a_script_that_kills_itself_is_not_out_of_memory() {
    small("os.kill(os.getpid(), 9)").assert_failed("script_error", &["signal 9"]);
    small("hoard = bytearray(30_000_000)\nhoard = None\nos.kill(os.getpid(), 9)").assert_failed("script_error", &["signal 9"]);
}

#[test]
fn a25_running_out_of_memory_in_a_worker_does_not_poison_the_job_after_it() {
    let package = Package::attacking("hoard = []\nwhile True: hoard.append(bytearray(4_000_000))")
        .hook("on_job_end", &function("say('kind', json.dumps(_.get('error') or {}).count('out_of_memory'))\nb = bytearray(20_000_000)\nprint('room again')"));
    let run = run(&package, &[Upload::names()], &["--memory-mb", "128"]);
    run.assert_failed("out_of_memory", &[]);
    assert!(run.log().contains(&"room again"), "{:?}", run.log());
}

#[test]
fn a26_a_full_scratch_space_is_a_disk_limit_and_not_out_of_memory() {
    let (full, _) = beside_neighbours(|| small("file = open('/job/tmp/x', 'wb')\nwhile True: file.write(b'x' * 1_000_000)"));
    full.assert_failed("disk_full", &["64 MB", "16,384 files", "memory_mb"]);
}

#[test]
fn a26_shared_memory_has_a_limit_of_its_own() {
    let run = small("file = open('/dev/shm/x', 'wb', 0)\ndef fill():\n    while True: file.write(b'x' * 1_000_000)\nattempt('shm', fill)\nsay('bytes', os.path.getsize('/dev/shm/x'))");
    run.assert_succeeded();
    assert_eq!(run.finding("shm"), "ENOSPC");
    assert!(run.finding("bytes").parse::<u64>().unwrap() <= 16 << 20);
}

#[test]
fn a26_a_scratch_space_filled_behind_the_runners_back_fails_the_job_and_still_reports() {
    let run = small("def fill():\n    file = open('/job/tmp/x', 'wb', 0)\n    while True: file.write(b'x' * 100_000)\ntry: fill()\nexcept OSError: pass");
    run.assert_failed("disk_full", &["64 MB"]);
    assert!(run.artifact.is_some());
}

#[test]
fn a27_a_flood_of_files_is_a_disk_limit() {
    let run = small("for number in range(100_000): open(f'/job/tmp/{number}', 'w').close()");
    run.assert_failed("disk_full", &["16,384 files", "memory_mb"]);
}

#[test]
fn a28_nothing_outside_the_scratch_space_can_be_written() {
    let run = small(
        r#"
        writable = set()
        for folder, names, _files in os.walk('/'):
            if folder == '/':
                names.remove('proc')
            if os.access(folder, os.W_OK):
                writable.add(folder)
                names.clear()
        say('writable', sorted(writable))
        for name in ('/x', '/usr/x', '/etc/x', '/opt/ade/x', '/opt/ade/ade_runner/x', '/dev/x', '/sys/fs/cgroup/x', '/proc/x', '/var/x'):
            attempt('create ' + name, lambda: open(name, 'w'))
        attempt('execute', lambda: (open('/job/tmp/x', 'wb').write(open(sys.executable, 'rb').read()), os.chmod('/job/tmp/x', 0o755), os.execv('/job/tmp/x', ['x'])))
        attempt('execute shm', lambda: (open('/dev/shm/x', 'wb').write(open('/usr/bin/python3.11', 'rb').read(1000)), os.chmod('/dev/shm/x', 0o755), os.execv('/dev/shm/x', ['x'])))
        "#,
    );
    run.assert_succeeded();
    assert_eq!(run.finding("writable"), "['/dev/mqueue', '/dev/shm', '/job']");
    for (name, value) in run.findings() {
        if name != "writable" {
            assert!(matches!(value, "EROFS" | "EACCES" | "ENOENT" | "EPERM"), "{name}: {value}");
        }
    }
}

#[test]
fn a29_files_larger_than_the_scratch_space_cannot_be_made() {
    let run = small(
        r#"
        fd = os.open('/job/tmp/x', os.O_CREAT | os.O_RDWR)
        attempt('fallocate', lambda: os.posix_fallocate(fd, 0, 10 << 30))
        attempt('fallocate within', lambda: os.posix_fallocate(fd, 0, 63 << 20) or os.posix_fallocate(os.open('/job/tmp/y', os.O_CREAT | os.O_RDWR), 0, 63 << 20))
        attempt('sparse', lambda: os.ftruncate(fd, 1 << 40))
        attempt('far write', lambda: os.pwrite(fd, b'x', 1 << 40))
        "#,
    );
    assert!(matches!(run.finding("fallocate"), "EFBIG" | "ENOSPC"));
    assert_eq!(run.finding("fallocate within"), "ENOSPC");
    assert_eq!((run.finding("sparse"), run.finding("far write")), ("EFBIG", "EFBIG"));
}

#[test]
fn a30_nothing_of_an_earlier_job_is_left_for_the_next() {
    let plant = small(
        r#"
        for folder in ('/job', '/job/tmp', '/job/out', '/tmp', '/dev/shm', '/dev/mqueue'):
            try: open(folder + '/residue', 'w').write('secret')
            except OSError as fault: say('planted', fault)
        libc = ctypes.CDLL(None)
        libc.shmget(4242, 4096, 0o1666); libc.semget(4242, 1, 0o1666); libc.msgget(4242, 0o1666)
        forked(lambda: (os.setsid(), time.sleep(1000)))
        "#,
    );
    plant.assert_succeeded();
    let look = small(
        r#"
        for folder in ('/job', '/job/tmp', '/job/out', '/tmp', '/dev/shm', '/dev/mqueue'):
            say('in ' + folder, [name for name in os.listdir(folder) if 'residue' in name])
        libc = ctypes.CDLL(None)
        say('segments', [libc.shmget(4242, 0, 0), libc.semget(4242, 0, 0), libc.msgget(4242, 0)])
        say('processes', sum(1 for name in os.listdir('/proc') if name.isdigit()))
        "#,
    );
    look.assert_succeeded();
    for (name, value) in look.findings() {
        match name {
            "segments" => assert_eq!(value, "[-1, -1, -1]"),
            "processes" => assert_eq!(value, "2"),
            _ => assert_eq!(value, "[]", "{name}"),
        }
    }
}

#[test]
fn a31_a_flood_of_output_is_cut_with_a_marker_and_a_tail() {
    for (what, body) in [
        ("raw", "block = b'y\\n' * 30_000\nend = time.monotonic() + 2\nwhile time.monotonic() < end: os.write(1, block)\nos.write(1, b'the last line\\n')"),
        ("printed", "for number in range(60_000): print('y', number)\nprint('the last line')"),
        ("stderr", "for number in range(60_000): print('y', number, file=sys.stderr)\nprint('the last line', file=sys.stderr)"),
    ] {
        let (flood, _) = beside_neighbours(|| small(body));
        flood.assert_succeeded();
        assert_eq!(flood.events_named("truncated").len(), 1, "{what}: one marker");
        let dropped = flood.events_named("truncated")[0]["lines"].as_u64().unwrap();
        assert!(dropped > 1000, "{what}: {dropped}");
        assert!(flood.log().len() < 6000, "{what}: {} lines were kept", flood.log().len());
        assert!(flood.log().contains(&"the last line"), "{what}: the tail is kept");
        assert!(flood.out.join("events.ndjson").metadata().unwrap().len() < 4 << 20, "{what}");
        assert!(flood.engine_peak_kib < 150 * 1024, "{what}: the engine used {} KiB", flood.engine_peak_kib);
    }
}

#[test]
fn a32_descriptors_and_core_dumps_are_bounded() {
    let run = small(
        r#"
        import resource
        def exhaust():
            while True: os.dup(0)
        attempt('descriptors', exhaust)
        os.closerange(10, 200)
        say('limit', resource.getrlimit(resource.RLIMIT_NOFILE))
        say('core', resource.getrlimit(resource.RLIMIT_CORE))
        def raised(): resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
        attempt('raise', raised)
        os.closerange(201, 1024)
        "#,
    );
    run.assert_succeeded();
    assert_eq!((run.finding("descriptors"), run.finding("limit")), ("EMFILE", "(1024, 1024)"));
    assert_eq!((run.finding("core"), run.finding("raise")), ("(0, 0)", "ValueError"));
    let dumped = run_dump();
    dumped.assert_failed("script_error", &["signal 6", "SIGABRT"]);
}

fn run_dump() -> Run {
    let package = Package::attacking("os.chdir('/job/out')\nos.abort()").hook("on_job_end", &function("say('cores', [name for _, _, names in os.walk('/job') for name in names if 'core' in name])"));
    let run = run(&package, &[Upload::names()], &["--memory-mb", "128"]);
    assert_eq!(run.finding("cores"), "[]");
    run
}

#[test]
fn a33_a_cpu_hog_gets_its_share_and_its_limit_and_a_neighbour_keeps_its_own() {
    let quiet = run(&Package::attacking("began = time.monotonic()\nsum(range(2_000_000))\nsay('work_ms', int((time.monotonic() - began) * 1000))"), &[Upload::names()], &["--memory-mb", "128"]);
    let (hog, neighbours) = beside_neighbours(|| {
        run(
            &Package::attacking("def burn():\n    while True: pass\nfor _ in range(16): forked(burn)\nburn()"),
            &[Upload::names()],
            &["--worker-cpu-seconds", "4", "--timeout-ms", "60000"],
        )
    });
    hog.assert_failed("cpu_limit", &["4 s", "ADE_WORKER_CPU_SECONDS"]);
    assert!(hog.elapsed > Duration::from_millis(3500), "sixteen processes share one CPU: {:?}", hog.elapsed);
    let alone: u64 = quiet.finding("work_ms").parse().unwrap();
    for neighbour in neighbours {
        let beside: u64 = neighbour.finding("work_ms").parse().unwrap();
        // Other tests run at the same time on the same CPUs; the bound tells starvation from a share.
        assert!(beside < alone * 8 + 1500, "{beside} ms beside the hog, {alone} ms alone");
    }
}
