"""Hostile programs in the sandbox: each fails its own problem and harms nothing.

Every test runs under several sets of layers, as on systems that have fewer. The programs are
bounded, so that they do no harm either where a protection has failed.
"""

import os
import socket
import time
from pathlib import Path

import pytest

from rac.evaluation.sandbox import Limits, Sandbox
from rac.evaluation.sandbox.jail import UNSAFE

LAYERS = {
    "all": {},
    "no namespaces": {"namespaces": False},
    "seccomp alone": {"namespaces": False, "landlock": False},
    "no seccomp": {"seccomp": False},
}
SHORT = Limits(seconds=10.0, memory_bytes=512 << 20, output_bytes=1 << 20)
QUICK = Limits(seconds=0.4, output_bytes=1 << 20)


@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS)
def sandbox(request):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(UNSAFE, "1")  # "no seccomp" is refused where root's threads are not counted
        with Sandbox(**request.param) as made:
            if not request.param.get("seccomp", True) and not made.jail.layers["namespaces"]:
                pytest.skip("this system allows no namespaces")
            yield made


@pytest.fixture(autouse=True)
def unharmed(sandbox):
    """After every program, the same server runs the next one, which finds nothing left."""
    server = sandbox.jail._process.pid
    yield
    program = "import os; print(sum(map(int, input().split())), os.listdir('.'))"
    outcome = sandbox.run_program([program], b"20 22\n")
    assert (outcome.status, outcome.stdout) == ("ok", b"42 []\n")
    assert sandbox.jail._process.pid == server and sandbox.jail._process.poll() is None


def run(sandbox, program, stdin=b"", limits=SHORT):
    outcome = sandbox.run_program([program], stdin, limits)
    assert outcome.status != "error", outcome.reason
    return outcome


def attempts(sandbox, statements, setup=""):
    """What each statement came to: the name of its exception, or "done"."""
    lines = [f"import os, sys, ctypes, signal, socket\n{setup}"]
    for statement in statements:
        body = "\n    ".join(statement.split("; "))
        report = "except BaseException as e:\n    print(type(e).__name__)\nelse:\n    print('done')"
        lines.append(f"try:\n    {body}\n{report}")
    return run(sandbox, "\n".join(lines)).stdout.decode().split()


def has(sandbox, layer):
    return bool(sandbox.jail.layers[layer])


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


def test_files_outside_survive(sandbox, tmp_path):
    """Files and folders that everyone may write, so that no permission of theirs protects them."""
    canary = tmp_path / "canary"
    canary.write_text("alive")
    for path, mode in ((canary, 0o666), (tmp_path, 0o777)):
        os.chmod(path, mode)
    found = attempts(
        sandbox,
        [
            "os.remove(path)",
            "os.unlink('/proc/self/root' + path)",
            "open(path, 'w').write('dead')",
            "open(path, 'r+').write('dead')",
            "os.close(os.open(path, os.O_RDONLY | os.O_TRUNC))",
            "os.truncate(path, 0)",
            "os.rename(path, path + '2')",
            "os.chmod(path, 0)",
            "os.utime(path, (0, 0))",
            "os.link(path, path + '3')",
            "os.symlink(path, 'link'); open('link', 'w').write('dead')",
            "os.symlink(folder, 'there'); os.remove('there/canary')",
            "open(folder + '/new', 'w')",
            "os.mkdir(folder + '/newer')",
            "os.chdir(folder); os.remove('canary')",
            "import shutil; shutil.rmtree(folder)",
            "if ctypes.CDLL(None).mount(b'none', folder.encode(), b'tmpfs', 0, b''): raise OSError",
        ],
        f"path, folder = {str(canary)!r}, {str(tmp_path)!r}",
    )
    assert len(found) == 17 and "done" not in found
    assert canary.read_text() == "alive" and os.listdir(tmp_path) == ["canary"]
    assert canary.stat().st_mode & 0o777 == 0o666 and canary.stat().st_mtime > 0


def test_files_outside_cannot_be_read(sandbox, tmp_path):
    if not has(sandbox, "landlock"):
        pytest.skip("Landlock limits what is read")
    secret = tmp_path / "answers.jsonl"
    secret.write_text("42")
    os.chmod(secret, 0o644)
    found = attempts(sandbox, [f"open({str(secret)!r})", f"os.listdir({str(tmp_path)!r})"])
    assert found == ["PermissionError"] * 2


def test_disk_cannot_be_filled(sandbox):
    program = """
import errno
written = 0
try:
    for number in range(64):
        with open(f'file{number}', 'wb', buffering=0) as file:
            for _ in range(16):
                written += file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
print(written >> 20)
"""
    reason, megabytes = run(sandbox, program, limits=Limits(20.0)).stdout.split()
    if has(sandbox, "scratch"):
        assert (reason, 40 < int(megabytes) <= 64) == (b"ENOSPC", True)
    else:
        assert (reason, int(megabytes)) == (b"EACCES", 0)


def test_open_files_are_limited(sandbox):
    program = """
files = []
try:
    for _ in range(5000): files.append(open('/dev/null'))
except OSError as error:
    print(error.errno)
print(len(files) < 64)
"""
    assert run(sandbox, program).stdout == b"24\nTrue\n"


def test_network_is_out_of_reach(sandbox, tmp_path):
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    unix = socket.socket(socket.AF_UNIX)
    udp.bind(("127.0.0.1", 0))
    unix.bind(f"{tmp_path}/socket")
    unix.listen()
    for path, mode in ((tmp_path, 0o777), (tmp_path / "socket", 0o777)):
        os.chmod(path, mode)
    with tcp, udp, unix:
        ports = tcp.getsockname()[1], udp.getsockname()[1]
        statements = [
            f"socket.create_connection(('127.0.0.1', {ports[0]}), timeout=1)",
            f"socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {ports[1]}))",
        ]
        if has(sandbox, "seccomp"):
            statements.append(f"socket.socket(1).connect('{tmp_path}/socket')")
            statements.append(f"socket.socketpair(1, 2)[0].sendto(b'x', '{tmp_path}/socket')")
        found = attempts(sandbox, statements)
        assert len(found) == len(statements) and "done" not in found
        for server, receive in ((tcp, tcp.accept), (udp, lambda: udp.recv(9)), (unix, unix.accept)):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                receive()


def named(name):
    """Processes of this machine with that name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(path.parent.name)
        except OSError:
            pass
    return found


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


def test_other_processes_cannot_be_touched(sandbox):
    victim = os.getpid()
    statements = [  # signals that do nothing: kill(-1) would reach far if nothing held it back
        f"os.kill({victim}, 0)",
        "os.kill(-1, 0)",
        f"__import__('resource').prlimit({victim}, 7, (0, 0))",
        "if c.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
        f"if c.ptrace(16, {victim}, 0, 0) < 0: raise OSError",
        "open(f'/proc/{os.getppid()}/mem', 'rb+')",
        f"open('/proc/{victim}/mem', 'rb')",
        f"open('/proc/{victim}/environ', 'rb')",
    ]
    if has(sandbox, "namespaces"):  # its parent is process 1 there, which no signal reaches
        program = "import os\ntry:\n if os.getppid() == 1: os.kill(1, 9)\nexcept OSError: pass"
        assert run(sandbox, program).status == "ok"
    if has(sandbox, "seccomp"):
        statements.append("os.kill(os.getppid(), 0)")
    found = attempts(sandbox, statements, "c = ctypes.CDLL(None)")
    assert len(found) == len(statements) and "done" not in found


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("RAC_TEST_TOKEN", "secret")
    program = "import os; print(sorted(os.environ)); print(open('/proc/self/environ').read())"
    if has(sandbox, "landlock"):
        program = "import os; print(sorted(os.environ))"
    text = run(sandbox, program).stdout.decode()
    assert "TOKEN" not in text and "secret" not in text
    assert "'HOME', 'LANG', 'OMP_NUM_THREADS'" in text


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
