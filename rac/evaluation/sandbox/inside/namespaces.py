"""Namespaces: no network, own process numbers, everything mounted read-only but one tmpfs.

Root makes them directly; a user inside a user namespace, where the system allows it.
"""

import ctypes
import os
import struct

NEW_NS, NEW_UTS, NEW_IPC, NEW_USER = 0x20000, 0x4000000, 0x8000000, 0x10000000
NEW_PID, NEW_NET = 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR = 2, -100, 0x8000, 442
ATTR_RDONLY, ATTR_NOSUID = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    arguments = [None if a is None else a.encode() for a in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mounting {kind or 'private'} on {target}")


def enter() -> bool:
    """Leave this process's namespaces; its next child is process 1 of the new ones.

    Returns whether a user namespace was needed.

    Raises:
        OSError: the system allows neither way.
    """
    flags = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    if os.geteuid() == 0 and _libc.unshare(flags) == 0:
        user = False
    else:
        uid, gid = os.geteuid(), os.getegid()
        _check(_libc.unshare(flags | NEW_USER), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        user = True
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    attributes = struct.pack("QQQQ", ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
    result = _libc.syscall(
        MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    _check(result, "mounting / read-only")
    return user


def mount_scratch(path: str, size: int) -> None:
    """Put an empty tmpfs of `size` bytes on the folder `path`."""
    options = f"size={size},nr_inodes=4096,mode=0777"
    _mount("scratch", path, "tmpfs", MS_NOSUID | MS_NODEV, options)


def unmount(path: str) -> None:
    """Throw away what was last mounted on `path`."""
    _check(_libc.umount2(path.encode(), MNT_DETACH), f"unmounting {path}")


def mount_proc() -> None:
    """Show the processes of this namespace alone; containers that mask /proc forbid it."""
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
