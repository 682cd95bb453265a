"""What a hostile program cannot reach: files, disk, network, other processes, the environment."""

import os
import socket

import pytest
from sandboxing import LAYERS, attempts, confined, has, run, still_works

from rac.evaluation.sandbox import Limits


@pytest.fixture(scope="module", params=LAYERS.values(), ids=LAYERS)
def sandbox(request):
    yield from confined(request.param)


@pytest.fixture(autouse=True)
def unharmed(sandbox):
    yield from still_works(sandbox)


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


def test_other_processes_cannot_be_touched(sandbox):
    victim = os.getpid()
    statements = [  # signals that do nothing: kill(-1) would reach far if nothing held it back
        f"os.kill({victim}, 0)",
        "os.kill(-1, 0)",
        f"__import__('resource').prlimit({victim}, 7, (0, 0))",
        "if c.ptrace(16, os.getppid(), 0, 0) < 0: raise OSError",
        f"if c.ptrace(16, {victim}, 0, 0) < 0: raise OSError",
        "open(f'/proc/{os.getppid()}/mem', 'rb+')",
    ]
    if has(sandbox, "namespaces") or has(sandbox, "landlock") or os.geteuid() == 0:
        statements.append(f"open('/proc/{victim}/mem', 'rb')")  # else a user reads what is theirs
        statements.append(f"open('/proc/{victim}/environ', 'rb')")
    if has(sandbox, "namespaces"):  # its parent is process 1 there, which no signal reaches
        program = "import os\ntry:\n if os.getppid() == 1: os.kill(1, 9)\nexcept OSError: pass"
        assert run(sandbox, program).status == "ok"
    if has(sandbox, "seccomp"):
        statements.append("os.kill(os.getppid(), 0)")
    found = attempts(sandbox, statements, "c = ctypes.CDLL(None)")
    assert len(found) == len(statements) and "done" not in found


def test_the_environment_is_empty(sandbox, monkeypatch):
    monkeypatch.setenv("RAC_TEST_TOKEN", "secret")
    program = """
import os
print(sorted(os.environ))
try: print(open('/proc/self/environ').read())
except PermissionError: pass
"""
    text = run(sandbox, program).stdout.decode()
    assert "TOKEN" not in text and "secret" not in text
    assert "'HOME', 'LANG', 'OMP_NUM_THREADS'" in text
