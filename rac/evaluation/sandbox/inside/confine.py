"""Bind the calling process to its limits, for good: what holds whatever the program does."""

import ctypes
import os
import resource
import struct
from contextlib import suppress
from typing import Any

from . import landlock, seccomp

PR_CAPBSET_DROP, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
PROCESSES, OPEN_FILES, FILE_BYTES = 64, 64, 64 << 20

_libc = ctypes.CDLL(None, use_errno=True)


def set_limits(limits: dict[str, Any], private_count: bool) -> None:
    """CPU seconds, address space, files; threads where the kernel counts this sandbox's alone."""
    cpu, memory = int(limits["cpu_seconds"]), int(limits["memory_bytes"])
    pairs = [
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ]
    if private_count:
        pairs.append((resource.RLIMIT_NPROC, PROCESSES))
    for kind, value in pairs:
        _, hard = resource.getrlimit(kind)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        soft = value
        if kind == resource.RLIMIT_CPU:
            value = value + 1 if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(kind, (soft, value))


def become(uid: int | None) -> None:
    """Give up root for `uid` (nobody where that number does not exist here), and every capability.

    Root is kept, without its capabilities, when `uid` is None.
    """
    for capability in range(64):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for candidate in () if uid is None else (uid, NOBODY):
        try:
            os.setgroups([])
            os.setresgid(candidate, candidate, candidate)
            os.setresuid(candidate, candidate, candidate)
            break
        except OSError:
            continue
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    _libc.capset(header, bytes(24))


def confine(limits: dict[str, Any], layers: dict[str, Any], ruleset: int | None) -> None:
    """Apply every layer that the server found to work; one that fails now ends the process."""
    private_count = layers["uid"] is not None or layers["own count"]
    become(layers["uid"])
    set_limits(limits, private_count)
    _libc.prctl(seccomp.PR_SET_PDEATHSIG, 9, 0, 0, 0)
    _libc.prctl(seccomp.PR_SET_DUMPABLE, 0, 0, 0, 0)  # nobody reads or traces this process
    _libc.prctl(seccomp.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if ruleset is not None:
        landlock.restrict(ruleset)
        os.close(ruleset)
    if layers["seccomp"]:
        seccomp.install(seccomp.build_filter(os.getpid(), layers["scratch"]))


def arrange(descriptors: list[int]) -> None:
    """Make `descriptors` the files 0, 1, 2, ... and close every other."""
    high = [os.dup(d) for d in descriptors]
    while any(d < len(descriptors) for d in high):
        high = [d if d >= len(descriptors) else os.dup(d) for d in high]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number)
    os.closerange(len(high), _open_limit())


def _open_limit() -> int:
    with suppress(OSError):
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16)
