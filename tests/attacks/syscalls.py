"""Raw system calls that widen the kernel's surface, by number, with arguments that do no harm where they are allowed."""

import platform

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"

CALLS = {
    # name: (x86_64, aarch64)
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "fsopen": (430, 430),
    "fsmount": (432, 432), "fsconfig": (431, 431), "fspick": (433, 433), "open_tree": (428, 428), "move_mount": (429, 429),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "bpf": (321, 280), "perf_event_open": (298, 241), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263), "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224), "swapoff": (168, 225),
    "reboot": (169, 142), "syslog": (103, 116), "sethostname": (170, 161), "setdomainname": (171, 162),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "lookup_dcookie": (212, 18), "vhangup": (153, 58), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "mbind": (237, 235), "set_mempolicy": (238, 237), "io_setup": (206, 0), "io_submit": (209, 2), "memfd_secret": (447, 447),
    "landlock_create_ruleset": (444, 444), "seccomp": (317, 277), "remap_file_pages": (216, 234),
    "quotactl_fd": (443, 443), "setxattr": (188, 5), "personality_legacy": (135, 92),
}
if X86:
    CALLS |= {
        "iopl": (172, 0), "ioperm": (173, 0), "modify_ldt": (154, 0), "uselib": (134, 0), "ustat": (136, 0), "sysfs": (139, 0),
        "_sysctl": (156, 0), "nfsservctl": (180, 0), "create_module": (174, 0), "kexec_x": (246, 0),
    }


def outcome(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(arg) for arg in args])
    return "allowed" if result >= 0 else errno.errorcode.get(ctypes.get_errno(), str(ctypes.get_errno()))


def namespaces():
    for bit in ("0x00000080", "0x00020000", "0x02000000", "0x04000000", "0x08000000", "0x10000000", "0x20000000", "0x40000000"):
        # clone(flags | SIGCHLD): a child that comes into being ends at once.
        number = 56 if X86 else 220
        ctypes.set_errno(0)
        pid = libc.syscall(ctypes.c_long(number), ctypes.c_long(int(bit, 16) | 17), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0), ctypes.c_long(0))
        if pid == 0:
            os._exit(0)
        say(f"clone {bit}", "allowed" if pid > 0 else errno.errorcode.get(ctypes.get_errno()))


def foreign():
    """System calls by the ways of other ABIs: whether the number of a process comes back."""
    if not X86:
        return
    import mmap
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    for name, code in (
        ("int80 getpid", b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"),          # mov eax, 20; int 0x80; ret
        ("int80 mount", b"\xb8\x15\x00\x00\x00\xcd\x80\xc3"),
        ("x32 getpid", b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"),            # mov eax, 0x40000027; syscall; ret
        ("x32 ptrace", b"\xb8\x09\x02\x00\x40\x0f\x05\xc3"),
    ):
        page.seek(0)
        page.write(code)
        call = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        pid = os.fork()
        if pid == 0:
            result = call()
            os._exit(1 if result > 0 else 2)
        _, status = os.waitpid(pid, 0)
        say(name, "killed" if os.WIFSIGNALED(status) else ("allowed" if os.WEXITSTATUS(status) == 1 else "refused"))


def run(**_):
    for name, (x86, arm) in CALLS.items():
        say(name, outcome(x86 if X86 else arm, *((0x1234,) if name == "personality_legacy" else (0, 0, 0, 0, 0))))
    say("clone3", outcome(435, 0, 0))
    namespaces()
    for name, family, kind in (
        ("AF_ALG", 38, 5), ("AF_VSOCK", 40, 1), ("AF_NETLINK", 16, 3), ("AF_PACKET", 17, 3), ("AF_KEY", 15, 3), ("AF_XDP", 44, 3),
        ("AF_BLUETOOTH", 31, 3), ("AF_CAN", 29, 3), ("AF_TIPC", 30, 1), ("AF_RDS", 21, 5), ("AF_APPLETALK", 5, 2), ("AF_X25", 9, 5),
        ("AF_SMC", 43, 1), ("AF_QIPCRTR", 42, 2), ("AF_KCM", 41, 2), ("AF_NFC", 39, 3), ("AF_PHONET", 35, 2), ("AF_IEEE802154", 36, 2),
    ):
        say(name, outcome(41 if X86 else 198, family, kind, 0))
    for name, family in (("AF_INET raw", 2), ("AF_INET6 raw", 10)):
        say(name, outcome(41 if X86 else 198, family, 3, 1))
    foreign()
