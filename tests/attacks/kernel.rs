//! Attacks 35 to 39 and 41 to 43: the kernel's surface.

use crate::support::{Package, Run, Upload, function, run};

fn probe(body: &str) -> Run {
    let run = run(&Package::attacking(body), &[Upload::names()], &["--memory-mb", "128"]);
    run.assert_succeeded();
    run
}

/// Runs the table of raw system calls once; each test looks at its own rows.
fn system_calls() -> Run {
    let source = function("").split("def run(").next().unwrap().to_owned() + include_str!("syscalls.py");
    let run = run(&Package::new().hook("on_job_start", &source), &[Upload::names()], &["--memory-mb", "128"]);
    run.assert_succeeded();
    run
}

#[test]
fn a35_a_job_has_no_capability_and_can_gain_none() {
    let run = probe(
        r#"
        for line in open('/proc/self/status'):
            name, _, value = line.partition(':')
            if name.startswith('Cap') or name in ('NoNewPrivs', 'Seccomp', 'Uid'):
                say(name, value.strip())
        import stat
        special = []
        for folder, names, files in os.walk('/'):
            if folder == '/': names.remove('proc')
            for name in files:
                path = os.path.join(folder, name)
                try: mode = os.lstat(path).st_mode
                except OSError: continue
                if stat.S_ISREG(mode) and mode & 0o6000: special.append(path)
                try:
                    if 'security.capability' in os.listxattr(path, follow_symlinks=False): special.append(path)
                except OSError: pass
        say('special', special)
        libc = ctypes.CDLL(None, use_errno=True)
        def become(call):
            def change():
                if getattr(libc, call)(0) != 0: raise OSError(ctypes.get_errno(), call)
            return change
        for call in ('setuid', 'setgid', 'seteuid', 'setegid'): attempt(call, become(call))
        attempt('setgroups', lambda: os.setgroups([0]))
        attempt('chown', lambda: os.chown('/job/tmp', 0, 0))
        "#,
    );
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(run.finding(name), "0000000000000000", "{name}");
    }
    assert_eq!((run.finding("NoNewPrivs"), run.finding("Seccomp")), ("1", "2"));
    assert_eq!(run.finding("special"), "[]", "no set-id file and no file capability is in the image");
    for name in ["setuid", "setgid", "seteuid", "setegid", "setgroups", "chown"] {
        assert_eq!(run.finding(name), "EPERM", "{name}");
    }
}

#[test]
fn a36_no_system_call_beyond_the_list_is_allowed() {
    let run = system_calls();
    let findings = run.findings();
    for (name, value) in &findings {
        match *name {
            "clone3" => assert_eq!(*value, "ENOSYS", "the C library must fall back to clone"),
            _ if name.starts_with("int80") || name.starts_with("x32") => {
                assert!(matches!(*value, "killed" | "refused"), "{name}: {value}")
            }
            _ => assert!(matches!(*value, "EPERM"), "{name}: {value}"),
        }
    }
    for name in [
        "mount", "unshare", "setns", "ptrace", "bpf", "perf_event_open", "kexec_load", "init_module", "pivot_root",
        "open_by_handle_at", "process_vm_readv", "userfaultfd", "clone 0x10000000",
    ] {
        assert!(findings.contains_key(name), "{name} was not tried");
    }
    assert!(findings.len() > 90, "{}", findings.len());
}

#[test]
fn a37_io_uring_is_not_there() {
    let run = system_calls();
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "io_submit"] {
        assert_eq!(run.finding(name), "EPERM", "{name}");
    }
}

#[test]
fn a38_the_kernels_crypto_sockets_are_not_there() {
    let run = probe(
        "attempt('python', lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))\nattempt('pair', lambda: socket.socketpair(16, 3))",
    );
    assert_eq!((run.finding("python"), run.finding("pair")), ("EPERM", "EPERM"));
    assert_eq!(system_calls().finding("AF_ALG"), "EPERM");
}

#[test]
fn a39_keyrings_and_sockets_of_other_families_are_not_there() {
    let run = system_calls();
    for name in [
        "keyctl", "add_key", "request_key", "AF_VSOCK", "AF_NETLINK", "AF_PACKET", "AF_KEY", "AF_XDP", "AF_INET raw",
        "AF_INET6 raw",
    ] {
        assert_eq!(run.finding(name), "EPERM", "{name}");
    }
}

#[test]
fn a41_the_kernels_own_files_tell_nothing_and_take_nothing() {
    let run = probe(
        r#"
        def size(name):
            data = open(name, 'rb').read(64)
            if data: raise RuntimeError('readable')
            raise FileNotFoundError(2, 'empty')
        for name in ('/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/sched_debug', '/proc/latency_stats', '/proc/interrupts', '/proc/kmsg', '/dev/mem', '/dev/kmsg', '/dev/kvm', '/dev/fuse', '/proc/kallsyms', '/proc/kpagecount', '/proc/1/kpageflags'):
            attempt('read ' + name, lambda: size(name))
        for name in ('/sys/firmware', '/proc/acpi', '/proc/scsi', '/proc/asound', '/sys/kernel/security', '/sys/kernel/debug', '/sys/devices/virtual/powercap'):
            try: say('list ' + name, len(os.listdir(name)))
            except OSError: say('list ' + name, 0)
        for name in ('/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/kernel/modprobe', '/proc/sys/vm/drop_caches', '/proc/sys/net/ipv4/ip_forward', '/proc/self/uid_map', '/proc/self/attr/current', '/proc/irq/default_smp_affinity', '/sys/kernel/uevent_helper', '/sys/power/state', '/proc/mtrr', '/proc/bus/pci/00/00.0'):
            attempt('write ' + name, lambda: os.write(os.open(name, os.O_WRONLY), b'b'))
        "#,
    );
    for (name, value) in run.findings() {
        if name.starts_with("list ") {
            assert_eq!(value, "0", "{name}");
        } else {
            assert!(
                matches!(value, "EROFS" | "EACCES" | "EPERM" | "ENOENT" | "EIO" | "EINVAL" | "ENXIO"),
                "{name}: {value}"
            );
        }
    }
}

#[test]
fn a42_control_groups_can_be_read_and_never_changed() {
    let run = probe(
        r#"
        tried, opened, made = 0, [], []
        for folder, _names, files in os.walk('/sys/fs/cgroup'):
            try: os.mkdir(folder + '/evil'); made.append(folder)
            except OSError: pass
            for name in files:
                if name in ('release_agent', 'notify_on_release', 'cgroup.procs', 'tasks', 'devices.allow', 'cgroup.subtree_control', 'memory.max', 'pids.max', 'cpu.max', 'cgroup.kill', 'cgroup.freeze') or name.endswith('limit_in_bytes'):
                    tried += 1
                    try: os.open(os.path.join(folder, name), os.O_WRONLY); opened.append(name)
                    except OSError: pass
        say('tried', tried); say('opened', opened); say('made', made)
        say('paths', sorted({line.strip().split(':', 2)[2] for line in open('/proc/self/cgroup')}))
        "#,
    );
    assert!(run.finding("tried").parse::<u32>().unwrap() > 0, "there was something to try");
    assert_eq!((run.finding("opened"), run.finding("made"), run.finding("paths")), ("[]", "[]", "['/']"));
}

#[test]
fn a43_no_way_leads_to_docker() {
    let run = probe(
        r#"
        import stat
        sockets = []
        for folder, names, files in os.walk('/'):
            if folder == '/': names.remove('proc')
            for name in files:
                path = os.path.join(folder, name)
                try:
                    if stat.S_ISSOCK(os.lstat(path).st_mode): sockets.append(path)
                except OSError: pass
        say('sockets', sockets)
        say('abstract', sum('@' in line for line in open('/proc/net/unix')))
        for name in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/host/var/run/docker.sock'):
            def dial():
                with socket.socket(socket.AF_UNIX) as end: end.connect(name)
            attempt(name, dial)
        for host in ('127.0.0.1', '172.17.0.1', '172.18.0.1', '10.0.0.1', '192.168.0.1', '169.254.169.254', '::1'):
            for port in (2375, 2376, 2377, 7946, 10250, 22, 80):
                attempt(f'{host} {port}', lambda: socket.create_connection((host, port), 1).close())
        "#,
    );
    assert_eq!((run.finding("sockets"), run.finding("abstract")), ("[]", "0"));
    for (name, value) in run.findings() {
        if name != "sockets" && name != "abstract" {
            assert!(
                matches!(value, "ENOENT" | "ENETUNREACH" | "ECONNREFUSED" | "EADDRNOTAVAIL" | "EACCES"),
                "{name}: {value}"
            );
        }
    }
}
