"""The sandbox's own parts: the filter's numbers, what is refused, a server that dies."""

import platform
import re
import struct
from pathlib import Path

import pytest

from rac.errors import UserError
from rac.evaluation.sandbox import Jail, Limits, Sandbox, describe_layers
from rac.evaluation.sandbox.inside import seccomp
from rac.evaluation.sandbox.jail import UNSAFE

HEADERS = (
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "/usr/include/asm-generic/unistd.h",
)


@pytest.mark.parametrize("column", [0, 1], ids=["x86_64", "aarch64"])
def test_numbers_are_those_of_the_kernels_headers(column):
    header = Path(HEADERS[column])
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    lines = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    kernel = {name: int(number) for name, number in lines}
    compared = [name for name in seccomp.NUMBERS if name in kernel]
    assert len(compared) > 90
    for name in compared:
        assert seccomp.NUMBERS[name][column] == kernel[name], name


def decide(program, number, *arguments, architecture=0xC000003E):
    """What the kernel would do: the filter run on one call, as Linux's interpreter runs it."""
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, position = 0, 0
    while True:
        kind, jump_true, jump_false, k = code[position]
        position += 1
        if kind == seccomp.RETURN:
            return k
        if kind == seccomp.LOAD:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif kind == seccomp.AND:
            accumulator &= k
        else:
            tests = {
                seccomp.EQUAL: accumulator == k,
                seccomp.GREATER_EQUAL: accumulator >= k,
                seccomp.ANY_BIT: bool(accumulator & k),
            }
            position += jump_true if tests[kind] else jump_false


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86_64")
@pytest.mark.parametrize("writable", [True, False])
def test_the_filter_decides_call_by_call(writable):
    program = seccomp.build_filter(77, writable)
    allow, refuse = seccomp.ALLOW, seccomp.ERRNO | 1
    read_only = allow if writable else refuse
    for call, arguments, expected in [
        ("fork", (), refuse),
        ("clone", (0x10000 | 0x100,), allow),
        ("clone", (17,), refuse),
        ("clone3", (), seccomp.ERRNO | 38),
        ("socket", (2, 1), refuse),
        ("socketpair", (1, 0x80001), allow),
        ("socketpair", (1, 2), refuse),
        ("kill", (77, 9), allow),
        ("kill", (76, 9), refuse),
        ("kill", (0xFFFFFFFF, 9), refuse),
        ("tgkill", (77, 78, 9), allow),
        ("prlimit64", (0, 7), allow),
        ("prlimit64", (1, 7), refuse),
        ("prctl", (15,), allow),
        ("prctl", (1,), refuse),
        ("fcntl", (3, 8, 1), refuse),
        ("fcntl", (3, 1), allow),
        ("ioctl", (0, 0x5412), refuse),
        ("unlink", (), read_only),
        ("fchmodat", (), read_only),
        ("openat", (0, 0, 0o2000000), allow),
        ("openat", (0, 0, 0o1), allow if writable else seccomp.ERRNO | 13),
        ("open", (0, 0o1000), allow if writable else seccomp.ERRNO | 13),
    ]:
        found = decide(program, seccomp.NUMBERS[call][0], *arguments)
        assert found == expected, (call, arguments)
    for harmless in (0, 1, 9, 60, 231, 202):  # read, write, mmap, exit, exit_group, futex
        assert decide(program, harmless) == allow
    assert decide(program, 0, architecture=0x40000003) == seccomp.KILL_PROCESS  # i386
    assert decide(program, 0x40000000 | 57) == seccomp.KILL_PROCESS  # x32


def test_a_system_that_cannot_confine_is_refused(monkeypatch):
    monkeypatch.delenv(UNSAFE, raising=False)
    with pytest.raises(UserError, match=f"too little to confine.*{UNSAFE}=1"):
        Jail(namespaces=False, seccomp=False)
    monkeypatch.setenv(UNSAFE, "1")
    jail = Jail(namespaces=False, seccomp=False)
    assert "seccomp" not in describe_layers(jail.layers)
    jail.close()


def test_layers_are_named_in_words():
    layers = {"namespaces": "", "uid": 5, "landlock": 0, "seccomp": True, "scratch": False}
    text = "a user of its own, seccomp, resource limits; no file can be written"
    assert describe_layers(layers) == text + ", other files can be read"
    assert describe_layers({**layers, "landlock": 7}) == text.replace(
        "seccomp", "Landlock 7, seccomp"
    )


def test_a_server_that_was_killed_is_started_again():
    with Sandbox() as sandbox:
        for _ in range(2):
            assert sandbox.run_program(["print(1)"]).stdout == b"1\n"
            sandbox.jail._process.kill()
            assert sandbox.jail.channel.recv(1) == b""  # gone
        folder = Path(sandbox.jail._folder.name)
        assert sandbox.run_program(["print(2)"]).stdout == b"2\n" and folder.exists()
    assert not folder.exists()


def test_what_is_read_at_the_deadline_is_kept():
    with Sandbox() as sandbox:
        program = "import time; print('said', flush=True); time.sleep(60)"
        outcome = sandbox.run_program([program], limits=Limits(seconds=0.5))
    assert (outcome.status, outcome.stdout) == ("timeout", b"said\n")
