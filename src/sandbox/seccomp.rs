//! The system calls that a job container may make.
//!
//! An allow-list: what is not here fails with `EPERM` (and `ENOSYS` for `clone3`, so that the C library falls back to
//! `clone`, whose flags a filter can see). It holds what CPython, numpy, pandas, threads, `subprocess` and
//! `multiprocessing` need, and leaves out whole families that only widen the kernel's surface: namespaces, mounts, modules,
//! tracing, BPF, performance events, `io_uring`, keyrings, and every socket family but Unix and IP.
//! Format: Docker's seccomp profile, <https://docs.docker.com/engine/security/seccomp/>.

use serde_json::{Value, json};

/// Files, directories, polling.
const FILES: &[&str] = &[
    "access", "chdir", "chmod", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3",
    "epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2",
    "faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown",
    "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fstat", "fstatfs", "fsync", "ftruncate",
    "futimesat", "getcwd", "getdents", "getdents64", "getxattr", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "ioctl", "lchown", "chown", "lgetxattr", "link", "linkat", "listxattr", "llistxattr", "lseek",
    "lstat", "mkdir", "mkdirat", "mknod", "mknodat", "newfstatat", "open", "openat", "openat2", "pipe", "pipe2",
    "poll", "ppoll", "pread64", "preadv", "preadv2", "pselect6", "pwrite64", "pwritev", "pwritev2", "read",
    "readahead", "readlink", "readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "select", "sendfile",
    "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "tee",
    "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat", "utimes", "vmsplice", "write", "writev",
];
/// Memory.
const MEMORY: &[&str] = &[
    "brk", "madvise", "membarrier", "memfd_create", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect",
    "mremap", "msync", "munlock", "munlockall", "munmap", "pkey_alloc", "pkey_free", "pkey_mprotect",
];
/// Processes, threads, scheduling, signals, time.
const PROCESSES: &[&str] = &[
    "alarm", "arch_prctl", "capget", "capset", "clock_getres", "clock_gettime", "clock_nanosleep", "execve",
    "execveat", "exit", "exit_group", "fork", "futex", "futex_wait", "futex_waitv", "futex_wake", "futex_requeue",
    "get_robust_list", "get_thread_area", "getcpu", "getegid", "geteuid", "getgid", "getgroups", "getitimer",
    "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid", "getrlimit",
    "getrusage", "getsid", "gettid", "gettimeofday", "getuid", "kill", "nanosleep", "pause", "pidfd_open",
    "pidfd_send_signal", "prctl", "prlimit64", "restart_syscall", "rseq", "rt_sigaction", "rt_sigpending",
    "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam",
    "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr", "sched_setparam",
    "sched_setscheduler", "sched_yield", "set_robust_list", "set_thread_area", "set_tid_address", "setgid",
    "setgroups", "setitimer", "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit",
    "setsid", "setuid", "sigaltstack", "signalfd", "signalfd4", "sysinfo", "tgkill", "time", "timer_create",
    "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create", "timerfd_gettime",
    "timerfd_settime", "times", "tkill", "uname", "vfork", "wait4", "waitid",
];
/// Sockets, once made; [`SOCKET_FAMILIES`] says which can be made.
const SOCKETS: &[&str] = &[
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom",
    "recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
];
/// Inter-process communication inside the container's own IPC namespace.
const IPC: &[&str] = &[
    "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "msgctl", "msgget",
    "msgrcv", "msgsnd", "semctl", "semget", "semop", "semtimedop", "shmat", "shmctl", "shmdt", "shmget",
];

/// `AF_UNIX`, `AF_INET`, `AF_INET6`: no netlink, packet, vsock, `AF_ALG` or the rest.
const SOCKET_FAMILIES: [u64; 3] = [1, 2, 10];

/// Every `CLONE_NEW*` flag, time namespaces included: a `clone` with one of them is refused.
const CLONE_NAMESPACES: u64 = 0x7E02_0080;

/// The profile as JSON text, as `SecurityOpt` `seccomp=` takes it.
pub fn profile() -> String {
    let names: Vec<&str> = [FILES, MEMORY, PROCESSES, SOCKETS, IPC].concat();
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    for family in SOCKET_FAMILIES {
        rules.push(allow_if(&["socket", "socketpair"], 0, family, None));
    }
    rules.push(allow_if(&["clone"], 0, CLONE_NAMESPACES, Some(0)));
    // personality(2): only the values that query or keep the default execution domain.
    for persona in [0, 0x0008, 0xffff_ffff] {
        rules.push(allow_if(&["personality"], 0, persona, None));
    }
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": []},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": []},
        ],
        "syscalls": rules,
    })
    .to_string()
}

/// Allows `names` when argument `index` equals `value`, or when masked with `value` it equals `masked`.
fn allow_if(names: &[&str], index: u32, value: u64, masked: Option<u64>) -> Value {
    let argument = match masked {
        None => json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"}),
        Some(expected) => json!({"index": index, "value": value, "valueTwo": expected, "op": "SCMP_CMP_MASKED_EQ"}),
    };
    json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": [argument]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_dangerous_call_is_listed() {
        let listed = [FILES, MEMORY, PROCESSES, SOCKETS, IPC].concat();
        for name in [
            "mount", "umount2", "unshare", "setns", "ptrace", "bpf", "perf_event_open", "kexec_load",
            "kexec_file_load", "init_module", "finit_module", "io_uring_setup", "io_uring_enter", "keyctl", "add_key",
            "request_key", "userfaultfd", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "open_by_handle_at",
            "name_to_handle_at", "pivot_root", "chroot", "reboot", "swapon", "quotactl", "acct", "syslog", "iopl",
            "ioperm", "modify_ldt", "move_mount", "fsopen", "open_tree", "landlock_create_ruleset", "socket", "clone",
            "clone3", "personality",
        ] {
            assert!(!listed.contains(&name), "{name} must not be allowed outright");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut listed = [FILES, MEMORY, PROCESSES, SOCKETS, IPC].concat();
        listed.sort_unstable();
        let all = listed.len();
        listed.dedup();
        assert_eq!(all, listed.len());
    }
}
