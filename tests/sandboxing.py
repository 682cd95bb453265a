"""Sandboxes with all or only some of their layers, and what the tests ask of them."""

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


def confined(layers):
    """A sandbox with these layers, for a fixture to yield from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(UNSAFE, "1")  # "no seccomp" is refused where root's threads are not counted
        with Sandbox(**layers) as made:
            if not layers.get("seccomp", True) and not made.jail.layers["namespaces"]:
                pytest.skip("this system allows no namespaces")
            yield made


def still_works(sandbox):
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
