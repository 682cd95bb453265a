"""Landlock: which files a program may open, whoever it runs as (landlock(7), Linux 5.13).

Reading is limited to Python, its libraries and a few files that they need, so that neither the
user's files nor a benchmark's answers on disk are in reach; writing to one folder.
"""

import ctypes
import os
import struct
import sys
import sysconfig
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE, IOCTL_DEV = 1, 2, 4, 8, 1 << 14, 1 << 15
RIGHTS_OF_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights of files the kernel knows
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
NETWORK_RIGHTS, SCOPES = 3, 3  # TCP bind and connect; abstract Unix sockets and signals
SYSTEM = (
    "/lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /etc/ld.so.cache /usr/share/zoneinfo "
    "/etc/localtime /dev/null /dev/zero /dev/random /dev/urandom /dev/full "
    "/proc/cpuinfo /proc/meminfo /sys/devices/system/cpu"
)

_libc = ctypes.CDLL(None, use_errno=True)


def _call(*arguments: object) -> int:
    result = _libc.syscall(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result


def make_ruleset(packages: list[str], folder: str, writable: bool) -> tuple[int, int]:
    """A ruleset as (file descriptor, ABI version).

    Readable are Python's library, the folders `packages`, `SYSTEM` and `folder`; `folder` with all
    below it may be written when `writable`, and /dev/null always.

    Raises:
        OSError: the kernel has no Landlock.
    """
    abi = _call(CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    handled = (1 << RIGHTS_OF_ABI[min(abi, 5)]) - 1
    attributes = struct.pack(
        "QQQ", handled, NETWORK_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0
    )
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _call(CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), 0)
    for path in sys.path:
        _allow(ruleset, path, READ_DIR)
    for path in [*SYSTEM.split(), *_library(), *packages]:
        _allow(ruleset, path, (READ_FILE | READ_DIR | EXECUTE) & handled)
    _allow(ruleset, "/dev/null", (READ_FILE | WRITE_FILE) & handled)
    _allow(ruleset, folder, handled if writable else READ_FILE | READ_DIR)
    return ruleset, abi


def _library() -> list[str]:
    """Python's own modules without the packages that are installed among them."""
    found = []
    for folder in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        entries = Path(folder).iterdir() if Path(folder).is_dir() else ()
        found += [str(e) for e in entries if e.name not in ("site-packages", "dist-packages")]
    return found


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this system
    try:
        if not os.path.isdir(path):
            rights &= FILE_RIGHTS
        if rights:
            _call(ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, parent), 0)
    finally:
        os.close(parent)


def restrict(ruleset: int) -> None:
    """Bind this thread, and all that it starts, to the ruleset; needs no_new_privs."""
    _call(RESTRICT_SELF, ruleset, 0)
