"""Starts a sandboxed process for every request on a socket, and ends it on demand.

A script of its own (it imports nothing of rac), so that it starts fast and its memory holds no
secret; programs are forked from it with Python's usual modules already imported. What a program
is and what it reads comes as file descriptors that this process never reads.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import confine, judging, landlock, namespaces, programs, seccomp

PRELOADED = (
    "abc array bisect cmath collections contextlib copy dataclasses datetime decimal enum fractions"
    " functools heapq io itertools json math numbers operator queue random re statistics string"
    " sys threading time typing"
)
MODES = {
    "program": programs.run_program,
    "candidate": programs.serve_candidate,
    "tests": judging.run_tests,
}
FIRST_UID = 2_000_000_000
LIMITS_OF_TRIAL = {"cpu_seconds": 10, "memory_bytes": 4 << 30}


def main() -> None:
    """Set up the layers in `sys.argv[1]` (JSON), report them, serve until the socket closes."""
    config = json.loads(sys.argv[1])
    channel = socket.socket(fileno=config["socket"])
    try:
        layers = _prepare(config, channel)
        ruleset = _ruleset(config, layers)
        _preload(config)
        _try(config, layers, ruleset)
    except OSError as error:
        channel.send(json.dumps({"error": str(error)}).encode())
        return
    channel.send(json.dumps({"layers": layers}).encode())
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, 1 << 16, 8)
        if not message:
            return
        request = json.loads(message)
        if "kill" not in request:  # else of a program that had ended already
            _run(channel, request, descriptors, config, layers, ruleset)


def _prepare(config: dict[str, Any], channel: socket.socket) -> dict[str, Any]:
    """Enter namespaces when asked to; what goes on after this is process 1 of its own."""
    layers: dict[str, Any] = {"namespaces": "", "scratch": False, "own count": False}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    private_uid = FIRST_UID + os.getpid()
    if config["namespaces"]:
        user = namespaces.enter()
        child = os.fork()
        if child:
            channel.close()
            os.waitpid(child, 0)
            os._exit(0)
        ctypes.CDLL(None).prctl(seccomp.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError):
            namespaces.mount_proc()
        namespaces.mount_scratch(config["scratch"], config["scratch_bytes"])
        kind = "user, mount, pid, network" if user else "mount, pid, network"
        counts_apart = tuple(map(int, os.uname().release.split(".")[:2])) >= (5, 14)
        layers.update({"namespaces": kind, "scratch": True, "own count": user and counts_apart})
    layers["uid"] = private_uid if os.geteuid() == 0 and _readable(config["packages"]) else None
    layers["seccomp"] = config["seccomp"] and seccomp.supported()
    return layers


def _readable(packages: list[str]) -> bool:
    """Whether Python's own modules and `packages` are in reach of another user."""
    folders = [Path(path).resolve() for path in (sysconfig.get_path("stdlib"), *packages)]
    every = {above for folder in folders for above in (folder, *folder.parents)}
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in every)


def _ruleset(config: dict[str, Any], layers: dict[str, Any]) -> int | None:
    sys.path[:] = [p for p in sys.path if p != config["own_folder"]] + config["search"]
    folder = str(Path(config["scratch"]).parent)  # what is mounted in it changes
    layers["landlock"] = 0
    if not config["landlock"]:
        return None
    try:
        ruleset, layers["landlock"] = landlock.make_ruleset(
            config["packages"], folder, layers["scratch"]
        )
    except OSError:
        return None
    return ruleset


def _preload(config: dict[str, Any]) -> None:
    import site

    site.setquit()
    for name in PRELOADED.split():
        __import__(name)
    sys.argv = ["solution.py"]
    sys.set_int_max_str_digits(config["int_digits"])
    gc.collect()
    gc.freeze()


def _try(config: dict[str, Any], layers: dict[str, Any], ruleset: int | None) -> None:
    """Apply every layer in a child; seccomp is struck off when it alone is what fails."""
    for seccomp_works in (True, False) if layers["seccomp"] else (False,):
        layers["seccomp"] = seccomp_works
        child = os.fork()
        if child == 0:
            try:
                confine.confine(LIMITS_OF_TRIAL, layers, ruleset)
                os._exit(0)
            except BaseException:
                os._exit(1)
        if os.waitpid(child, 0)[1] == 0:
            return
    raise OSError("the limits cannot be set")


def _run(
    channel: socket.socket,
    request: dict[str, Any],
    descriptors: list[int],
    config: dict[str, Any],
    layers: dict[str, Any],
    ruleset: int | None,
) -> None:
    child = os.fork()
    if child == 0:
        code = programs.NOT_CONFINED
        try:
            code = _become_program(request, descriptors, config, layers, ruleset)
        finally:
            os._exit(code)
    for descriptor in descriptors:
        os.close(descriptor)
    status, usage = _wait(channel, child, request["run"])
    _clear(config, layers)
    answer = {"ended": request["run"], "cpu": usage.ru_utime + usage.ru_stime, "status": status}
    channel.send(json.dumps(answer).encode())


def _become_program(
    request: dict[str, Any],
    descriptors: list[int],
    config: dict[str, Any],
    layers: dict[str, Any],
    ruleset: int | None,
) -> int:
    os.setsid()
    last = [] if ruleset is None else [ruleset]
    confine.arrange([*descriptors[1:], descriptors[0], *last])
    payload_file = len(descriptors) - 1
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    home = config["scratch"]
    os.environ.update(HOME=home, TMPDIR=home, LANG="C.UTF-8", PATH="/usr/bin:/bin")
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    os.chdir(home)
    os.umask(0o077)
    confine.confine(request["limits"], layers, payload_file + 1 if last else None)
    with open(payload_file, "rb") as file:
        payload = json.load(file)
    programs.open_streams()
    return MODES[payload["mode"]](payload)


def _wait(channel: socket.socket, child: int, number: int) -> tuple[int, Any]:
    """Wait for the child's end; kill it when told to, or when whoever asked for it is gone."""
    handle = os.pidfd_open(child)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.register(channel, select.POLLIN)
    while not any(ready == handle for ready, _ in poll.poll()):
        message = channel.recv(1 << 16)
        if not message or json.loads(message) == {"kill": number}:
            os.kill(child, signal.SIGKILL)
            if not message:
                os.waitpid(child, 0)
                os._exit(0)
    os.close(handle)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _clear(config: dict[str, Any], layers: dict[str, Any]) -> None:
    """End what the program left behind, and empty its folder."""
    if not layers["namespaces"] or os.getpid() != 1:
        return
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)  # as process 1: everyone else in this namespace
    with suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    if os.listdir(config["scratch"]):
        namespaces.unmount(config["scratch"])
        namespaces.mount_scratch(config["scratch"], config["scratch_bytes"])
