"""A seccomp filter: which system calls a program may make, and with which arguments.

A classic BPF program that the kernel runs at each call (seccomp(2), Documentation/userspace-api/
seccomp_filter.rst). Threads are allowed; processes, sockets, signals to others, tracing, mounts,
memory outside of the address space limit, io_uring (whose operations no filter sees) are not.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

# Call: its number on x86_64 and on aarch64; None where it does not exist.
NUMBERS: dict[str, tuple[int | None, int | None]] = {}
_REFUSED = """
fork 57 - vfork 58 - execve 59 221 execveat 322 281 socket 41 198 ptrace 101 117
process_vm_readv 310 270 process_vm_writev 311 271 process_madvise 440 440
process_mrelease 448 448 kcmp 312 272 pidfd_open 434 434 pidfd_getfd 438 438
pidfd_send_signal 424 424 tkill 200 130 rt_sigqueueinfo 129 138 rt_tgsigqueueinfo 297 240
setpriority 141 140 sched_setscheduler 144 119 sched_setparam 142 118 sched_setattr 314 274
sched_setaffinity 203 122 ioprio_set 251 30 migrate_pages 256 238 move_pages 279 239
io_uring_setup 425 425 io_uring_enter 426 426 io_uring_register 427 427 bpf 321 280
perf_event_open 298 241 userfaultfd 323 282 keyctl 250 219 add_key 248 217 request_key 249 218
mount 165 40 umount2 166 39 pivot_root 155 41 chroot 161 51 setns 308 268 unshare 272 97
open_tree 428 428 move_mount 429 429 fsopen 430 430 fsconfig 431 431 fsmount 432 432
fspick 433 433 mount_setattr 442 442 memfd_create 319 279 memfd_secret 447 447 shmget 29 194
msgget 68 186 semget 64 190 mq_open 240 180 open_by_handle_at 304 265 name_to_handle_at 303 264
fanotify_init 300 262 quotactl 179 60 acct 163 89 swapon 167 224 swapoff 168 225 reboot 169 142
kexec_load 246 104 kexec_file_load 320 294 init_module 175 105 finit_module 313 273
delete_module 176 106 settimeofday 164 170 clock_settime 227 112 clock_adjtime 305 266
adjtimex 159 171 sethostname 170 161 setdomainname 171 162 syslog 103 116 personality 135 92
iopl 172 - ioperm 173 -
"""
_WRITES = """
creat 85 - unlink 87 - unlinkat 263 35 rename 82 - renameat 264 38 renameat2 316 276 mkdir 83 -
mkdirat 258 34 rmdir 84 - link 86 - linkat 265 37 symlink 88 - symlinkat 266 36 mknod 133 -
mknodat 259 33 truncate 76 45 chmod 90 - fchmod 91 52 fchmodat 268 53 fchmodat2 452 452
chown 92 - fchown 93 55 lchown 94 - fchownat 260 54 utime 132 - utimes 235 - futimesat 261 -
utimensat 280 88 setxattr 188 5 lsetxattr 189 6 fsetxattr 190 7 removexattr 197 14
lremovexattr 198 15 fremovexattr 199 16 setxattrat 463 463 removexattrat 466 466
"""
_JUDGED = """
clone 56 220 clone3 435 435 socketpair 53 199 kill 62 129 tgkill 234 131 prlimit64 302 261
prctl 157 167 fcntl 72 25 ioctl 16 29 open 2 - openat 257 56 openat2 437 437
"""

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
LOAD, EQUAL, GREATER_EQUAL, ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
CLONE_THREAD, SOCK_TYPE_MASK, SOCK_STREAM = 0x10000, 0xF, 1
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
F_SETOWN, F_SETOWN_EX, TIOCSTI = 8, 15, 0x5412
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Instruction = tuple[int, int, int, int]


def _parse(table: str) -> list[str]:
    words = table.split()
    names = words[::3]
    for name, x86, arm in zip(names, words[1::3], words[2::3], strict=True):
        NUMBERS[name] = (None if x86 == "-" else int(x86), None if arm == "-" else int(arm))
    return names


REFUSED, WRITES, JUDGED = _parse(_REFUSED), _parse(_WRITES), _parse(_JUDGED)


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _ARCHITECTURES and struct.calcsize("P") == 8


def build_filter(pid: int, writable: bool) -> bytes:
    """The filter for the process `pid` (as it sees itself); no writes to files unless `writable`.

    Returns an array of `struct sock_filter`.
    """
    column, architecture = _ARCHITECTURES[platform.machine()]
    program: list[Instruction] = [
        (LOAD, 0, 0, 4),  # seccomp_data.arch
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),  # a 32-bit call: other numbers
        (LOAD, 0, 0, 0),  # seccomp_data.nr
    ]
    if column == 0:  # the x32 numbers, which no program needs
        program += [(GREATER_EQUAL, 0, 1, 0x40000000), (RETURN, 0, 0, KILL_PROCESS)]
    refused = REFUSED if writable else REFUSED + WRITES
    rules = [(name, [_fail(errno.EPERM)]) for name in refused] + list(_judged(pid, writable))
    for name, body in rules:
        number = NUMBERS[name][column]
        if number is not None:
            program += [(EQUAL, 0, len(body), number), *body]
    program.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _fail(number: int) -> Instruction:
    return (RETURN, 0, 0, ERRNO | number)


def _judged(pid: int, writable: bool) -> Iterator[tuple[str, list[Instruction]]]:
    """Calls that depend on an argument; every body ends in a return."""
    allow, refuse = (RETURN, 0, 0, ALLOW), _fail(errno.EPERM)

    def argument(index: int) -> Instruction:
        return (LOAD, 0, 0, 16 + 8 * index)  # the low half: little-endian

    yield "clone", [argument(0), (ANY_BIT, 0, 1, CLONE_THREAD), allow, refuse]
    yield "clone3", [_fail(errno.ENOSYS)]  # flags in memory; the C library then calls clone
    stream = [(AND, 0, 0, SOCK_TYPE_MASK), (EQUAL, 0, 1, SOCK_STREAM), allow, refuse]
    yield "socketpair", [argument(1), *stream]
    for name in ("kill", "tgkill"):
        yield name, [argument(0), (EQUAL, 0, 1, pid), allow, refuse]
    yield "prlimit64", [argument(0), (EQUAL, 0, 1, 0), allow, refuse]
    for name, index, values in (
        ("prctl", 0, (PR_SET_PDEATHSIG, PR_SET_DUMPABLE)),
        ("fcntl", 1, (F_SETOWN, F_SETOWN_EX)),
        ("ioctl", 1, (TIOCSTI, TIOCSTI)),
    ):
        tests = [(EQUAL, 2, 0, values[0]), (EQUAL, 1, 0, values[1])]
        yield name, [argument(index), *tests, allow, refuse]
    if not writable:
        for name, index in (("open", 1), ("openat", 2)):
            flags = (ANY_BIT, 0, 1, WRITING_FLAGS)
            yield name, [argument(index), flags, _fail(errno.EACCES), allow]
        yield "openat2", [_fail(errno.ENOSYS)]


def install(filter_bytes: bytes) -> None:
    """Bind this thread, and all that it starts, to the filter for good.

    Raises:
        OSError: the kernel has no seccomp, or another filter forbids it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(filter_bytes, len(filter_bytes))
    program = ctypes.create_string_buffer(
        struct.pack("HP", len(filter_bytes) // 8, ctypes.addressof(instructions))
    )
    no_new_privileges = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if no_new_privileges or libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
