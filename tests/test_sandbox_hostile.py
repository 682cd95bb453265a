"""Hostile programs: each fails its own problem, ends in time, and the next one runs.

Every test runs under several sets of layers, as on systems that have fewer. The programs are
bounded, so that they do no harm either where a protection has failed.
"""

import time

import pytest
from sandboxing import LAYERS, QUICK, SHORT, attempts, confined, has, named, run, still_works

from rac.evaluation.sandbox import Limits


@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS)
def sandbox(request):
    yield from confined(request.param)


@pytest.fixture(autouse=True)
def unharmed(sandbox):
    yield from still_works(sandbox)


def test_fork_bomb(sandbox):
    program = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b"rac-bomb", 0, 0, 0)
made = 0
for _ in range(40):
    try:
        child = os.fork()
    except OSError:
        continue
    if child == 0:
        time.sleep(2)
        os._exit(0)
    made += 1
print(made)
"""
    made = int(run(sandbox, program).stdout)
    assert made == 0 or not has(sandbox, "seccomp")
    assert named("rac-bomb") == []  # process 1 of the namespace ends them all


def test_no_way_to_start_a_process(sandbox):
    if not has(sandbox, "seccomp"):
        pytest.skip("namespaces allow processes of their own")
    found = attempts(
        sandbox,
        [
            "os.system('true') and os.abort(); raise OSError",
            "import subprocess; subprocess.run(['/bin/true'])",
            "os.posix_spawn('/bin/true', ['true'], {})",
            "os.execv('/bin/true', ['true'])",
            "import multiprocessing; multiprocessing.Process(target=print).start()",
        ],
        "os.abort = lambda: None",
    )
    assert len(found) == 5 and "done" not in found


def test_thread_bomb(sandbox):
    program = """
import threading
made, stop = 0, threading.Event()
try:
    for _ in range(2000):
        threading.Thread(target=stop.wait, daemon=True).start()
        made += 1
except (RuntimeError, MemoryError):
    pass
stop.set()
print(made)
"""
    outcome = sandbox.run_program([program], b"", SHORT)
    assert outcome.status in ("timeout", "memory") or int(outcome.stdout) < 2000


@pytest.mark.parametrize(
    "program",
    [
        "x = bytearray(1 << 40)",
        "x = []\nwhile True: x.append(bytes(1 << 24))",
        "x = 'a'\nwhile True: x += x",
    ],
    ids=["at once", "piece by piece", "doubling"],
)
def test_memory_bomb(sandbox, program):
    assert run(sandbox, program, limits=Limits(20.0, 512 << 20)).status == "memory"


def test_memory_outside_the_address_space(sandbox):
    if not has(sandbox, "seccomp"):
        pytest.skip("seccomp refuses these")
    statements = [
        "os.memfd_create('x')",
        "if ctypes.CDLL(None).shmget(0, 1 << 30, 0o1600) < 0: raise OSError",
    ]
    assert attempts(sandbox, statements) == ["PermissionError", "OSError"]


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("while True: print('x' * 100000)", "output"),
        ("import os\nwhile True: os.write(2, b'x' * 65536)", "timeout"),
        ("while True: pass", "timeout"),
        ("import time; time.sleep(60)", "timeout"),
        ("import os; os.kill(os.getpid(), 19)", "timeout"),
    ],
    ids=["output", "errors", "busy", "asleep", "stopped"],
)
def test_without_end(sandbox, program, status):
    start = time.monotonic()
    assert run(sandbox, program, limits=QUICK).status == status
    assert time.monotonic() - start < 8


def test_exceptions_cannot_be_caught_to_go_on(sandbox):
    program = """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True:
    try:
        while True: pass
    except BaseException: pass
"""
    assert run(sandbox, program, limits=QUICK).status == "timeout"
    program = "import sys\ntry: sys.exit(3)\nexcept: print('on')\nraise KeyboardInterrupt"
    outcome = sandbox.run_program([program])
    assert (outcome.status, outcome.stdout, outcome.reason) == (
        "error",
        b"on\n",
        "KeyboardInterrupt",
    )


def test_a_daemon_does_not_outlive_its_program(sandbox):
    program = """
import ctypes, os, time
ctypes.CDLL(None).prctl(15, b'rac-daemon', 0, 0, 0)
try:
    for _ in range(2):
        if os.fork(): os._exit(0)
        os.setsid()
    deadline = time.time() + 20
    while time.time() < deadline: time.sleep(0.1)
except OSError:
    print('refused')
"""
    outcome = run(sandbox, program)
    assert outcome.stdout == (b"refused\n" if has(sandbox, "seccomp") else b"")
    assert named("rac-daemon") == []


def test_closed_and_strange_output(sandbox):
    assert run(sandbox, "import os; print('lost'); os.close(1); os.close(2)").stdout == b""
    assert run(sandbox, "import sys; sys.stdout.close(); sys.stdin.close()").stdout == b""
    assert run(sandbox, "import os; os.closerange(0, 100)").status == "ok"
    program = "import sys; sys.stdout.buffer.write(bytes([255, 0, 10])); print('\\udcff é 漢')"
    assert run(sandbox, program).stdout == b"\xff\x00\n\xff \xc3\xa9 \xe6\xbc\xa2\n"
    program = "print(repr(input()))"
    assert run(sandbox, program, b"\xff\xfe\n").stdout == b"'\\udcff\\udcfe'\n"


def test_huge_input(sandbox):
    program = "import sys; print(sum(map(len, sys.stdin)))"
    assert run(sandbox, program, b"x" * 99 + b"\n" + b"y" * 40_000_000).stdout == b"40000100\n"
    assert run(sandbox, "print('unread')", bytes(40_000_000)).stdout == b"unread\n"


def test_a_crash_is_named(sandbox):
    outcome = run(sandbox, "import ctypes; ctypes.string_at(0)")
    assert (outcome.status, outcome.reason) == ("crash", "SIGSEGV")
